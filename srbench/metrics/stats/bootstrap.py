"""The paired bootstrap: how often each sample occurs in a draw, resampled means, percentile intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError

BOOTSTRAP_DRAWS = 2000
LEVEL = 0.95  # of every interval of a table
# Values of one block of counts; 8 bytes each.
_BLOCK_VALUES = 2**20
# Samples of a table that are brought to float64 at a time.
_SLICE = 2**14


def resample_counts(
    n: int, draws: int = BOOTSTRAP_DRAWS, *, seed: int, values_per_draw: int = 0
) -> Iterator[NDArray[np.float64]]:
    """Yield how often each of n samples occurs in each bootstrap draw, (block, n), float64, rows sum to n.

    The rows follow Multinomial(n, 1/n). One seed gives one sequence of rows, however they are blocked; a block
    holds about 8 MB.

    Args:
        n: Number of samples.
        draws: Number of draws in all blocks together.
        seed: Seed of the draws.
        values_per_draw: What the caller keeps per draw of a block, where that is more than n values; blocks get
            fewer draws accordingly.

    Raises:
        UsageError: If `n` or `draws` is below one.
    """
    if n < 1 or draws < 1:
        raise UsageError(f"a bootstrap needs at least one sample and one draw, got {n} samples and {draws} draws")
    return _count_blocks(n, draws, seed, max(1, _BLOCK_VALUES // max(n, values_per_draw)))


def _count_blocks(n: int, draws: int, seed: int, step: int) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    for start in range(0, draws, step):
        block = np.empty((min(step, draws - start), n))
        for row in block:
            # The counts of n uniform indices have the distribution of numpy's multinomial, which draws n binomials.
            # Indices of 32 bits are the same ones as of 64, and come faster.
            row[:] = np.bincount(rng.integers(0, n, size=n, dtype=_index_type(n)), minlength=n)
        yield block


def _index_type(n: int) -> type[np.signedinteger]:
    return np.int32 if n < 2**31 else np.int64


def bootstrap_means(
    values: NDArray[np.floating] | Sequence[NDArray[np.floating]], *, draws: int = BOOTSTRAP_DRAWS, seed: int
) -> NDArray[np.float64]:
    """Resampled means (draws, k) of the columns of `values`, paired across the columns, in float64.

    A column with infinite or missing values (the PSNR of an image without error) has in each draw the mean of
    its finite ones; a draw without any has inf where the column is never finite but infinite, else nan.

    Args:
        values: A table (n, k), one row per sample and one column per quantity, or its columns (n,); these may be of
            any precision, and no table of them is made.
        draws: Number of draws.
        seed: Seed of the draws; the same seed and n give the same draws in every call.

    Raises:
        UsageError: If `values` is not two-dimensional with at least one row, or `draws` is below one.
    """
    columns = _columns(values)
    n = len(columns[0])
    # Most columns are finite throughout; the others have a count of their own in each draw.
    partial = np.array([index for index, column in enumerate(columns) if not np.isfinite(column).all()], dtype=np.intp)
    means = np.empty((draws, len(columns)))
    kept = np.empty((draws, partial.size))
    done = 0
    for counts in resample_counts(n, draws, seed=seed):
        rows = slice(done, done + len(counts))
        means[rows] = kept[rows] = 0.0
        for start in range(0, n, _SLICE):
            samples = slice(start, start + _SLICE)
            table = np.column_stack([column[samples] for column in columns]).astype(np.float64, copy=False)
            if partial.size:
                finite = np.isfinite(table[:, partial])
                table[:, partial] = np.where(finite, table[:, partial], 0.0)
                kept[rows] += counts[:, samples] @ finite.astype(np.float64)
            means[rows] += counts[:, samples] @ table
        done += len(counts)
    sums = means[:, partial]
    means /= n
    means[:, partial] = np.divide(sums, kept, out=np.full_like(sums, math.nan), where=kept > 0)
    for index in partial:
        if not np.isfinite(columns[index]).any() and np.isposinf(columns[index]).any():
            means[:, index] = math.inf
    return means


def _columns(values: NDArray[np.floating] | Sequence[NDArray[np.floating]]) -> list[NDArray[np.floating]]:
    """Return the columns (n,) of a table (n, k), or those that are given."""
    if isinstance(values, np.ndarray) and values.ndim != 2:
        raise UsageError(f"expected values of shape (samples, columns) to resample, got {values.shape}")
    columns = list(values.T if isinstance(values, np.ndarray) else values)
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise UsageError(f"expected columns of the same samples to resample, at least one, got shapes {sorted(shapes)}")
    return columns


def interval(samples: NDArray[np.floating], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (low, high) of the finite samples; (nan, nan) where none is finite.

    Args:
        samples: Bootstrap draws of one quantity (draws,).
        level: Share of the draws that the interval holds.

    Raises:
        UsageError: If `level` is not between 0 and 1.
    """
    tails = tails_of(level)
    draws = np.asarray(samples, dtype=np.float64)
    draws = draws[np.isfinite(draws)]
    if draws.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


def tails_of(level: float) -> tuple[float, float]:
    """Return the two quantiles between which an interval of this level lies."""
    if not 0.0 < level < 1.0:
        raise UsageError(f"expected the level of an interval between 0 and 1, got {level}")
    return (1.0 - level) / 2.0, (1.0 + level) / 2.0
