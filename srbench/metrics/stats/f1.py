"""The paired bootstrap of F1, macro and by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.metrics.stats.bootstrap import BOOTSTRAP_DRAWS, resample_counts, tails_of

# Values of F1 draws kept at a time; 4 bytes each.
_F1_VALUES = 2**26


@dataclass(frozen=True)
class F1Bootstrap:
    """Resampled F1 scores of several methods on the same samples.

    Attributes:
        classes: Class indices that occur in the labels (C,), ascending; the order of the last axis below.
        macro: Macro F1 of each draw and method (draws, m).
        delta_low: Reference column -> lower ends (m, C) of the intervals of F1 minus the reference's F1.
        delta_high: Reference column -> upper ends (m, C).
    """

    classes: NDArray[np.int64]
    macro: NDArray[np.float64]
    delta_low: Mapping[int, NDArray[np.float64]]
    delta_high: Mapping[int, NDArray[np.float64]]


def bootstrap_f1(
    labels: NDArray[np.integer],
    predictions: NDArray[np.integer],
    *,
    references: Sequence[int] = (),
    draws: int = BOOTSTRAP_DRAWS,
    seed: int,
    level: float = 0.95,
) -> F1Bootstrap:
    """Resample macro F1, and the per-class F1 differences against reference methods, paired.

    A class that a draw has no label of is left out of that draw: of its macro F1 and of the class's interval.

    Args:
        labels: True class indices (n,).
        predictions: Predicted class indices (n, m), one column per method.
        references: Columns of `predictions` that per-class differences are taken against.
        draws: Number of draws.
        seed: Seed of the draws, those of `bootstrap_means` for the same n.
        level: Share of the draws in an interval.

    Raises:
        UsageError: If the shapes do not fit, there is no sample, or a reference is not a column.
    """
    truth = np.asarray(labels, dtype=np.int64)
    guesses = np.asarray(predictions)
    if truth.ndim != 1 or guesses.ndim != 2 or len(truth) != len(guesses) or len(truth) == 0:
        raise UsageError(
            "expected labels (n,) and predictions (n, methods) of the same samples, at least one, "
            f"got shapes {truth.shape} and {guesses.shape}"
        )
    methods = guesses.shape[1]
    outside = [column for column in references if not 0 <= column < methods]
    if outside:
        raise UsageError(f"expected reference columns from 0 to {methods - 1}, got {outside}")
    tails = tails_of(level)
    classes = np.unique(truth)
    truth_row = _rows_of_classes(truth, classes)
    columns = np.column_stack([_rows_of_classes(guess, classes) for guess in guesses.T])

    chosen = list(dict.fromkeys(references))
    order = [*chosen, *(column for column in range(methods) if column not in chosen)]
    macro = np.empty((draws, methods))
    low = {column: np.empty((methods, len(classes))) for column in chosen}
    high = {column: np.empty((methods, len(classes))) for column in chosen}
    # The references stand in the first group, so that nothing is drawn for them alone.
    step = max(1, len(chosen), _F1_VALUES // (draws * len(classes)))
    against = np.empty((0, len(classes), draws), dtype=np.float32)
    for start in range(0, methods, step):
        group = order[start : start + step]
        scores = _f1_draws(truth_row, columns[:, group], len(classes), draws, seed)
        if start == 0:
            against = scores[: len(chosen)].copy()
            # Which classes a draw has no label of is the same for all methods.
            kept = draws - np.isnan(scores[0]).sum(axis=1)
        for method, f1 in zip(group, scores, strict=True):
            mean = np.mean if kept.min() == draws else np.nanmean
            macro[:, method] = mean(f1, axis=0, dtype=np.float64)
            for column, base in zip(chosen, against, strict=True):
                low[column][method], high[column][method] = _row_quantiles(f1 - base, kept, tails)
    return F1Bootstrap(classes=classes, macro=macro, delta_low=low, delta_high=high)


def _rows_of_classes(indices: NDArray[np.integer], classes: NDArray[np.int64]) -> NDArray[np.int32]:
    """Position of each class index (n,) among the classes, or their number where it is none of them."""
    position = np.minimum(np.searchsorted(classes, indices), len(classes) - 1)
    return np.where(classes[position] == indices, position, len(classes)).astype(np.int32)


def _f1_draws(
    truth: NDArray[np.int32], columns: NDArray[np.int32], n_classes: int, draws: int, seed: int
) -> NDArray[np.float32]:
    """Per-class F1 (methods, classes, draws), nan where a draw has no label of the class."""
    from scipy.sparse import csr_array, vstack

    n, methods = columns.shape
    scores = np.empty((methods, n_classes, draws), dtype=np.float32)
    if methods == 0:
        return scores
    samples = np.arange(n, dtype=np.int32)
    # Counts up to 2n are exact in it, so that the quotients are those of float64, rounded.
    exact = np.float32 if n < 2**22 else np.float64

    def indicator(classes: NDArray[np.int32], kept: NDArray[np.bool_]) -> csr_array:
        ones = np.ones(int(kept.sum()), dtype=exact)
        return csr_array((ones, (classes[kept], samples[kept])), shape=(n_classes, n))

    support_of = indicator(truth, np.ones(n, dtype=bool))
    right = columns == truth[:, None]
    wrong = ~right & (columns < n_classes)
    # One product per block for hits and one for false alarms of all methods.
    hits_of = vstack([indicator(truth, right[:, m]) for m in range(methods)], format="csr")
    alarms_of = vstack([indicator(columns[:, m], wrong[:, m]) for m in range(methods)], format="csr")
    done = 0
    for counts in resample_counts(n, draws, seed=seed, values_per_draw=methods * n_classes):
        by_sample = np.ascontiguousarray(counts.T, dtype=exact)
        block = len(counts)
        support = support_of @ by_sample
        # nan marks what the draw says nothing about.
        support[support == 0] = math.nan
        hits = (hits_of @ by_sample).reshape(methods, n_classes, block)
        denominator = (alarms_of @ by_sample).reshape(methods, n_classes, block)
        denominator += hits
        denominator += support
        hits *= 2
        np.divide(hits, denominator, out=scores[:, :, done : done + block], casting="same_kind")
        done += block
    return scores


def _row_quantiles(
    rows: NDArray[np.float32], kept: NDArray[np.integer], tails: tuple[float, float]
) -> NDArray[np.float64]:
    """Quantiles (2, C) of each row of (C, draws) over its `kept` values that are not nan; sorts the rows in place."""
    rows.sort(axis=1)  # nan goes last
    last = np.maximum(kept - 1, 0)
    places = np.asarray(tails)[:, None] * last
    below = places.astype(np.intp)
    row = np.arange(len(rows))
    before, after = rows[row, below], rows[row, np.minimum(below + 1, last)]
    share = places - below
    # From the nearer end, as numpy interpolates.
    return np.where(share < 0.5, before + (after - before) * share, after - (after - before) * (1 - share))
