"""Classification: which class is it? The kind of task of every dataset that does not say otherwise.

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
from srbench.metrics.stats import LEVEL, bootstrap_f1, gap_interval, holm, mcnemar_exact
from srbench.records.samples import score_columns
from srbench.records.schema import BASELINE, MAX_SCORE_CLASSES, ORACLE, ClassPart, Metric, Record
from srbench.task_types import (
    BatchResult,
    CellSamples,
    Column,
    Comparison,
    Floats,
    OutputMap,
    PairedCells,
    TaskType,
    mean_metric,
    mean_of,
    put_interval,
    stored_column,
)

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.data.source import Sample, Source
    from srbench.networks.classifiers import ClassifierInfo

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
_FLOATS = ("confidence", "top5_hit", "cross_entropy", "mse", "psnr", "ssim", "logit_mse_to_hr", "kl_to_hr")
_NEED_LABELS = ("accuracy", "top5", "cross_entropy", "ece", "f1_macro", "auc")


class Classification(TaskType):
    """A class of each image, by the largest of the scores."""

    name = "classification"
    question = "which class is it?"
    loss_term = "ce"
    criterion = "accuracy"
    sample_columns = ("label", "pred", "hr_pred", *_FLOATS)
    reads_scores = True
    resampled = ("accuracy", "cross_entropy", "ssim", "auc", "psnr")
    compared = ("label", "pred")
    ranks = ("accuracy", "agreement")
    noted = ("accuracy", "top5", "auc", "cross_entropy", "ssim", "agreement", "ece")
    shown: ClassVar[tuple[str, ...]] = (
        *("rank", "method", "cross_entropy", "psnr", "accuracy", "total_time_s", "psnr_ci", "accuracy_ci"),
        *("accuracy_delta", "p_holm", "ssim", "top5", "auc", "auc_ci", "agreement", "recovered_gap", "f1_macro"),
        *("f1_macro_delta", "latency_ms", "images_per_s", "parameters", "macs", "peak_memory_mb", "ece"),
        *("logit_mse_to_hr", "kl_to_hr"),
    )
    essential = ("cross_entropy", "psnr", "accuracy", "total_time_s")

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

    def answers(self, info: ClassifierInfo, source: Source, *, present: bool = False) -> OutputMap:
        """Find the output of each class of the data, by its name."""
        if source.classes is None:
            return OutputMap(info.n_classes)
        from srbench.networks.classifiers import label_map

        outputs = label_map(info, source.classes)
        return OutputMap(info.n_classes, outputs, np.unique(outputs) if present else None)

    def targets(self, samples: Sequence[Sample], answers: OutputMap) -> NDArray[np.int64] | None:
        """Return the output that is right for each sample, `(N,)` int64, or None without labels."""
        labels = [sample.label for sample in samples]
        if answers.outputs is None or None in labels or not labels:
            return None
        return answers.outputs[np.array(labels, dtype=np.int64)]

    # --- training

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

    # --- the pass and the record

    def columns(self, scores: Tensor, hr_scores: Tensor, target: Tensor | None, answers: OutputMap) -> BatchResult:
        """Return predictions on SR and HR, how sure and how right they are, and how far apart the scores."""
        import torch

        logits, hr_logits = scores, hr_scores
        present = None
        if answers.present is not None:
            present = torch.from_numpy(answers.present).to(logits.device)
            logits, hr_logits = logits[:, present], hr_logits[:, present]

        def named(index: Tensor) -> Tensor:
            return present[index] if present is not None else index

        columns: dict[str, Tensor] = {
            "pred": named(logits.argmax(1)),
            "hr_pred": named(hr_logits.argmax(1)),
            "confidence": metrics.confidence(logits),
            "logit_mse_to_hr": metrics.logit_mse(logits, hr_logits),
            "kl_to_hr": metrics.kl_to_hr(logits, hr_logits),
        }
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

    def metrics(
        self, samples: pd.DataFrame, answers: OutputMap, *, histograms: Mapping[str, Any] | None = None
    ) -> dict[str, Metric]:
        """Return agreement with HR, and with labels accuracy, top-5, cross-entropy, ECE, F1 and AUC."""
        n = len(samples)
        no_labels = None if samples["label"].notna().all() else "the data has no labels"
        pred = samples["pred"].to_numpy(dtype=np.int64)
        result = {
            "agreement": Metric(float((pred == samples["hr_pred"].to_numpy(dtype=np.int64)).mean()), n),
            "logit_mse_to_hr": mean_metric(samples, "logit_mse_to_hr", None),
            "kl_to_hr": mean_metric(samples, "kl_to_hr", None),
        }
        if no_labels:
            return result | {name: Metric(None, 0, reason=no_labels) for name in _NEED_LABELS}
        correct = pred == samples["label"].to_numpy(dtype=np.int64)
        confidence = samples["confidence"].to_numpy(dtype=np.float64)
        return result | {
            "accuracy": Metric(float(correct.mean()), n),
            "top5": Metric(float(samples["top5_hit"].to_numpy(dtype=bool).mean()), n),
            "cross_entropy": mean_metric(samples, "cross_entropy", None),
            "ece": Metric(metrics.expected_calibration_error(confidence, correct), n),
            "f1_macro": Metric(metrics.f1_macro(_class_table(samples, answers)), n),
            "auc": _auc_metric(samples, answers, histograms),
        }

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

    # --- the leaderboard

    def pooled(self, record: Record, frame: pd.DataFrame, *, competes: bool) -> CellSamples:
        """Take the samples of a cell as arrays, with their contributions to the AUC."""
        whole = {
            name: None if frame[name].isna().any() else frame[name].to_numpy(dtype=np.int32)
            for name in ("label", "pred", "hr_pred")
        }
        floats: dict[str, Column] = {name: stored_column(frame, name) for name in _FLOATS}
        label, pred = whole["label"], whole["pred"]
        if label is not None and pred is not None:
            floats["accuracy"] = (label == pred).astype(np.float32)
        contributions = _auc_values(record, frame, label)
        if contributions is not None:
            floats["auc"] = contributions
        return CellSamples(record, floats, whole, competes)

    def truth(self, cell: CellSamples) -> NDArray[np.integer] | None:
        """Return the labels."""
        return cell.whole["label"]

    def point(self, cell: CellSamples) -> dict[str, float | None]:
        """Return accuracy, ECE, AUC, agreement, and the means of what the samples have."""
        values: dict[str, float | None] = dict.fromkeys(("accuracy", "ece", "auc", "agreement"))
        correct = _correct(cell)
        if correct is not None:
            values["accuracy"] = float(correct.mean())
            if not np.isnan(cell.floats["confidence"]).any():
                values["ece"] = metrics.expected_calibration_error(cell.floats["confidence"], correct)
            values["auc"] = _auc(cell)
        pred, hr_pred = cell.whole["pred"], cell.whole["hr_pred"]
        if pred is not None and hr_pred is not None:
            values["agreement"] = float((pred == hr_pred).mean())
        values["top5"] = mean_of(cell.floats["top5_hit"])
        for name in ("cross_entropy", "logit_mse_to_hr", "kl_to_hr"):
            values[name] = mean_of(cell.floats[name])
        return values

    def compare(self, pool: PairedCells) -> Comparison:
        """Return intervals, differences to bilinear with McNemar's p, recovered gaps, and F1 with its tables."""
        found = Comparison.blank(len(pool.cells))
        for at in range(len(pool.cells)):
            if (at, "auc") in pool.resampled:
                put_interval(found.ci[at], "auc", pool.resampled[at, "auc"], LEVEL)
            if "auc" in found.ci[at]:  # its draws are to first order, which can lead beyond what an area can be
                low, high = found.ci[at]["auc"]
                found.ci[at]["auc"] = (min(low, 1.0), min(high, 1.0))
        if pool.reference is not None and (pool.reference, "accuracy") in pool.resampled:
            _differences(pool, pool.reference, found)
        _gaps(pool, found)
        _f1(pool, found)
        if pool.reference is None:
            for at, point in enumerate(pool.points):
                if point["accuracy"] is not None:
                    found.notes[at].update(
                        dict.fromkeys(("accuracy_delta", "f1_macro_delta"), f"there is no ok row {BASELINE!r}")
                    )
        return found


