"""COCO's average precision from stored matches, and its bootstrap over images, which needs no matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.metrics.boxes import THRESHOLDS, Matches, ignored, right
from srbench.metrics.stats.bootstrap import BOOTSTRAP_DRAWS, resample_counts

Floats = NDArray[np.float64]

RECALLS = np.linspace(0.0, 1.0, 101)  # at which precision is averaged


@dataclass(frozen=True)
class DetectionTable:
    """The matches of a data set; n images, C classes, S sizes.

    Attributes:
        image: Position of each detection's image, `(D,)`.
        scores: Score of each detection, `(D,)`.
        labels: Class of each detection, `(D,)`.
        bits: What each is worth, `(D, S)`, as in `Matches`.
        objects: Objects to be found, `(n, C, S)` int64.
    """

    image: NDArray[np.int64]
    scores: NDArray[np.floating]
    labels: NDArray[np.integer]
    bits: NDArray[np.integer]
    objects: NDArray[np.int64]

    @classmethod
    def of(cls, images: Sequence[Matches], classes: int | None = None) -> DetectionTable:
        """Join the matches of images, at least one; `classes` is one more than the largest label where None."""
        scores, labels, bits, counts = zip(*((x.scores, x.labels, x.bits, x.counts) for x in images), strict=True)
        return cls.of_lists(scores, labels, bits, counts, sizes=images[0].bits.shape[1], classes=classes)

    @classmethod
    def of_lists(
        cls,
        scores: Sequence[NDArray[np.floating]],
        labels: Sequence[NDArray[np.integer]],
        bits: Sequence[NDArray[np.integer]],
        counts: Sequence[NDArray[np.integer]],
        *,
        sizes: int,
        classes: int | None = None,
    ) -> DetectionTable:
        """Join what is stored of images, at least one: what their `Matches` hold, flat or not; sizes is S."""
        n = len(scores)
        given = np.concatenate(counts).reshape(-1, 1 + sizes)
        known = np.concatenate(labels)
        if classes is None:
            classes = 1 + int(max(known.max(initial=-1), given[:, 0].max(initial=-1)))
        objects = np.zeros((n, classes, sizes), dtype=np.int64)
        objects[np.repeat(np.arange(n), [each.size // (1 + sizes) for each in counts]), given[:, 0]] = given[:, 1:]
        return cls(
            np.repeat(np.arange(n), [len(each) for each in scores]),
            np.concatenate(scores),
            known,
            np.concatenate(bits).reshape(-1, sizes),
            objects,
        )

    def hits(self, score: float) -> Floats:
        """Count for each image at an IoU of 0.5, all sizes: right detections, objects, detections, `(3, n, C)`.

        Only detections with at least that score count, and none that is ignored.
        """
        counts = np.zeros((3, *self.objects.shape[:2]))
        counts[1] = self.objects[..., 0]
        judged = (self.scores >= score) & ~ignored(self.bits[:, 0], 0)
        for row, chosen in ((0, judged & right(self.bits[:, 0], 0)), (2, judged)):
            np.add.at(counts[row], (self.image[chosen], self.labels[chosen]), 1)
        return counts


@dataclass(frozen=True)
class Part:
    """What a summary averages AP over, besides the classes.

    Attributes:
        size: Index of the size.
        thresholds: Indices of the thresholds.
    """

    size: int
    thresholds: tuple[int, ...] = tuple(range(len(THRESHOLDS)))


def average_precision(table: DetectionTable, part: Part) -> Floats:
    """Return AP of each class and threshold of a part, `(C, thresholds)`; nan where a class has no object."""
    once = np.ones((1, len(table.objects)))
    curves = [_Curves(table, label, once) for label in range(table.objects.shape[1])]
    values = [[each.precision(part.size, threshold)[0] for threshold in part.thresholds] for each in curves]
    return np.array(values).reshape(len(curves), len(part.thresholds))


def class_precision(table: DetectionTable, part: Part) -> Floats:
    """Return the mean AP of each class over the thresholds of a part, `(C,)`; nan where a class has no object."""
    return average_precision(table, part).mean(axis=1)


def mean_precision(table: DetectionTable, part: Part) -> float | None:
    """Return the mean AP of a part over the classes that have objects, None where none has."""
    values = class_precision(table, part)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def bootstrap_precision(
    table: DetectionTable, parts: Mapping[str, Part], *, draws: int = BOOTSTRAP_DRAWS, seed: int
) -> dict[str, Floats]:
    """Resample images, and return each summary of the draws, `(draws,)` by name.

    An image that is drawn twice counts twice with all its objects and detections; copies of a detection stand behind
    each other, also where others of the image have the same score. A class without an object in a draw
    is left out of that draw, as in `mean_precision`; a draw without any is nan.

    Args:
        table: The matches.
        parts: What each summary averages over.
        draws: Number of draws.
        seed: Seed of the draws, those of `bootstrap_means` for as many images.
    """
    n, classes, _ = table.objects.shape
    sums = {name: np.zeros(draws) for name in parts}
    known = {name: np.zeros(draws) for name in parts}
    needed = sorted({(part.size, threshold) for part in parts.values() for threshold in part.thresholds})
    done = 0
    for counts in resample_counts(n, draws, seed=seed, values_per_draw=len(table.scores)):
        rows = slice(done, done + len(counts))
        done += len(counts)
        for label in range(classes):
            curves = _Curves(table, label, counts)
            for size, threshold in needed:
                values = curves.precision(size, threshold)
                there = ~np.isnan(values)
                for name, part in parts.items():
                    if size == part.size and threshold in part.thresholds:
                        sums[name][rows] += np.where(there, values, 0.0)
                        known[name][rows] += there
    return {
        name: np.divide(sums[name], known[name], out=np.full(draws, np.nan), where=known[name] > 0) for name in parts
    }


class _Curves:
    """The precision-recall curves of one class, for images that occur so and so often."""

    def __init__(self, table: DetectionTable, label: int, counts: Floats) -> None:
        """Sort the detections of the class; `counts` is `(draws, n)`."""
        chosen = np.flatnonzero(table.labels == label)
        chosen = chosen[np.argsort(-table.scores[chosen], kind="stable")]
        self._bits = table.bits[chosen]
        self._weights = counts[:, table.image[chosen]]  # (draws, detections)
        self._objects = counts @ table.objects[:, label].astype(np.float64)  # (draws, S)
        self._seen = np.cumsum(self._weights, axis=1)  # detections up to each one
        self._summed: tuple[bytes, Floats] | None = None

    def precision(self, size: int, threshold: int) -> Floats:
        """Return AP at a size and threshold, `(draws,)`, nan where there is no object."""
        objects = self._objects[:, size]
        bits = self._bits[:, size]
        hits = np.flatnonzero(right(bits, threshold))
        values = np.zeros(len(objects))
        if hits.size:
            found = np.cumsum(self._weights[:, hits], axis=1)
            judged = self._judged_up_to(hits, ignored(bits, threshold))
            precision = np.divide(found, judged, out=np.zeros_like(found), where=judged > 0)
            # The precision at a recall is the best at that recall or beyond.
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            recall = found / np.maximum(objects, 1)[:, None]
            # A detection that is right covers the levels of recall above that of the one before, up to its own. What
            # lies between two of them only lowers the precision, so nothing else needs to be looked at.
            levels = np.searchsorted(RECALLS, recall, side="right")
            covered = np.diff(levels, axis=1, prepend=0)
            values = (best * covered).sum(axis=1) / len(RECALLS)
        return np.where(objects > 0, values, np.nan)

    def _judged_up_to(self, hits: NDArray[np.int64], skipped: NDArray[np.bool_]) -> Floats:
        """Return how many detections that are not ignored stand before each of `hits` or are it, `(draws, hits)`.

        Only the fewer are summed up, those that are ignored or the others. Neighbouring thresholds of a size mostly
        ignore the same detections; sums of all thresholds would take hundreds of MB where there are many detections.
        """
        if not skipped.any():
            return self._seen[:, hits]
        few = np.flatnonzero(skipped)
        is_rest = 2 * len(few) > len(skipped)
        if is_rest:
            few = np.flatnonzero(~skipped)
        key = skipped.tobytes()
        if self._summed is None or self._summed[0] != key:
            sums = np.zeros((len(self._weights), len(few) + 1))
            np.cumsum(self._weights[:, few], axis=1, out=sums[:, 1:])
            self._summed = key, sums
        counted = self._summed[1][:, np.searchsorted(few, hits, side="right")]
        return counted if is_rest else self._seen[:, hits] - counted
