"""Detection: where are which objects? COCO's AP from the matches of each image, with intervals over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.data import boxes as rows_of
from srbench.errors import UsageError
from srbench.metrics.boxes import SIZES, Detected, Objects, match_boxes
from srbench.metrics.dense import dice
from srbench.metrics.info import MetricInfo, SampleColumn
from srbench.metrics.stats import (
    LEVEL,
    DetectionTable,
    Part,
    bootstrap_iou,
    bootstrap_precision,
    class_precision,
    gap_interval,
    interval,
    mean_precision,
)
from srbench.metrics.values import Columns
from srbench.records.schema import BASELINE, ORACLE, ClassPart
from srbench.task_types.base import BatchResult, OutputMap, TaskType
from srbench.task_types.overlays import framed
from srbench.task_types.paired import CellSamples, Comparison, PairedCells

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.data.source import Sample, Source

_NAME = ("detection",)
SURE = 0.5  # score from which a detection counts as a box of HR, and in precision, recall and F1 of a class
_SCORES, _LABELS = SampleColumn("box_scores", "float32[]"), SampleColumn("box_labels", "int32[]")
_MATCHES, _OBJECTS = SampleColumn("box_matches", "int32[]"), SampleColumn("box_objects", "int32[]")
_HR_MATCHES, _HR_OBJECTS = SampleColumn("box_hr_matches", "int32[]"), SampleColumn("box_hr_objects", "int32[]")
_WITH_OBJECTS = (_SCORES, _LABELS, _MATCHES, _OBJECTS)
_WITH_HR = (_SCORES, _LABELS, _HR_MATCHES, _HR_OBJECTS)

PARTS: Mapping[str, Part] = {
    "map": Part(0),
    "ap50": Part(0, (0,)),
    **{f"ap_{size}": Part(number) for number, size in enumerate(SIZES) if size != "all"},
}
_AGREEMENT = "box_agreement"


def _table(columns: Columns, names: tuple[SampleColumn, ...]) -> DetectionTable | None:
    """Return the matches of a cell, or None where its samples have none."""
    lists = [columns.get(each.name) for each in names]
    if any(each is None or not len(each) for each in lists):
        return None
    scores, labels, bits, counts = lists
    return DetectionTable.of_lists(scores, labels, bits, counts, sizes=1 if names is _WITH_HR else len(SIZES))  # type: ignore[arg-type]


def _precision(columns: Columns, *, names: tuple[SampleColumn, ...], part: Part) -> float | None:
    table = _table(columns, names)
    return None if table is None else mean_precision(table, part)


def _mean_f1(columns: Columns) -> float | None:
    table = _table(columns, _WITH_OBJECTS)
    return None if table is None else float(image_f1(table.hits(SURE)).mean())


def image_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return F1 of the boxes of each image, `(n,)`, of hits, objects and detections by class `(3, n, C)`.

    An image with no object in which nothing is found has an F1 of 1.
    """
    hits, objects, found = counts.sum(axis=2)
    both = objects + found
    return np.divide(2 * hits, both, out=np.ones_like(both), where=both > 0)


def _row(name: str, header: str, word: str, **more: Any) -> MetricInfo:
    value = partial(_precision, names=_WITH_OBJECTS, part=PARTS[name])
    row: dict[str, Any] = {"share": True, "value": value, "interval": "iou", "test": "intervals"}
    return MetricInfo(name, header, word, True, "network", _NAME, _WITH_OBJECTS, **{**row, **more})


