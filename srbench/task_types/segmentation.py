"""Segmentation: which class is each pixel of? Counts of taken-for classes for each image, mIoU from their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.metrics import dense
from srbench.metrics.info import MetricInfo, SampleColumn
from srbench.metrics.stats import LEVEL, IouBootstrap, bootstrap_iou, gap_interval, interval
from srbench.metrics.values import Columns
from srbench.records.schema import BASELINE, ORACLE, ClassPart
from srbench.task_types.base import BatchResult, OutputMap, TaskType
from srbench.task_types.overlays import tinted
from srbench.task_types.paired import CellSamples, Comparison, PairedCells

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.data.source import Sample, Source

_NAME = ("segmentation",)
_CONFUSION = SampleColumn("confusion", "int32[]")
_UNLABELLED = 255  # of a mask
IOU_HITS, IOU_UNION = "iou_hits.", "iou_union."  # figures of a validation, each followed by the number of the class


def _counts(columns: Columns) -> NDArray[np.float64] | None:
    """Return the class counts `(3, n, K)` of a cell, or None without masks."""
    rows = columns.get("confusion")
    return None if rows is None or not len(rows) else dense.class_counts(np.stack(list(rows)))


def _mean_iou(columns: Columns) -> float | None:
    counts = _counts(columns)
    return None if counts is None else float(dense.mean_iou(counts.sum(axis=1)))


def _pixel_accuracy(columns: Columns) -> float | None:
    counts = _counts(columns)
    return None if counts is None else float(dense.pixel_accuracy(counts.sum(axis=1)))


class Segmentation(TaskType):
    """A class of each pixel, by the largest of its scores."""

    name = "segmentation"
    question = "which class is each pixel of?"
    answers = "map"
    loss_term = "ce"
    criterion = "miou"
    metrics = (
        MetricInfo(
            "miou",
            "mIoU",
            "mean IoU",
            True,
            "network",
            _NAME,
            (_CONFUSION,),
            share=True,
            value=_mean_iou,
            priority=1,
            interval="iou",
            interval_shown="beside",
            interval_priority=2,
            test="intervals",
            headline=True,
            absence="elsewhere",
        ),
        MetricInfo(
            "miou_delta",
            "mIoU against\nbilinear",
            "mean IoU against bilinear",
            True,
            "network",
            _NAME,
            (_CONFUSION,),
            share=True,
            style="signed",
            digits=3,
            priority=3,
            interval="difference",
            interval_shown="within",
            test="intervals",
            tested_as="miou",
            compared=True,
        ),
        MetricInfo(
            "pixel_accuracy",
            "pixel\naccuracy",
            "pixel accuracy",
            True,
            "network",
            _NAME,
            (_CONFUSION,),
            share=True,
            value=_pixel_accuracy,
            priority=9,
            interval="iou",
            test="intervals",
        ),
        MetricInfo(
            "map_agreement",
            "pixels as\non HR",
            "share of pixels whose class is that on HR",
            True,
            "network",
            _NAME,
            (SampleColumn("map_agreement"),),
            share=True,
            priority=12,
            interval="mean",
            test="paired",
            absence="elsewhere",
        ),
    )
    compared = ("confusion",)
    ranks = ("miou", "map_agreement")
    shown: ClassVar[tuple[str, ...]] = (
        *("rank", "method", "miou", "miou_ci", "miou_delta", "recovered_gap", "latency_ms", "rank_ci"),
        *("pixel_accuracy", "psnr", "psnr_ci", "total_time_s", "ssim", "map_agreement", "best_delta"),
        *("latency_p10_ms", "seed_sd", "images_per_s", "parameters", "macs", "total_macs", "peak_memory_mb"),
    )
    draws = True
    essential = ("miou", "pixel_accuracy", "psnr", "total_time_s")

    # --- targets

    def classes_of(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Name the classes, which all sources must have in one order."""
        lists = {source.classes for source in sources}
        if len(lists) > 1 or None in lists:
            raise UsageError(
                f"masks hold indices, so all data of a run need the same classes in one order; got"
                f" {' and '.join(source.spec for source in sources)}, whose classes differ"
            )
        return next(iter(lists)) or ()

    def targets(
        self, samples: Sequence[Sample], answers: OutputMap, placed: Sequence[NDArray[Any]] | None = None
    ) -> NDArray[np.int16] | None:
        """Return the output that is right for each pixel, `(N, H, W)` int16, -1 where none is; None without masks."""
        if placed is None or answers.outputs is None:
            return None
        lookup = np.full(_UNLABELLED + 1, dense.IGNORED, dtype=np.int16)
        lookup[: len(answers.outputs)] = answers.outputs
        return lookup[np.stack(list(placed))]

    # --- learning

    def loss(self, scores: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy of scores `(N, K, H, W)` over the labelled pixels of masks `(N, H, W)`."""
        import torch.nn.functional as F

        each = F.cross_entropy(
            scores.float(), target.long(), ignore_index=dense.IGNORED, label_smoothing=smoothing, reduction="sum"
        )
        return each / (target != dense.IGNORED).sum().clamp_min(1)  # a crop may hold no labelled pixel

    def figures(self, scores: Tensor, target: Tensor, answers: OutputMap) -> dict[str, Tensor]:
        """Return cross-entropy, pixel accuracy, and what mIoU is made of: hits and union of each class; each `(N,)`."""
        import torch.nn.functional as F

        labelled = (target != dense.IGNORED).flatten(1).sum(dim=1).clamp_min(1)
        each = F.cross_entropy(scores.float(), target.long(), ignore_index=dense.IGNORED, reduction="none")
        confusion = dense.confusion_counts(scores.argmax(dim=1), target, answers.n_outputs)
        square = confusion.view(len(confusion), answers.n_outputs, answers.n_outputs).double()
        hits = square.diagonal(dim1=1, dim2=2)
        union = square.sum(dim=1) + square.sum(dim=2) - hits
        parts = {f"{IOU_HITS}{k}": hits[:, k] for k in range(answers.n_outputs)}
        parts |= {f"{IOU_UNION}{k}": union[:, k] for k in range(answers.n_outputs)}
        accuracy = hits.sum(dim=1) / labelled
        return {"ce": each.flatten(1).sum(dim=1) / labelled, "pixel_accuracy": accuracy, **parts}

    # --- scoring

    def prediction(self, output: Tensor, *, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Return the class of each pixel of HR, `(N, H, W)`, uint8, or int16 for more than 256 classes.

        Where the network saw other images than of HR size, its scores are resized bilinearly first.
        """
        import torch

        if tuple(output.shape[-2:]) != size:
            output = torch.nn.functional.interpolate(output.float(), size=size, mode="bilinear", align_corners=False)
        return output.argmax(dim=1).to(torch.uint8 if output.shape[1] <= 256 else torch.int16)

    def split(self, prediction: Tensor) -> list[Mapping[str, Tensor]]:
        """Return the map of each image."""
        return [{"map": each} for each in prediction]

    def join(self, parts: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Return the maps of images of one size as one tensor."""
        import torch

        return torch.stack([part["map"] for part in parts])

    def columns(
        self, prediction: Tensor, hr_prediction: Tensor | None, target: Tensor | None, answers: OutputMap
    ) -> BatchResult:
        """Return which classes were taken for which, and the share of the pixels whose class is that on HR."""
        columns: dict[str, Tensor] = {}
        if hr_prediction is not None:
            columns["map_agreement"] = (prediction == hr_prediction).flatten(1).float().mean(dim=1)
        if target is not None:
            columns["confusion"] = dense.confusion_counts(prediction, target, answers.n_outputs)
        return BatchResult(columns)

    def overlay(self, image: NDArray[np.uint8], found: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """Return the image in the colours of the classes."""
        return tinted(image, found["map"].astype(np.int64))

    def truth_overlay(
        self, image: NDArray[np.uint8], placed: NDArray[Any], answers: OutputMap
    ) -> NDArray[np.uint8] | None:
        """Return the image in the colours of the classes of its mask; pixels without one stay grey."""
        target = self.targets((), answers, [placed])
        return None if target is None else tinted(image, target[0].astype(np.int64))

    def per_class(
        self, samples: pd.DataFrame, answers: OutputMap, classes: Sequence[str] | None
    ) -> tuple[ClassPart, ...] | None:
        """Return precision, recall, F1 and IoU of the pixels of every class that the masks have, or None without."""
        if answers.outputs is None or classes is None or "confusion" not in samples:
            return None
        counts = dense.class_counts(np.stack(list(samples["confusion"]))).sum(axis=1)
        hits, labelled, predicted = counts
        names = dict(zip(answers.outputs.tolist(), classes, strict=True))
        return tuple(
            ClassPart(
                index=index,
                name=names[index],
                support=int(labelled[index]),
                precision=float(hits[index] / predicted[index]) if predicted[index] else 0.0,
                recall=float(hits[index] / labelled[index]),
                f1=float(dense.dice(counts)[index]),
                iou=float(dense.iou(counts)[index]),
            )
            for index in np.flatnonzero(labelled).tolist()
        )

    # --- ranking

    def truth(self, cell: CellSamples) -> NDArray[Any] | None:
        """Return the labelled pixels of each image and class."""
        counts = _counts(cell.columns)
        return None if counts is None else counts[1]

    def compare(self, paired: PairedCells) -> Comparison:
        """Return intervals of mIoU and pixel accuracy, differences to bilinear, recovered gaps, and IoU by class."""
        comparison = Comparison.blank(len(paired.cells))
        every = {index: _counts(cell.columns) for index, cell in enumerate(paired.cells)}
        counts = {index: each for index, each in every.items() if each is not None}
        if not counts:
            return comparison
        drawn = bootstrap_iou(np.stack(list(counts.values())), draws=paired.draws, seed=paired.seed)
        column_of = {index: column for column, index in enumerate(counts)}
        for index, column in column_of.items():
            comparison.put_draws(index, "miou", drawn.mean[:, column])
            comparison.put_draws(index, "pixel_accuracy", drawn.accuracy[:, column])
        _differences(paired, comparison, drawn, column_of)
        _gaps(paired, comparison, drawn, column_of)
        summed = np.stack([each.sum(axis=1) for each in counts.values()])
        for index in column_of:
            comparison.tables.append(_class_rows(paired, index, summed, drawn, column_of))
        return comparison


def mean_iou_of(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of a validation with `miou` in the place of hits and unions, under each of their suffixes.

    The figures are means over the same images, so that their ratio is that of the sums.
    """
    done: dict[str, float] = {}
    parts: dict[str, list[float]] = {}
    for name, value in figures.items():
        if name.startswith(IOU_UNION):
            continue
        if not name.startswith(IOU_HITS):
            done[name] = value
            continue
        rest = name.removeprefix(IOU_HITS)
        suffix = rest.lstrip("0123456789")
        union = figures[f"{IOU_UNION}{rest}"]
        of_suffix = parts.setdefault(suffix, [])
        of_suffix += [value / union] if union > 0 else []
    return done | {f"miou{suffix}": sum(each) / len(each) for suffix, each in parts.items() if each}


def _differences(
    paired: PairedCells, comparison: Comparison, drawn: IouBootstrap, column_of: Mapping[int, int]
) -> None:
    """Fill in the difference of mIoU to bilinear's, by the same draws."""
    baseline = paired.baseline_index
    for index, column in column_of.items():
        if baseline is None or baseline not in column_of:
            comparison.notes[index]["miou_delta"] = f"there is no ok row {BASELINE!r}"
            continue
        comparison.values[index]["miou_delta"] = paired.values[index]["miou"] - paired.values[baseline]["miou"]
        delta = drawn.mean[:, column] - drawn.mean[:, column_of[baseline]]
        comparison.put_draws(index, "miou_delta", delta, shown=index != baseline)


def _gaps(paired: PairedCells, comparison: Comparison, drawn: IouBootstrap, column_of: Mapping[int, int]) -> None:
    """Fill in how far each row has come from bilinear's mIoU to the original's, or why there is no such share."""
    oracle, baseline = paired.oracle_index, paired.baseline_index
    for index, column in column_of.items():
        if oracle is None or baseline is None or not {oracle, baseline} <= set(column_of):
            comparison.notes[index]["recovered_gap"] = (
                f"it needs ok rows {ORACLE!r} and {BASELINE!r} of the same task and network"
            )
            continue
        gap = gap_interval(
            paired.values[index]["miou"],
            paired.values[baseline]["miou"],
            paired.values[oracle]["miou"],
            draws=drawn.mean[:, column],
            draws_bilinear=drawn.mean[:, column_of[baseline]],
            draws_hr=drawn.mean[:, column_of[oracle]],
            level=LEVEL,
        )
        comparison.put_gap(index, "recovered_gap", gap, shown=index not in (oracle, baseline))


def _class_rows(
    paired: PairedCells,
    index: int,
    summed: NDArray[np.float64],
    drawn: IouBootstrap,
    column_of: Mapping[int, int],
) -> pd.DataFrame:
    """Return one row's table of classes with its differences to original and bilinear; F1 is that of pixels (Dice).

    Args:
        paired: The cells.
        index: The cell.
        summed: `(m, 3, K)` counts of the cells that have masks.
        drawn: Their draws.
        column_of: Place of each cell among them.
    """
    record, column = paired.cells[index].record, column_of[index]
    hits, labelled, predicted = summed[column]
    present = np.flatnonzero(labelled)
    names = {part.index: part.name for part in record.per_class or ()}
    f1, ious = dense.dice(summed.transpose(1, 0, 2)), dense.iou(summed.transpose(1, 0, 2))
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    table = pd.DataFrame(
        {
            "task": record.cell.task,
            "classifier": record.cell.classifier,
            "track": record.cell.track,
            "method": record.cell.method,
            "weights": record.cell.weights,
            "class": [names.get(at, f"class {at}") for at in present.tolist()],
            "class_index": present,
            "support": labelled[present].astype(np.int64),
            "precision": precision[present],
            "recall": hits[present] / labelled[present],
            "f1": f1[column, present],
            "iou": ious[column, present],
        }
    )
    table["iou_low"], table["iou_high"] = _ends(drawn.iou[:, column, present])
    for name, other in ((ORACLE, paired.oracle_index), (BASELINE, paired.baseline_index)):
        known = other is not None and other in column_of
        against = column_of[other] if other is not None and known else column
        for figure, values, draws in (("f1", f1, drawn.dice), ("iou", ious, drawn.iou)):
            low, high = _ends(draws[:, column, present] - draws[:, against, present])
            delta = values[column, present] - values[against, present]
            for end, each in (("", delta), ("_low", low), ("_high", high)):
                table[f"{figure}_delta_to_{name}{end}"] = each if known else np.nan
    return table


def _ends(draws: NDArray[np.floating]) -> tuple[list[float], list[float]]:
    """Return the ends of the interval of each column of draws `(draws, k)`."""
    ends = [interval(column, LEVEL) for column in draws.T]
    return [low for low, _ in ends], [high for _, high in ends]
