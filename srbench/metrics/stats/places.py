"""How sure a place in a table is: intervals of ranks, and which rows cannot be told from the best one."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.metrics.stats.bootstrap import LEVEL, tails_of

# Two means of the same values differ in their last digits where they are summed in another order.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Places:
    """How sure the places of several rows are.

    Attributes:
        ranks: Interval of the place of each row (k, 2), int64, 1 is the best.
        best: Index of the row with the largest value.
        delta: Value of each row minus that of the best (k,).
        margin: Half the width of the simultaneous interval of `delta` (k,); 0 for the best.
        tied: Whether the interval of `delta` holds 0 (k,); the best is tied where another row is.
    """

    ranks: NDArray[np.int64]
    best: int
    delta: NDArray[np.float64]
    margin: NDArray[np.float64]
    tied: NDArray[np.bool_]


def places(
    values: NDArray[np.floating],
    draws: NDArray[np.floating],
    *,
    n: int,
    step: float = 0.0,
    level: float = LEVEL,
) -> Places:
    """Return how sure the places of rows are that were resampled together; more is better.

    The best row is known only once the data are seen. A test of single pairs would therefore find differences where
    there are none, the more often the more rows there are. The intervals here hold for all pairs of rows at once: their
    width is a quantile of the largest studentised difference of any pair (Tukey's range by the bootstrap), so that of
    rows that are equally good none is told from the best in a share `level` of all tables.

    Args:
        values: Value of each row (k,).
        draws: Paired bootstrap draws of these (draws, k).
        n: Number of samples.
        step: Smallest amount by which a value can change, 1 / n for a share of n samples: the continuity correction.
        level: Share of all tables in which every interval is to hold.

    Raises:
        UsageError: If there is no row, the shapes do not fit, or `level` is not between 0 and 1.
    """
    own = np.asarray(values, dtype=np.float64)
    drawn = np.asarray(draws, dtype=np.float64)
    if own.ndim != 1 or not own.size or drawn.ndim != 2 or drawn.shape[1] != own.size:
        raise UsageError(f"expected draws (draws, rows) of values (rows,), got {drawn.shape} and {own.shape}")
    lower, upper = tails_of(level)
    ahead = np.column_stack([(drawn > drawn[:, [row]] + _EQUAL).sum(axis=1) for row in range(own.size)]) + 1
    low = np.quantile(ahead, lower, axis=0, method="lower")
    high = np.quantile(ahead, upper, axis=0, method="higher")
    best = int(own.argmax())
    largest = np.zeros(len(drawn))
    for row in range(own.size):
        difference = drawn - drawn[:, [row]]
        spread = difference.std(axis=0)
        centred = np.abs(difference - (own - own[row]))
        told = spread > _EQUAL
        if told.any():
            largest = np.maximum(largest, (centred[:, told] / spread[told]).max(axis=1))
    spread = (drawn - drawn[:, [best]]).std(axis=0)
    margin = _critical(largest, n, level) * spread + step * (spread > _EQUAL)
    delta = own - own[best]
    tied = np.abs(delta) <= margin + _EQUAL
    tied[best] = tied.sum() > 1
    return Places(np.column_stack([low, high]), best, delta, margin, tied)


def _critical(largest: NDArray[np.float64], n: int, level: float) -> float:
    """Return the quantile of the largest studentised difference, never below that of one pair, with Student's tails."""
    from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import

    quantile = max(float(np.quantile(largest, level)), NormalDist().inv_cdf((1.0 + level) / 2.0))
    # The spread is estimated from n samples, whereas each draw is divided by the same one. A quantile far out keeps
    # its value where the two tails cannot be told apart in floating point.
    share = float(ndtr(quantile))
    return float(stdtrit(n - 1, share)) if n > 1 and share < 1.0 else quantile
