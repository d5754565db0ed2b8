"""Correlations of predictions with a truth, and their paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.metrics.stats.bootstrap import BOOTSTRAP_DRAWS, resample_counts


def spearman(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation along the last axis of x and y, nan where one of them is constant."""
    from scipy.stats import rankdata  # takes a second to import

    a, b = rankdata(x, axis=-1), rankdata(y, axis=-1)
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(axis=-1) / np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1)))


def kendall(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    """Kendall's tau-b along the last axis of x and y, nan where one of them is constant."""
    from scipy.stats import kendalltau  # takes a second to import

    rows = zip(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), strict=True)
    # The p value is not used; the asymptotic one costs nothing.
    taus = [kendalltau(first, second, method="asymptotic").statistic for first, second in rows]
    return np.array(taus, dtype=np.float64).reshape(x.shape[:-1])


@dataclass(frozen=True)
class CorrelationBootstrap:
    """Resampled correlations of several predictions with one truth, nan where a draw has no variation.

    Attributes:
        plcc: Pearson's, of the values (draws, m).
        srcc: Spearman's, of the ranks within each draw, ties sharing their mean (draws, m).
    """

    plcc: NDArray[np.float64]
    srcc: NDArray[np.float64]


def correlations(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[float, float]:
    """Correlations of predictions (n,) with the truth (n,): Pearson's (PLCC), Spearman's (SRCC); nan without variation.

    Raises:
        UsageError: If the shapes differ or there is no sample.
    """
    once = _correlated(np.asarray(predicted)[:, None], np.asarray(truth), [np.ones((1, len(truth)))], draws=1)
    return float(once.plcc[0, 0]), float(once.srcc[0, 0])


def bootstrap_correlations(
    predicted: NDArray[np.floating], truth: NDArray[np.floating], *, draws: int = BOOTSTRAP_DRAWS, seed: int
) -> CorrelationBootstrap:
    """Resample the correlations of predictions with the truth, paired across the predictions.

    Args:
        predicted: One row per sample, one column per method (n, m).
        truth: What they predict (n,).
        draws: Number of draws.
        seed: Seed of the draws, those of `bootstrap_means` for the same n.

    Raises:
        UsageError: If the shapes do not fit, or there is no sample.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    return _correlated(predicted, truth, resample_counts(max(len(truth), 1), draws, seed=seed), draws=draws)


def _correlated(
    predicted: NDArray[np.floating],
    truth: NDArray[np.floating],
    counts: Iterable[NDArray[np.float64]],
    *,
    draws: int,
) -> CorrelationBootstrap:
    """Correlations under each row of counts, which say how often each sample occurs."""
    if predicted.ndim != 2 or truth.ndim != 1 or len(predicted) != len(truth) or not len(truth):
        raise UsageError(
            "expected predictions (n, methods) and their truth (n,) for the same samples, at least one, got shapes"
            f" {predicted.shape} and {truth.shape}"
        )
    drawn = CorrelationBootstrap(*(np.empty((draws, predicted.shape[1])) for _ in range(2)))
    done = 0
    for block in counts:
        rows = slice(done, done + len(block))
        ranks = _midranks(truth, block)
        for column, values in enumerate(predicted.T):
            drawn.plcc[rows, column] = _pearson(values[None], truth[None], block)
            drawn.srcc[rows, column] = _pearson(_midranks(values, block), ranks, block)
        done += len(block)
    return drawn


def _midranks(values: NDArray[np.floating], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each sample (draws, n) among those that each draw holds, equal values sharing their mean rank."""
    order = np.argsort(values, kind="stable")
    _, starts, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    held = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = held.cumsum(axis=1) - (held - 1) / 2
    by_sample = np.empty(counts.shape)
    by_sample[:, order] = ranks[:, inverse.reshape(-1)]
    return by_sample


def _pearson(x: NDArray[np.floating], y: NDArray[np.floating], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of each draw (draws,); x and y are (draws or 1, n)."""
    n = counts.sum(axis=1, keepdims=True)
    dx = x - (counts * x).sum(axis=1, keepdims=True) / n
    dy = y - (counts * y).sum(axis=1, keepdims=True) / n
    both = (counts * dx * dy).sum(axis=1)
    spread = np.sqrt((counts * dx**2).sum(axis=1) * (counts * dy**2).sum(axis=1))
    missing = np.full_like(both, math.nan)
    # A constant leaves a spread of rounding errors, never quite zero.
    scale = np.abs(x).max(initial=0.0) * np.abs(y).max(initial=0.0) * n[:, 0]
    return np.divide(both, spread, out=missing, where=spread > 1e-12 * scale).clip(-1.0, 1.0)
