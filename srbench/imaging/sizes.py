"""Sizes of images by their shortest side, pixels: those worth a look, and a size scaled to one of them."""

from __future__ import annotations

STEP = 32  # of a sweep, pixels: the stride of most classifiers


def sweep(low: int, high: int) -> tuple[int, ...]:
    """Return the multiples of 32 above `low`, up to `high`, ascending."""
    return tuple(range((low // STEP + 1) * STEP, high + 1, STEP))


def at_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (height, width) with this shortest side and the same aspect, to the nearest pixel."""
    short = min(size)
    height, width = (max(side, round(each * side / short)) for each in size)
    return height, width