def ce(scores: Tensor, label: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of scores `(N, K)` with int64 labels `(N,)`, whose mass `smoothing` is spread over all classes."""
    import torch.nn.functional as F

    return F.cross_entropy(scores.float(), label, label_smoothing=smoothing)


# --- the pass and the record -------------------------------------------------------------------------------------


def _histograms(probabilities: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Count one-vs-rest scores, pooled over classes, in bins of log10(p), for ROC curves of many classes."""
    depth = probabilities.clamp_min(10.0**-HISTOGRAM_DECADES).log10().add(HISTOGRAM_DECADES)
    bins = depth.mul(HISTOGRAM_BINS / HISTOGRAM_DECADES).long().clamp_(0, HISTOGRAM_BINS - 1)
    positives, everything = (_counts(found) for found in (bins.gather(1, target[:, None]), bins))
    return {"score_positives": positives, "score_negatives": everything - positives}


def _counts(bins: Tensor) -> Tensor:
    """Count each bin, `(HISTOGRAM_BINS,)` int64; unlike bincount it does not wait for a GPU."""
    import torch

    ones = torch.ones(1, dtype=torch.int64, device=bins.device).expand(bins.numel())
    return torch.zeros(HISTOGRAM_BINS, dtype=torch.int64, device=bins.device).index_add_(0, bins.flatten(), ones)


def _auc_metric(samples: pd.DataFrame, answers: OutputMap, histograms: Mapping[str, Any] | None) -> Metric:
    """Return the micro-average AUC from the scores, or from their histograms, exact to about a bin."""
    names = score_columns(samples.columns)
    if len(names) >= 2:
        label = samples["label"].to_numpy(dtype=np.int64)
        places = label if answers.present is None else np.searchsorted(answers.present, label)
        return Metric(metrics.roc_auc_micro(samples[names].to_numpy(dtype=np.float32), places), len(samples))
    if histograms is None:
        return Metric(None, 0, reason="a single class competes")
    positives, negatives = (np.array([0, *histograms[name][::-1]]).cumsum() for name in ("positives", "negatives"))
    area = np.trapezoid(positives / positives[-1], negatives / negatives[-1])
    return Metric(float(area), len(samples))


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


def _auc(cell: CellSamples) -> float | None:
    """Micro-average AUC; of a classifier of many classes it is the record's, from histograms of the scores."""
    if "auc" in cell.floats:
        return mean_of(cell.floats["auc"])
    metric = cell.record.metrics.get("auc")
    return None if metric is None else metric.value


def _differences(pool: PairedCells, reference: int, found: Comparison) -> None:
    """Fill in the differences of the accuracy to bilinear's, with interval and p."""
    base = pool.points[reference]["accuracy"]
    for at, point in enumerate(pool.points):
        if point["accuracy"] is None or base is None:
            continue
        found.values[at]["accuracy_delta"] = point["accuracy"] - base
        if at != reference:
            delta = pool.resampled[at, "accuracy"] - pool.resampled[reference, "accuracy"]
            put_interval(found.ci[at], "accuracy_delta", delta, LEVEL)
    for at, p in _p_values(pool, reference).items():
        found.values[at]["p_holm"] = p


def _p_values(pool: PairedCells, reference: int) -> dict[int, float | None]:
    """Holm-corrected McNemar p against bilinear; one family a track."""
    base = _correct(pool.cells[reference])
    result: dict[int, float | None] = {}
    for track in ("frozen", "adapted"):
        family = [
            at
            for at, cell in enumerate(pool.cells)
            if cell.record.cell.track == track and at != reference and cell.competes
        ]
        raw = []
        for at in family:
            own = _correct(pool.cells[at])
            raw.append(None if own is None or base is None else mcnemar_exact(own, base))
        result.update(zip(family, holm(raw), strict=True))
    return result


def _gaps(pool: PairedCells, found: Comparison) -> None:
    """Fill in the recovered gap of every row, or why there is none."""
    for at, point in enumerate(pool.points):
        accuracy = point["accuracy"]
        if accuracy is None:
            continue
        if pool.oracle is None or pool.reference is None:
            found.notes[at]["recovered_gap"] = (
                f"it needs ok rows {ORACLE!r} and {BASELINE!r} of the same task and classifier"
            )
            continue
        best, base = pool.points[pool.oracle]["accuracy"], pool.points[pool.reference]["accuracy"]
        if best is None or base is None:
            continue
        gap = gap_interval(
            accuracy,
            base,
            best,
            draws=pool.resampled[at, "accuracy"],
            draws_bilinear=pool.resampled[pool.reference, "accuracy"],
            draws_hr=pool.resampled[pool.oracle, "accuracy"],
            level=LEVEL,
        )
        found.values[at]["recovered_gap"] = gap.value
        if gap.reason is not None:
            found.notes[at]["recovered_gap"] = gap.reason
        elif at not in (pool.oracle, pool.reference) and gap.low is not None and gap.high is not None:
            found.ci[at]["recovered_gap"] = (gap.low, gap.high)


def _f1(pool: PairedCells, found: Comparison) -> None:
    """Fill in macro F1 and its difference, and the per-class tables."""
    scored = [at for at, cell in enumerate(pool.cells) if _correct(cell) is not None]
    if not scored:
        return
    labels = pool.cells[scored[0]].whole["label"]
    assert labels is not None
    predictions = np.column_stack([pred for at in scored if (pred := pool.cells[at].whole["pred"]) is not None])
    place = {at: column for column, at in enumerate(scored)}
    against = {
        name: place[at]
        for name, at in ((ORACLE, pool.oracle), (BASELINE, pool.reference))
        if at is not None and at in place
    }
    drawn = bootstrap_f1(
        labels, predictions, references=sorted(set(against.values())), draws=pool.draws, seed=pool.seed, level=LEVEL
    )
    known = class_names(cell.record for cell in pool.cells)
    spelled = [class_name(index, known) for index in range(int(labels.max()) + 1)]
    tables = [metrics.per_class_table(labels, predictions[:, column], spelled) for column in range(len(scored))]
    for column, at in enumerate(scored):
        found.values[at]["f1_macro"] = metrics.f1_macro(tables[column])
        put_interval(found.ci[at], "f1_macro", drawn.macro[:, column], LEVEL)
        base = against.get(BASELINE)
        if base is not None:
            found.values[at]["f1_macro_delta"] = metrics.f1_macro(tables[column]) - metrics.f1_macro(tables[base])
            if column != base:
                delta = drawn.macro[:, column] - drawn.macro[:, base]
                put_interval(found.ci[at], "f1_macro_delta", delta, LEVEL)
    found.tables.extend(
        _class_rows(pool.cells[at].record, tables[column], column, tables, against, drawn.delta_low, drawn.delta_high)
        for column, at in enumerate(scored)
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
        task=cell.task, classifier=cell.classifier, track=cell.track, method=cell.method, weights=cell.weights
    )
    for name in (ORACLE, BASELINE):
        other = against.get(name)
        table[f"f1_delta_to_{name}"] = math.nan if other is None else table["f1"] - tables[other]["f1"]
        table[f"f1_delta_to_{name}_low"] = math.nan if other is None else low[other][column]
        table[f"f1_delta_to_{name}_high"] = math.nan if other is None else high[other][column]
    return table[list(PER_CLASS_COLUMNS)]
