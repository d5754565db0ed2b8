"""Bjontegaard's delta of rate: how many more bytes one curve needs than another for equal quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]  # mean bytes, quality


def frontier(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in bytes and quality at once, by bytes; quality rises along them."""
    kept: list[Point] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return kept


def bd_rate(reference: Sequence[Point], other: Sequence[Point]) -> float | None:
    """Return the bytes that `other` needs beyond `reference` at equal quality, as a share: -0.2 is a fifth less.

    The logarithm of the bytes is a monotone cubic of the quality (PCHIP) through each frontier, and the difference is
    the mean over the qualities that both reach.

    Returns:
        The share, or None where a frontier has a single point or the two share no range of quality.
    """
    from scipy.interpolate import PchipInterpolator

    curves = [np.array(frontier(points), dtype=np.float64) for points in (reference, other)]
    if any(len(curve) < 2 for curve in curves):
        return None
    low = max(curve[0, 1] for curve in curves)
    high = min(curve[-1, 1] for curve in curves)
    if not high > low:
        return None
    ours, theirs = (float(PchipInterpolator(curve[:, 1], np.log(curve[:, 0])).integrate(low, high)) for curve in curves)
    return float(np.exp((theirs - ours) / (high - low)) - 1)
