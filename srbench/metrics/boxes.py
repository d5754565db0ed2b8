"""Which detections of an image are right, by COCO's rules, as the few numbers from which every AP follows.

COCO's evaluation (Lin et al. 2014, pycocotools) matches the detections of each image and class with its objects in the
order of their scores, at ten thresholds of overlap (IoU 0.50 to 0.95), once for objects of all sizes and once for each
size. Objects of another size are ignored there, as crowds always are: who matches one, or matches nothing and has
another size itself, is neither right nor wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU
MAX_DETECTIONS = 100  # of an image and class, the best scores
# Area in square pixels, both ends included: COCO counts an area of exactly 32 x 32 as small and as medium.
SIZES = {"all": (0.0, math.inf), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}

_BITS = len(THRESHOLDS)
_POWERS = 1 << np.arange(_BITS)


@dataclass(frozen=True)
class Detected:
    """What a network found in one image.

    Attributes:
        xyxy: Left, top, right and bottom edge of each box, `(d, 4)`, pixels.
        scores: How sure it is, `(d,)`.
        labels: Index of each box's class, `(d,)`.
    """

    xyxy: Floats
    scores: Floats
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class Objects:
    """What is to be found in one image.

    Attributes:
        xyxy: Left, top, right and bottom edge of each box, `(g, 4)`, pixels.
        labels: Index of each box's class, `(g,)`.
        areas: Area of each object, `(g,)`, square pixels.
        ignored: Which are neither to be found nor wrong to be found, `(g,)`.
        crowd: Which of these hold many objects, so that any number of detections may lie in them, `(g,)`.
    """

    xyxy: Floats
    labels: NDArray[np.integer]
    areas: Floats
    ignored: Flags
    crowd: Flags


@dataclass(frozen=True)
class Matches:
    """What is stored of one image; S sizes.

    Attributes:
        scores: Scores of its detections, `(d,)` float32, at most `MAX_DETECTIONS` of a class.
        labels: Their classes, `(d,)` int32.
        bits: For each size, `(d, S)` int32: bit t says whether the detection is right at threshold t, bit 10 + t
            whether it is ignored there.
        counts: For each class with objects, `(c, 1 + S)` int32: its index, and the number of objects of each size.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    bits: NDArray[np.int32]
    counts: NDArray[np.int32]


def match_boxes(detected: Detected, objects: Objects, *, sizes: tuple[str, ...] = tuple(SIZES)) -> Matches:
    """Match the detections of one image with its objects; `sizes` are keys of `SIZES`."""
    limits = np.array([SIZES[name] for name in sizes])
    parts = [
        _match_class(detected, objects, int(label), limits) for label in np.union1d(detected.labels, objects.labels)
    ]
    empty = Matches(
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        np.zeros((0, len(sizes)), np.int32),
        np.zeros((0, 1 + len(sizes)), np.int32),
    )
    parts = parts or [empty]
    return Matches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.bits for part in parts]),
        np.concatenate([part.counts for part in parts]),
    )


def right(bits: NDArray[np.integer], threshold: int) -> Flags:
    """Return which detections are right at a threshold, by its index."""
    return (bits >> threshold) & 1 > 0


def ignored(bits: NDArray[np.integer], threshold: int) -> Flags:
    """Return which detections are ignored at a threshold, by its index."""
    return (bits >> (_BITS + threshold)) & 1 > 0


def overlaps(detected: Floats, objects: Floats, crowd: Flags) -> NDArray[np.float64]:
    """Return the IoU of boxes `(d, 4)` and `(g, 4)`, `(d, g)`; with a crowd, the share of the detection in it."""
    one, other = detected.astype(np.float64)[:, None], objects.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    inner = np.clip(sides, 0, None).prod(axis=-1)
    area = (one[..., 2:] - one[..., :2]).prod(axis=-1)
    union = np.where(crowd, area, area + (other[..., 2:] - other[..., :2]).prod(axis=-1) - inner)
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)


def _match_class(detected: Detected, objects: Objects, label: int, limits: NDArray[np.float64]) -> Matches:
    chosen = np.flatnonzero(detected.labels == label)
    chosen = chosen[np.argsort(-detected.scores[chosen], kind="stable")[:MAX_DETECTIONS]]
    given = np.flatnonzero(objects.labels == label)
    xyxy, crowd = detected.xyxy[chosen].astype(np.float64), objects.crowd[given]
    low, high = limits[:, :1], limits[:, 1:]
    areas = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    other_size = (areas < low) | (areas > high)  # (S, d)
    skipped = objects.ignored[given] | (objects.areas[given] < low) | (objects.areas[given] > high)  # (S, g)
    hit, ignore = _greedy(overlaps(xyxy, objects.xyxy[given], crowd), skipped, crowd)
    ignore |= ~hit & other_size.T[..., None]
    bits = ((hit & ~ignore) * _POWERS).sum(axis=-1) + ((ignore * _POWERS).sum(axis=-1) << _BITS)
    counts = [label, *(~skipped).sum(axis=1)] if len(given) else []
    return Matches(
        detected.scores[chosen].astype(np.float32),
        np.full(len(chosen), label, dtype=np.int32),
        bits.astype(np.int32),
        np.array(counts, dtype=np.int32).reshape(-1, 1 + len(limits)),
    )


def _greedy(iou: NDArray[np.float64], skipped: Flags, crowd: Flags) -> tuple[Flags, Flags]:
    """Match detections in their order, at all sizes and thresholds at once.

    Args:
        iou: Overlaps `(d, g)`.
        skipped: Objects that are ignored at each size, `(S, g)`.
        crowd: Objects that any number of detections may match, `(g,)`.

    Returns:
        Whether each detection matches something, and whether that is ignored, `(d, S, thresholds)`.
    """
    hit = np.zeros((len(iou), len(skipped), _BITS), dtype=bool)
    ignore = np.zeros_like(hit)
    taken = np.zeros((len(skipped), _BITS, iou.shape[1]), dtype=bool)
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)
    size, threshold = np.ogrid[: len(skipped), :_BITS]
    near = iou >= limits[0]
    for number in np.flatnonzero(near.any(axis=1)):
        objects = np.flatnonzero(near[number])
        values = iou[number, objects]
        free = (values >= limits[:, None]) & (~taken[..., objects] | crowd[objects])
        # An object that counts goes before one that is ignored, however well that would fit.
        counting = free & ~skipped[:, None, objects]
        pool = np.where(counting.any(axis=-1, keepdims=True), counting, free)
        # Among equal overlaps the last object wins, as in pycocotools.
        last = len(objects) - 1 - np.where(pool, values, -1.0)[..., ::-1].argmax(axis=-1)
        best = objects[last]
        hit[number] = pool.any(axis=-1)
        ignore[number] = hit[number] & skipped[size, best]
        taken[size, threshold, best] |= hit[number]
    return hit, ignore
