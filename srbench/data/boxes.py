"""Boxes around the objects of an image as one array, so that they are cached and moved with the image's pixels.

A row is left, top, right, bottom edge in pixels (0 is the image's own edge); the share of the box that the object
fills, by which its area follows from the box at any scale; the index of its class; and its flags.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
Rows = NDArray[np.float32]

COLUMNS = 7
FILL, LABEL, FLAGS = 4, 5, 6
IGNORED = 1  # neither to be found nor wrong to be found: a difficult object, or one that a crop has mostly cut away
CROWD = 2  # many objects in one box, ignored too: any number of detections may lie in it

_MIN_KEPT = 0.5  # share of a box that a crop must leave, or it is ignored: nobody can tell what it was


def box_rows(
    xyxy: ArrayLike,
    labels: Sequence[int],
    *,
    areas: ArrayLike | None = None,
    ignored: Sequence[bool] | None = None,
    crowd: Sequence[bool] | None = None,
) -> Rows:
    """Return boxes as rows, `(k, 7)` float32.

    Args:
        xyxy: Left, top, right and bottom edge of each box, `(k, 4)`, pixels.
        labels: Index of each object's class.
        areas: Area of each object, square pixels; nan or None where it is the box's own.
        ignored: Which are ignored.
        crowd: Which are crowds.
    """
    rows = np.zeros((len(labels), COLUMNS), dtype=np.float32)
    edges = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
    whole = box_areas(edges)
    own = whole if areas is None else np.asarray(areas, dtype=np.float64)
    rows[:, :4] = edges
    rows[:, FILL] = np.divide(np.where(np.isnan(own), whole, own), whole, out=np.ones_like(whole), where=whole > 0)
    rows[:, LABEL] = labels
    for flag, values in ((IGNORED, ignored), (CROWD | IGNORED, crowd)):
        if values is not None:
            rows[:, FLAGS] = rows[:, FLAGS].astype(np.int64) | np.where(values, flag, 0)
    return rows


def box_areas(xyxy: Floats) -> Floats:
    """Return the areas of boxes whose first four columns are edges, `(k,)`, in square pixels."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def object_areas(rows: Rows) -> Rows:
    """Return the area of each object, `(k,)`, in square pixels."""
    wide = rows.astype(np.float64)
    return (box_areas(wide) * wide[:, FILL]).astype(np.float32)  # a share has no more digits than these


def flagged(rows: Rows, flag: int) -> NDArray[np.bool_]:
    """Return which boxes have a flag, `(k,)`."""
    return (rows[:, FLAGS].astype(np.int64) & flag) > 0


def cut_boxes(rows: Rows, height: int, width: int) -> Rows:
    """Cut boxes at the edges of an image of that size.

    A box of which nothing is left is dropped; one that has lost more than half of its area is ignored.
    """
    cut = rows.copy()
    cut[:, :4] = np.clip(rows[:, :4], 0, np.array([width, height, width, height], dtype=np.float32))
    before, after = box_areas(rows[:, :4]), box_areas(cut[:, :4])
    lost = after < _MIN_KEPT * before
    cut[lost, FLAGS] = cut[lost, FLAGS].astype(np.int64) | IGNORED
    return cut[(cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])]


def flip_boxes(rows: Rows, width: int) -> Rows:
    """Return the boxes of an image of that width mirrored from left to right."""
    flipped = rows.copy()
    flipped[:, 0], flipped[:, 2] = width - rows[:, 2], width - rows[:, 0]
    return flipped