class Detection(TaskType):
    """Boxes with a class and a score."""

    name = "detection"
    question = "where are which objects?"
    answers = "boxes"
    loss_term = "boxes"
    criterion = "box_f1"
    metrics = (
        _row(
            "map",
            "mAP",
            "mean AP",
            priority=1,
            interval_shown="beside",
            interval_priority=2,
            headline=True,
            absence="elsewhere",
        ),
        MetricInfo(
            "map_delta",
            "mAP against\nbilinear",
            "mean AP against bilinear",
            True,
            "network",
            _NAME,
            _WITH_OBJECTS,
            share=True,
            style="signed",
            digits=3,
            priority=3,
            interval="difference",
            interval_shown="within",
            test="intervals",
            tested_as="map",
            compared=True,
        ),
        _row("ap50", "AP50", "AP at an IoU of 0.5", priority=2),
        _row("ap_small", "AP\nsmall", "AP of small objects", priority=9),
        _row("ap_medium", "AP\nmedium", "AP of medium objects", priority=9),
        _row("ap_large", "AP\nlarge", "AP of large objects", priority=9),
        MetricInfo(
            "box_f1",
            "F1 of\nboxes",
            "F1 of an image's boxes",
            True,
            "network",
            _NAME,
            _WITH_OBJECTS,
            share=True,
            value=_mean_f1,
            priority=13,
        ),
        MetricInfo(
            _AGREEMENT,
            "AP\nagainst\nHR's boxes",
            "AP against the boxes found on HR",
            True,
            "network",
            _NAME,
            _WITH_HR,
            share=True,
            value=partial(_precision, names=_WITH_HR, part=Part(0)),
            priority=12,
            interval="iou",
            test="intervals",
            absence="elsewhere",
        ),
    )
    ranks = ("map", _AGREEMENT)
    shown: ClassVar[tuple[str, ...]] = (
        *("rank", "method", "map", "map_ci", "ap50", "map_delta", "recovered_gap", "latency_ms", "rank_ci"),
        *("ap_small", "ap_medium", "ap_large", "psnr", "psnr_ci", "total_time_s", "ssim", _AGREEMENT, "best_delta"),
        *("latency_p10_ms", "seed_sd", "images_per_s", "parameters", "macs", "total_macs", "peak_memory_mb"),
    )
    draws = True
    essential = ("map", "ap50", "psnr", "total_time_s")

    # --- targets

    def classes_of(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Name the classes of all sources, in their order."""
        lacking = [source.spec for source in sources if not source.has_targets or source.classes is None]
        if lacking:
            raise UsageError(f"{lacking[0]} has no boxes; train a detector on coco:, voc: or demo-det")
        return tuple(dict.fromkeys(name for source in sources for name in source.classes or ()))

    def targets(
        self, samples: Sequence[Sample], answers: OutputMap, placed: Sequence[NDArray[Any]] | None = None
    ) -> list[dict[str, NDArray[Any]]] | None:
        """Return the objects of each image, or None where the data have no boxes.

        Each is a mapping with "boxes" `(g, 4)`, left, top, right and bottom edge in pixels of HR, "labels" `(g,)`, the
        outputs that are right, "areas" `(g,)` in square pixels, "ignored" and "crowd" `(g,)`.
        """
        outputs = answers.outputs
        if placed is None or outputs is None:
            return None
        return [
            {
                "boxes": rows[:, :4],
                "labels": outputs[rows[:, rows_of.LABEL].astype(np.int64)],
                "areas": rows_of.object_areas(rows),
                "ignored": rows_of.flagged(rows, rows_of.IGNORED),
                "crowd": rows_of.flagged(rows, rows_of.CROWD),
            }
            for rows in placed
        ]

    # --- learning

    def loss(self, scores: Any, target: Any, *, smoothing: float = 0.0) -> Tensor:
        """Return the sum of the detector's own losses on objects that are not ignored."""
        import torch

        if smoothing:
            raise UsageError(f"label_smoothing is for class labels, not for boxes; got {smoothing:g}, set it to 0")
        wanted = [{name: each[name][~each["ignored"]] for name in ("boxes", "labels")} for each in target]
        return torch.stack(list(scores.losses(wanted).values())).sum()

    def figures(self, scores: Any, target: Any, answers: OutputMap) -> dict[str, Tensor]:
        """Return F1 of the boxes of each image, `(N,)`: at an IoU of 0.5, of detections with a score above 0.5."""
        import torch

        one = partial(match_boxes, sizes=("all",))
        matches = list(map(one, map(_detected, _plain(scores)), map(_objects, target)))
        return {"box_f1": torch.from_numpy(image_f1(DetectionTable.of(matches).hits(SURE)))}

    # --- scoring

    def prediction(self, output: Any, *, seen: tuple[int, int], size: tuple[int, int]) -> list[Mapping[str, Tensor]]:
        """Return boxes in pixels of HR, scores and labels of each image."""
        import torch

        down, right = size[0] / seen[0], size[1] / seen[1]
        found = _plain(output)
        if (down, right) == (1.0, 1.0):
            return found
        return [
            {**each, "boxes": each["boxes"] * torch.tensor([right, down] * 2, device=each["boxes"].device)}
            for each in found
        ]

    def is_finite(self, output: Any) -> Tensor:
        """Say whether all boxes and scores are finite."""
        import torch

        return torch.stack([torch.isfinite(each[name]).all() for each in output for name in ("boxes", "scores")]).all()

    def split(self, prediction: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
        """Return the boxes of each image; they are apart already."""
        return list(prediction)

    def join(self, parts: Sequence[Mapping[str, Tensor]]) -> list[Mapping[str, Tensor]]:
        """Return the boxes of all images."""
        return list(parts)

    def columns(self, prediction: Any, hr_prediction: Any, target: Any, answers: OutputMap) -> BatchResult:
        """Return the matches of each image's boxes with its objects, and with the boxes found on HR."""
        import torch

        detected = [_detected(each, answers.outputs) for each in prediction]
        lists: dict[str, list[NDArray[Any]]] = {}
        if target is not None:
            _put(lists, map(match_boxes, detected, map(_objects, target)), (_MATCHES, _OBJECTS))
        if hr_prediction is not None:
            sure = [_as_objects(_detected(each, answers.outputs)) for each in hr_prediction]
            _put(lists, map(partial(match_boxes, sizes=("all",)), detected, sure), (_HR_MATCHES, _HR_OBJECTS))
        return BatchResult({name: [torch.from_numpy(each) for each in values] for name, values in lists.items()})

    def overlay(self, image: NDArray[np.uint8], found: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        """Return the image with a frame around each sure box, the surest on top."""
        order = np.argsort(found["scores"], kind="stable")
        order = order[found["scores"][order] >= SURE]
        return framed(image, found["boxes"][order], found["labels"][order])

    def truth_overlay(
        self, image: NDArray[np.uint8], placed: NDArray[Any], answers: OutputMap
    ) -> NDArray[np.uint8] | None:
        """Return the image with a frame around each object that is not ignored."""
        target = self.targets((), answers, [placed])
        if target is None:
            return None
        wanted = ~target[0]["ignored"]
        return framed(image, target[0]["boxes"][wanted], target[0]["labels"][wanted])

    def per_class(
        self, samples: pd.DataFrame, answers: OutputMap, classes: Sequence[str] | None
    ) -> tuple[ClassPart, ...] | None:
        """Return precision, recall and F1 of sure boxes at an IoU of 0.5, and AP, of every class with objects."""
        columns = {name: samples[name].to_numpy() for name in self.sample_columns() if name in samples}
        table = _table(columns, _WITH_OBJECTS)
        if table is None or classes is None or answers.outputs is None:
            return None
        names = dict(zip(answers.outputs.tolist(), classes, strict=True))
        hits, objects, found = table.hits(SURE).sum(axis=1)
        ap = class_precision(table, PARTS["map"])
        f1 = dice(np.stack([hits, objects, found]))
        return tuple(
            ClassPart(
                index=index,
                name=names[index],
                support=int(objects[index]),
                precision=float(hits[index] / found[index]) if found[index] else 0.0,
                recall=float(hits[index] / objects[index]),
                f1=float(f1[index]),
                ap=float(ap[index]),
            )
            for index in np.flatnonzero(objects).tolist()
        )

    # --- ranking

    def truth(self, cell: CellSamples) -> NDArray[Any] | None:
        """Return the objects of each image, class and size."""
        table = _table(cell.columns, _WITH_OBJECTS)
        return None if table is None else table.objects

    def summary(self, cell: CellSamples, *, draws: int, seed: int) -> _Summary:
        """Return the draws of every AP, and what the tables of classes are made of."""
        drawn: dict[str, NDArray[np.float64]] = {}
        by_class = None
        if (table := _table(cell.columns, _WITH_OBJECTS)) is not None:
            drawn |= bootstrap_precision(table, PARTS, draws=draws, seed=seed)
            by_class = _ByClass(table.hits(SURE), class_precision(table, PARTS["map"]))
        if (table := _table(cell.columns, _WITH_HR)) is not None:
            drawn |= bootstrap_precision(table, {_AGREEMENT: Part(0)}, draws=draws, seed=seed)
        return _Summary(drawn, by_class)

    def compare(self, paired: PairedCells) -> Comparison:
        """Return intervals of every AP, differences of mAP to bilinear, recovered gaps, and tables of classes."""
        comparison = Comparison.blank(len(paired.cells))
        summaries: Sequence[_Summary] = paired.summaries
        for index, summary in enumerate(summaries):
            for name, draws in summary.draws.items():
                comparison.put_draws(index, name, draws)
        _differences(paired, comparison)
        comparison.tables.extend(_class_tables(paired, summaries))
        return comparison


@dataclass(frozen=True)
class _ByClass:
    """What a row's table of classes is made of; n images, C classes.

    Attributes:
        counts: Sure boxes that are right, objects, sure boxes, `(3, n, C)`.
        ap: AP, `(C,)`, nan where a class has no object.
    """

    counts: NDArray[np.float64]
    ap: NDArray[np.float64]


@dataclass(frozen=True)
class _Summary:
    """What is left of a row's matches for comparing it.

    Attributes:
        draws: Draws of every AP that the row has, by the name of the metric.
        by_class: None where the data have no boxes.
    """

    draws: Mapping[str, NDArray[np.float64]]
    by_class: _ByClass | None


def _plain(output: Any) -> list[Mapping[str, Tensor]]:
    """Return boxes and scores in float32 and labels in int32, without gradient."""
    import torch

    kinds = {"boxes": torch.float32, "scores": torch.float32, "labels": torch.int32}
    return [{name: each[name].detach().to(kind) for name, kind in kinds.items()} for each in output]


def _detected(found: Mapping[str, Tensor], outputs: NDArray[np.int64] | None = None) -> Detected:
    """Return a prediction as arrays, without the outputs that stand for no class of the data; all where None."""
    boxes, scores, labels = (found[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
    kept = np.ones(len(labels), dtype=bool) if outputs is None else np.isin(labels, outputs)
    return Detected(boxes[kept], scores[kept], labels[kept])


def _objects(given: Mapping[str, Tensor]) -> Objects:
    names = ("boxes", "labels", "areas", "ignored", "crowd")
    return Objects(*(given[name].cpu().numpy() for name in names))


def _as_objects(found: Detected) -> Objects:
    """Return the boxes that a network is sure of as what is to be found."""
    sure = found.scores >= SURE
    boxes = found.xyxy[sure]
    none = np.zeros(len(boxes), dtype=bool)
    return Objects(boxes, found.labels[sure], rows_of.box_areas(boxes), none, none)


def _put(lists: dict[str, list[NDArray[Any]]], matches: Any, names: tuple[SampleColumn, SampleColumn]) -> None:
    """Add the stored lists of the matches of a batch."""
    done = list(matches)
    lists[_SCORES.name], lists[_LABELS.name] = [each.scores for each in done], [each.labels for each in done]
    lists[names[0].name] = [each.bits.reshape(-1) for each in done]
    lists[names[1].name] = [each.counts.reshape(-1) for each in done]


def _differences(paired: PairedCells, comparison: Comparison) -> None:
    """Fill in the difference of mAP to bilinear's and the recovered gap, by the same draws."""
    oracle, baseline, drawn = paired.oracle_index, paired.baseline_index, comparison.draws
    for index, values in enumerate(paired.values):
        if "map" not in values:
            continue
        if baseline is None or "map" not in paired.values[baseline]:
            comparison.notes[index]["map_delta"] = f"there is no ok row {BASELINE!r}"
        else:
            base = paired.values[baseline]["map"]
            comparison.values[index]["map_delta"] = values["map"] - base
            delta = drawn[index, "map"] - drawn[baseline, "map"]
            comparison.put_draws(index, "map_delta", delta, shown=index != baseline)
        if oracle is None or baseline is None or not {(oracle, "map"), (baseline, "map")} <= set(drawn):
            comparison.notes[index]["recovered_gap"] = (
                f"it needs ok rows {ORACLE!r} and {BASELINE!r} of the same task and network"
            )
            continue
        gap = gap_interval(
            values["map"],
            paired.values[baseline]["map"],
            paired.values[oracle]["map"],
            draws=drawn[index, "map"],
            draws_bilinear=drawn[baseline, "map"],
            draws_hr=drawn[oracle, "map"],
            level=LEVEL,
        )
        comparison.put_gap(index, "recovered_gap", gap, shown=index not in (oracle, baseline))


def _class_tables(paired: PairedCells, summaries: Sequence[_Summary]) -> list[pd.DataFrame]:
    """Return each row's table of classes, with the differences of F1 to original and bilinear."""
    rows = {index: each.by_class for index, each in enumerate(summaries) if each.by_class is not None}
    if not rows:
        return []
    counts = _stacked([each.counts for each in rows.values()])
    drawn = bootstrap_iou(counts, draws=paired.draws, seed=paired.seed).dice
    place = {index: number for number, index in enumerate(rows)}
    f1 = dice(counts.sum(axis=2).transpose(1, 0, 2))
    done = []
    for index, number in place.items():
        record = paired.cells[index].record
        hits, objects, found = counts[number].sum(axis=1)
        present = np.flatnonzero(objects)
        parts = {part.index: part for part in record.per_class or ()}
        table = pd.DataFrame(
            {
                "task": record.cell.task,
                "classifier": record.cell.classifier,
                "track": record.cell.track,
                "method": record.cell.method,
                "weights": record.cell.weights,
                "class": [parts[each].name if each in parts else f"class {each}" for each in present.tolist()],
                "class_index": present,
                "support": objects[present].astype(np.int64),
                "precision": np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)[present],
                "recall": hits[present] / objects[present],
                "f1": f1[number, present],
                "ap": rows[index].ap[present],
            }
        )
        for name, other in ((ORACLE, paired.oracle_index), (BASELINE, paired.baseline_index)):
            known = other is not None and other in place
            against = place[other] if other is not None and known else number
            ends = [interval(each, LEVEL) for each in (drawn[:, number, present] - drawn[:, against, present]).T]
            delta = f1[number, present] - f1[against, present]
            for end, each in (("", delta), ("_low", [low for low, _ in ends]), ("_high", [high for _, high in ends])):
                table[f"f1_delta_to_{name}{end}"] = each if known else np.nan
        done.append(table)
    return done


def _stacked(counts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return counts `(3, n, C)` of m rows as `(m, 3, n, C)`; a class that a row does not know has none in it."""
    classes = max(each.shape[2] for each in counts)
    return np.stack([np.pad(each, ((0, 0), (0, 0), (0, classes - each.shape[2]))) for each in counts])
