"""Classification: which class is it? Its scores, its tests against bilinear (McNemar, Holm), its columns.

As in `srbench.metrics`, what works on tensors imports torch, so that those who only make tables do without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench import metrics
from srbench.errors import UsageError
from srbench.metrics.info import MetricInfo
from srbench.metrics.stats import LEVEL, bootstrap_f1, bootstrap_means, gap_interval, mcnemar_exact
from srbench.records.samples import score_columns
from srbench.records.schema import BASELINE, MAX_SCORE_CLASSES, ORACLE, ClassPart, Metric, Record
from srbench.task_types.base import BatchResult, OutputMap, TaskType
from srbench.task_types.paired import CellSamples, Column, Comparison, Floats, PairedCells, put_interval

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.data.source import Sample, Source

HISTOGRAM_DECADES, HISTOGRAM_BINS = 8, 200
PER_CLASS_COLUMNS = (
    "task",
    "classifier",
    "track",
    "method",
    "weights",
    "class",
    "class_index",
    "support",
    "precision",
    "recall",
    "f1",
    *(f"f1_delta_to_{name}{end}" for name in (ORACLE, BASELINE) for end in ("", "_low", "_high")),
)


class Classification(TaskType):
    """A class of each image, by the largest of the scores."""

    name = "classification"
    question = "which class is it?"
    loss_term = "ce"
    criterion = "accuracy"
    reads_scores = True
    compared = ("label", "pred")
    tests: ClassVar[Mapping[str, str]] = {"p_holm": "accuracy_delta", "p_best_holm": "accuracy_best_delta"}
    ranks = ("accuracy_best", "accuracy", "agreement")  # with several input sizes, rows are ranked at the best one
    shown: ClassVar[tuple[str, ...]] = (
        *("rank", "method", "accuracy", "accuracy_ci", "accuracy_delta", "recovered_gap", "best_input_sizes"),
        *("accuracy_best", "accuracy_best_ci", "accuracy_best_delta", "gap_over_free", "same_as_bilinear"),
        *("same_as_bilinear_ci", "confidence", "latency_ms", "rank_ci", "p_best_holm", "p_holm", "fixed"),
        *("p_best_size", "cross_entropy", "psnr", "psnr_ci", "total_time_s", "ssim", "top5", "auc", "auc_ci"),
        *("agreement", "f1_macro", "f1_macro_delta", "best_delta", "fixed_original", "latency_p10_ms", "seed_sd"),
        *("images_per_s", "parameters", "macs", "total_macs", "peak_memory_mb", "ece", "logit_mse_to_hr"),
        *("kl_to_hr",),
    )
    essential = ("cross_entropy", "psnr", "accuracy", "total_time_s")
    chooses_input_size = True

    # --- targets

    def classes_of(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Name the classes: those of a single source in its order, those of several sorted."""
        if any(source.classes is None for source in sources):
            raise UsageError(
                "a classifier needs labelled data, such as folder:PATH with one folder per class;"
                f" got {', '.join(source.spec for source in sources if source.classes is None)}"
            )
        if len(sources) == 1:
            return sources[0].classes or ()
        return tuple(sorted({name for source in sources for name in source.classes or ()}))

    def targets(
        self, samples: Sequence[Sample], answers: OutputMap, placed: Sequence[NDArray[Any]] | None = None
    ) -> NDArray[np.int64] | None:
        """Return the output that is right for each sample, `(N,)` int64, or None without labels."""
        labels = [sample.label for sample in samples]
        if answers.outputs is None or None in labels or not labels:
            return None
        return answers.outputs[np.array(labels, dtype=np.int64)]

    # --- learning

    def loss(self, scores: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy with int64 labels `(N,)`."""
        return ce(scores, target, smoothing=smoothing)

    def figures(self, scores: Tensor, target: Tensor, answers: OutputMap) -> dict[str, Tensor]:
        """Return cross-entropy and whether the largest score is right, each `(N,)`."""
        import torch

        if answers.present is not None:
            present = torch.from_numpy(answers.present).to(scores.device)
            scores, target = scores[:, present], torch.searchsorted(present, target)
        return {
            "ce": metrics.cross_entropy(scores, target),
            "accuracy": metrics.topk_hit(scores, target, k=1).double(),
        }

    # --- scoring

    def columns(
        self, prediction: Tensor, hr_prediction: Tensor | None, target: Tensor | None, answers: OutputMap
    ) -> BatchResult:
        """Return predictions on SR and HR, how sure and how right they are, and how far apart the scores."""
        import torch

        logits, hr_logits = prediction, hr_prediction
        present = None
        if answers.present is not None:
            present = torch.from_numpy(answers.present).to(logits.device)
            logits, hr_logits = logits[:, present], None if hr_logits is None else hr_logits[:, present]

        def named(index: Tensor) -> Tensor:
            return present[index] if present is not None else index

        columns: dict[str, Tensor] = {
            "pred": named(logits.argmax(1)),
            "confidence": metrics.confidence(logits),
        }
        if hr_logits is not None:
            columns["hr_pred"] = named(hr_logits.argmax(1))
            columns["logit_mse_to_hr"] = metrics.logit_mse(logits, hr_logits)
            columns["kl_to_hr"] = metrics.kl_to_hr(logits, hr_logits)
        probabilities = logits.softmax(1)
        kept = probabilities if logits.shape[1] <= MAX_SCORE_CLASSES else None
        sums: dict[str, Tensor] = {}
        if target is not None:
            columns["label"] = target
            if present is not None:
                target = torch.searchsorted(present, target)
            columns["cross_entropy"] = metrics.cross_entropy(logits, target)
            columns["top5_hit"] = metrics.topk_hit(logits, target)
            if kept is None:
                sums = _histograms(probabilities, target)
        return BatchResult(columns, kept, sums)

    def per_class(
        self, samples: pd.DataFrame, answers: OutputMap, classes: Sequence[str] | None
    ) -> tuple[ClassPart, ...] | None:
        """Return precision, recall and F1 of every class present, or None without labels."""
        if answers.outputs is None or classes is None:
            return None
        names = dict(zip(answers.outputs.tolist(), classes, strict=True))
        return tuple(
            ClassPart(
                index=int(row["class_index"]),
                name=names[int(row["class_index"])],
                support=int(row["support"]),
                precision=float(row["precision"]),
                recall=float(row["recall"]),
                f1=float(row["f1"]),
            )
            for row in _class_table(samples, answers).to_dict("records")
        )

    def histograms(self, sums: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
        """Return the pooled one-vs-rest score histograms of a classifier of many classes, or None for one of few."""
        if "score_positives" not in sums:
            return None
        return {
            "of": "softmax scores, one class against the rest, pooled over classes",
            "axis": f"log10(score), {HISTOGRAM_BINS} equal bins from -{HISTOGRAM_DECADES} to 0",
            "positives": sums["score_positives"].tolist(),
            "negatives": sums["score_negatives"].tolist(),
        }

    def contributions(self, cell: CellSamples, frame: pd.DataFrame) -> Mapping[str, Column]:
        """Return whether each sample is right, and what it adds to the AUC."""
        label, correct = cell.whole["label"], _correct(cell)
        areas = _auc_values(cell.record, frame, label)
        pred, hr_pred = cell.whole["pred"], cell.whole.get("hr_pred")
        added: dict[str, Column] = {} if correct is None else {"accuracy": correct.astype(np.float32)}
        if pred is not None and hr_pred is not None:
            added["agreement"] = (pred == hr_pred).astype(np.float32)
        return added if areas is None else {**added, "auc": areas}

    # --- ranking

    def value(self, info: MetricInfo, cell: CellSamples) -> Metric:
        """Return one metric of one cell; the AUC of many classes is that of histograms of the scores."""
        histograms = cell.record.score_histograms
        if info.name == "auc" and "auc" not in cell.floats and histograms is not None:
            return Metric(_area_of_histograms(histograms), cell.record.dataset.n)
        return super().value(info, cell)

    def why_missing(self, info: MetricInfo, cell: CellSamples) -> str:
        """Say why a metric is missing."""
        if cell.whole["label"] is None:
            return "the data has no labels"
        return "there are no scores of two classes or more" if info.name == "auc" else "does not apply here"

    def truth(self, cell: CellSamples) -> NDArray[np.integer] | None:
        """Return the labels."""
        return cell.whole["label"]

    def correct(self, cell: CellSamples) -> NDArray[np.bool_] | None:
        """Return whether each prediction is the label, or None without labels."""
        return _correct(cell)

    def compare(self, paired: PairedCells) -> Comparison:
        """Return differences to bilinear with McNemar's p, recovered gaps, and intervals of F1 with its tables."""
        comparison = Comparison.blank(len(paired.cells))
        for index in range(len(paired.cells)):
            if (index, "auc") in paired.resampled:
                put_interval(comparison.ci[index], "auc", paired.resampled[index, "auc"], LEVEL)
            if "auc" in comparison.ci[index]:  # its draws are to first order, which can lead beyond what an area can be
                low, high = comparison.ci[index]["auc"]
                comparison.ci[index]["auc"] = (min(low, 1.0), min(high, 1.0))
        baseline = paired.baseline_index
        if baseline is not None and (baseline, "accuracy") in paired.resampled:
            _differences(paired, baseline, comparison, of="accuracy")
            _differences(paired, baseline, comparison, of="accuracy_best")
        elif baseline is not None and paired.cells[baseline].whole["label"] is None:
            _same_decisions(paired, baseline, comparison)
        _decisions(paired, comparison)
        _gaps(paired, comparison, "recovered_gap", of="accuracy")
        _gaps(paired, comparison, "gap_over_free", of="accuracy_best")
        _f1(paired, comparison)
        if baseline is None:
            for index, values in enumerate(paired.values):
                if "accuracy" in values:
                    comparison.notes[index].update(
                        dict.fromkeys(("accuracy_delta", "f1_macro_delta"), f"there is no ok row {BASELINE!r}")
                    )
        return comparison


def ce(scores: Tensor, label: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of scores `(N, K)` with int64 labels `(N,)`, whose mass `smoothing` is spread over all classes."""
    import torch.nn.functional as F

    return F.cross_entropy(scores.float(), label, label_smoothing=smoothing)


# --- the pass and the record -------------------------------------------------------------------------------------


def _histograms(probabilities: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Count one-vs-rest scores, pooled over classes, in bins of log10(p), for ROC curves of many classes."""
    depth = probabilities.clamp_min(10.0**-HISTOGRAM_DECADES).log10().add(HISTOGRAM_DECADES)
    bins = depth.mul(HISTOGRAM_BINS / HISTOGRAM_DECADES).long().clamp_(0, HISTOGRAM_BINS - 1)
    positives, everything = (_counts(part) for part in (bins.gather(1, target[:, None]), bins))
    return {"score_positives": positives, "score_negatives": everything - positives}


def _counts(bins: Tensor) -> Tensor:
    """Count each bin, `(HISTOGRAM_BINS,)` int64; unlike bincount it does not wait for a GPU."""
    import torch

    ones = torch.ones(1, dtype=torch.int64, device=bins.device).expand(bins.numel())
    return torch.zeros(HISTOGRAM_BINS, dtype=torch.int64, device=bins.device).index_add_(0, bins.flatten(), ones)


def _area_of_histograms(histograms: Mapping[str, Any]) -> float:
    """Micro-average AUC from histograms of the scores, exact to about a bin."""
    positives, negatives = (np.array([0, *histograms[name][::-1]]).cumsum() for name in ("positives", "negatives"))
    return float(np.trapezoid(positives / positives[-1], negatives / negatives[-1]))


def _class_table(samples: pd.DataFrame, answers: OutputMap) -> pd.DataFrame:
    names = [str(index) for index in range(answers.n_outputs)]
    return metrics.per_class_table(
        samples["label"].to_numpy(dtype=np.int64), samples["pred"].to_numpy(dtype=np.int64), names
    )


# --- names of classes --------------------------------------------------------------------------------------------


def class_names(records: Iterable[Record]) -> dict[int, str]:
    """Return the names of a classifier's outputs by index, as far as these records of one task tell them.

    A record names the classes that have samples. Where its data has as many classes as the classifier has outputs, and
    those stand in the same order, it names the other ones too.
    """
    names: dict[int, str] = {}
    lists: dict[tuple[str, ...], None] = {}
    for record in records:
        names.update((part.index, part.name) for part in record.per_class or () if part.index not in names)
        listed, classifier = record.dataset.classes, record.classifier
        if listed is not None and classifier is not None and len(listed) == classifier.n_classes:
            lists[listed] = None
    for listed in lists:
        if names and all(index < len(listed) and listed[index] == name for index, name in names.items()):
            return dict(enumerate(listed)) | names
    return names


def class_name(index: int, names: Mapping[int, str]) -> str:
    """Return the name of one of a classifier's outputs, "class 7" where nothing tells it."""
    return names.get(index, f"class {index}")


# --- the leaderboard ---------------------------------------------------------------------------------------------


def _correct(cell: CellSamples) -> NDArray[np.bool_] | None:
    label, pred = cell.whole["label"], cell.whole["pred"]
    return None if label is None or pred is None else label == pred


def _auc_values(record: Record, frame: pd.DataFrame, label: NDArray[np.integer] | None) -> Floats | None:
    """Contributions of the samples to the micro-average AUC, or None where there are no scores."""
    names = score_columns(frame.columns)
    if len(names) < 2 or label is None or not len(label):
        return None
    # where only the data's classes compete, the scores are theirs alone
    if record.protocol.fields.get("score", {}).get("logits") == "present":
        present = np.unique(label)
        if len(present) != len(names):
            return None
        label = np.searchsorted(present, label)
    scores = frame[names].to_numpy(dtype=np.float32)
    fitting = label.max() < len(names) and np.isfinite(scores).all()
    return metrics.auc_micro_values(scores, label) if fitting else None


def _differences(paired: PairedCells, baseline: int, comparison: Comparison, *, of: str) -> None:
    """Fill in the differences of an accuracy to bilinear's, with their intervals."""
    base = paired.values[baseline].get(of)
    for index, values in enumerate(paired.values):
        if of not in values or base is None:
            continue
        comparison.values[index][f"{of}_delta"] = values[of] - base
        delta = paired.resampled[index, of] - paired.resampled[baseline, of]
        comparison.put_draws(index, f"{of}_delta", delta, shown=index != baseline)


def _decisions(paired: PairedCells, comparison: Comparison) -> None:
    """Test the decisions of each row against bilinear's, and count where only one is right, also against the original.

    What is counted are the decisions that rank the rows: with several input sizes, each row's at its best one.
    """
    own, best = ([right(cell) for cell in paired.cells] for right in (_correct, _correct_at_best))
    for end, reference in (("", paired.baseline_index), ("_original", paired.oracle_index)):
        for index, cell in enumerate(paired.cells):
            if reference is None or index == reference:
                continue
            for rights, name in ((own, "p_holm"), (best, "p_best_holm")):
                ours, theirs = rights[index], rights[reference]
                if ours is None or theirs is None:
                    continue
                comparison.values[index][f"fixed{end}"] = int((ours & ~theirs).sum())
                comparison.values[index][f"broken{end}"] = int((theirs & ~ours).sum())
                if cell.competes and reference == paired.baseline_index:
                    comparison.p_values[index][name] = mcnemar_exact(ours, theirs)


def _correct_at_best(cell: CellSamples) -> NDArray[np.bool_] | None:
    right = cell.floats.get("accuracy_best")
    return None if right is None else right > 0.5


def _same_decisions(paired: PairedCells, baseline: int, comparison: Comparison) -> None:
    """Fill in which share of the decisions is bilinear's: without labels nothing tells which of two is right."""
    base = paired.cells[baseline].whole["pred"]
    for index, cell in enumerate(paired.cells):
        own = cell.whole["pred"]
        if base is None or own is None:
            continue
        same = (own == base).astype(np.float64)
        comparison.values[index]["same_as_bilinear"] = float(same.mean())
        if index != baseline:
            drawn = bootstrap_means(same[:, None], draws=paired.draws, seed=paired.seed)
            put_interval(comparison.ci[index], "same_as_bilinear", drawn[:, 0], LEVEL)


def _gaps(paired: PairedCells, comparison: Comparison, name: str, *, of: str) -> None:
    """Fill in how far each row has come from bilinear's accuracy to the original's, or why there is no such share.

    Args:
        paired: The cells.
        comparison: What is filled in.
        name: Name of the share.
        of: Name of the accuracy.
    """
    oracle, baseline = paired.oracle_index, paired.baseline_index
    for index, values in enumerate(paired.values):
        if of not in values:
            continue
        if paired.cells[index].record.is_small:
            continue  # there is no original, and never was; one note of the data says so
        if oracle is None or baseline is None:
            comparison.notes[index][name] = (
                f"it needs ok rows {ORACLE!r} and {BASELINE!r} of the same task and classifier"
            )
            continue
        best, base = paired.values[oracle].get(of), paired.values[baseline].get(of)
        if best is None or base is None:
            continue
        gap = gap_interval(
            values[of],
            base,
            best,
            draws=paired.resampled[index, of],
            draws_bilinear=paired.resampled[baseline, of],
            draws_hr=paired.resampled[oracle, of],
            level=LEVEL,
        )
        comparison.put_gap(index, name, gap, shown=index not in (oracle, baseline))


def _f1(paired: PairedCells, comparison: Comparison) -> None:
    """Fill in the interval of macro F1, its difference, and the per-class tables."""
    labelled = [index for index, cell in enumerate(paired.cells) if _correct(cell) is not None]
    if not labelled:
        return
    labels = paired.cells[labelled[0]].whole["label"]
    assert labels is not None
    predictions = np.column_stack(
        [pred for index in labelled if (pred := paired.cells[index].whole["pred"]) is not None]
    )
    column_of = {index: column for column, index in enumerate(labelled)}
    against = {
        name: column_of[index]
        for name, index in ((ORACLE, paired.oracle_index), (BASELINE, paired.baseline_index))
        if index is not None and index in column_of
    }
    drawn = bootstrap_f1(
        labels,
        predictions,
        references=sorted(set(against.values())),
        draws=paired.draws,
        seed=paired.seed,
        level=LEVEL,
    )
    known = class_names(cell.record for cell in paired.cells)
    names = [class_name(index, known) for index in range(int(labels.max()) + 1)]
    tables = [metrics.per_class_table(labels, predictions[:, column], names) for column in range(len(labelled))]
    base = against.get(BASELINE)
    for column, index in enumerate(labelled):
        comparison.put_draws(index, "f1_macro", drawn.macro[:, column])
        if base is None:
            continue
        macro = paired.values[index]["f1_macro"]
        comparison.values[index]["f1_macro_delta"] = macro - paired.values[labelled[base]]["f1_macro"]
        delta = drawn.macro[:, column] - drawn.macro[:, base]
        comparison.put_draws(index, "f1_macro_delta", delta, shown=column != base)
    comparison.tables.extend(
        _class_rows(
            paired.cells[index].record, tables[column], column, tables, against, drawn.delta_low, drawn.delta_high
        )
        for column, index in enumerate(labelled)
    )


def _class_rows(
    record: Record,
    table: pd.DataFrame,
    column: int,
    tables: Sequence[pd.DataFrame],
    against: Mapping[str, int],
    low: Mapping[int, Floats],
    high: Mapping[int, Floats],
) -> pd.DataFrame:
    """One method's per-class table with its differences to original and bilinear."""
    cell = record.cell
    table = table.assign(
        task=cell.task, classifier=cell.classifier, track=cell.track, method=cell.name, weights=cell.weights
    )
    for name in (ORACLE, BASELINE):
        other = against.get(name)
        table[f"f1_delta_to_{name}"] = math.nan if other is None else table["f1"] - tables[other]["f1"]
        table[f"f1_delta_to_{name}_low"] = math.nan if other is None else low[other][column]
        table[f"f1_delta_to_{name}_high"] = math.nan if other is None else high[other][column]
    return table[list(PER_CLASS_COLUMNS)]
