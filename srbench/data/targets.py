"""Masks and boxes, moved as the pixels of their image are: placed on HR, cut, turned, mirrored.

A target is an array of one of two forms. A mask is `(H, W)`, uint8, a class for each pixel. Boxes are rows of
`srbench.data.boxes`, `(k, 7)`, float32, which are cut at the edges of what is kept of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.data.boxes import cut_boxes, flip_boxes
from srbench.data.geometry import Placement


def place_target(target: NDArray[Any], placed: Placement) -> NDArray[Any]:
    """Bring what the data say about places in a decoded image to HR, as its pixels are brought there.

    Args:
        target: Of either form; a mask is resized to the nearest pixel.
        placed: Where HR lies.
    """
    if _is_mask(target):
        rows = _nearest(placed.source[0], placed.resized[0])[placed.top : placed.top + placed.rows]
        columns = _nearest(placed.source[1], placed.resized[1])[placed.left : placed.left + placed.columns]
        return np.ascontiguousarray(target[rows[:, None], columns[None, :]])
    scale = np.array([placed.resized[1] / placed.source[1], placed.resized[0] / placed.source[0]] * 2)
    moved = _moved(target, target[:, :4] * scale - np.array([placed.left, placed.top] * 2))
    return cut_boxes(moved, placed.rows, placed.columns)


def cut_target(target: NDArray[Any], *, top: int, left: int, rows: int, columns: int) -> NDArray[Any]:
    """Return the target on a window of its image."""
    if _is_mask(target):
        return target[top : top + rows, left : left + columns]
    return cut_boxes(_moved(target, target[:, :4] - np.array([left, top] * 2)), rows, columns)


def turn_target(target: NDArray[Any], quarters: int, size: tuple[int, int]) -> NDArray[Any]:
    """Turn a target by quarters against the clock, as `torch.rot90` does; `size` is (height, width) before."""
    if _is_mask(target):
        return np.rot90(target, quarters)
    for _ in range(quarters % 4):
        left, top, right, bottom = target[:, :4].T
        target = _moved(target, np.stack([top, size[1] - right, bottom, size[1] - left], axis=1))
        size = (size[1], size[0])
    return target


def mirror_target(target: NDArray[Any], width: int) -> NDArray[Any]:
    """Mirror a target left to right in an image of this width, pixels."""
    if _is_mask(target):
        return target[:, ::-1]
    return flip_boxes(target, width)


def _is_mask(target: NDArray[Any]) -> bool:
    return bool(target.dtype == np.uint8)


def _moved(boxes: NDArray[Any], edges: NDArray[Any]) -> NDArray[Any]:
    moved = boxes.copy()
    moved[:, :4] = edges
    return moved


def _nearest(source: int, resized: int) -> NDArray[np.int64]:
    """Return for each resized row the source row whose centre is nearest."""
    return np.minimum(((np.arange(resized) + 0.5) * source / resized).astype(np.int64), source - 1)
