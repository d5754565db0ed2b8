"""How sure a difference between two methods is: paired bootstrap, exact McNemar, Holm, recovered gap.

Every resampling of one table uses the same seed and so the same draws: the images are resampled, all methods
see the same ones, and a difference of two columns of draws is a paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError

BOOTSTRAP_DRAWS = 2000
LEVEL = 0.95  # of every interval of a table

# Below this distance between the original and bilinear, the share of it that a method recovers is noise.
MINIMUM_GAP = 0.02

# Values of one block of counts; 8 bytes each.
_BLOCK_VALUES = 2**20
# Samples of a table that are brought to float64 at a time.
_SLICE = 2**14
# Values of F1 draws kept at a time; 4 bytes each.
_F1_VALUES = 2**26


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
    partial = np.array([at for at, column in enumerate(columns) if not np.isfinite(column).all()], dtype=np.intp)
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
    for at in partial:
        if not np.isfinite(columns[at]).any() and np.isposinf(columns[at]).any():
            means[:, at] = math.inf
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
    found = CorrelationBootstrap(*(np.empty((draws, predicted.shape[1])) for _ in range(2)))
    done = 0
    for block in counts:
        rows = slice(done, done + len(block))
        ranks = _midranks(truth, block)
        for column, values in enumerate(predicted.T):
            found.plcc[rows, column] = _pearson(values[None], truth[None], block)
            found.srcc[rows, column] = _pearson(_midranks(values, block), ranks, block)
        done += len(block)
    return found


def _midranks(values: NDArray[np.floating], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank of each sample (draws, n) among those that each draw holds, equal values sharing their mean rank."""
    order = np.argsort(values, kind="stable")
    _, starts, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    held = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = held.cumsum(axis=1) - (held - 1) / 2
    found = np.empty(counts.shape)
    found[:, order] = ranks[:, inverse.reshape(-1)]
    return found


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


def interval(samples: NDArray[np.floating], level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (low, high) of the finite samples; (nan, nan) where none is finite.

    Args:
        samples: Bootstrap draws of one quantity (draws,).
        level: Share of the draws that the interval holds.

    Raises:
        UsageError: If `level` is not between 0 and 1.
    """
    tails = _tails(level)
    draws = np.asarray(samples, dtype=np.float64)
    draws = draws[np.isfinite(draws)]
    if draws.size == 0:
        return math.nan, math.nan
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


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
    tails = _tails(level)
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


def mcnemar_exact(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> float:
    """Two-sided exact McNemar p of two methods being right equally often on the same samples.

    Args:
        correct_a: Whether the first method was right (n,).
        correct_b: Whether the second method was right (n,), in the same order.

    Returns:
        The binomial p over the samples that only one of them got right; 1.0 where there is none.

    Raises:
        UsageError: If the lengths differ.
    """
    from scipy.special import betaincc  # scipy.stats has the binomial distribution, and takes a second to import

    a = np.asarray(correct_a, dtype=bool)
    b = np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise UsageError(f"McNemar's test compares the same samples, got {a.shape} and {b.shape} outcomes")
    only_a = int((a & ~b).sum())
    only_b = int((b & ~a).sum())
    if only_a == only_b:
        return 1.0
    fewer, more = sorted((only_a, only_b))
    # P(X <= k) of n throws of a fair coin is I_{1/2}(n - k, k + 1) = 1 - I_{1/2}(k + 1, n - k).
    return min(1.0, 2.0 * float(betaincc(fewer + 1, more, 0.5)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of a family of p values, in their order; None is no member and stays None.

    Raises:
        UsageError: If a value is not between 0 and 1.
    """
    members = [(p, position) for position, p in enumerate(p_values) if p is not None]
    wrong = [p for p, _ in members if not 0.0 <= p <= 1.0]
    if wrong:
        raise UsageError(f"expected p values between 0 and 1, got {wrong}")
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, position) in enumerate(sorted(members)):
        running = max(running, min(1.0, p * (len(members) - rank)))
        adjusted[position] = running
    return adjusted


@dataclass(frozen=True)
class RecoveredGap:
    """Share of the accuracy lost by bilinear that a method wins back.

    Attributes:
        value: 0 is no better than bilinear, 1 as good as the original; None where the gap is too small to divide by.
        low: Lower end of its interval, None with the value.
        high: Upper end of its interval, None with the value.
        reason: Why there is no value, None where there is one.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def recovered_gap(acc: float, acc_bilinear: float, acc_hr: float) -> float:
    """Share of the gap that is recovered: (acc - acc_bilinear) / (acc_hr - acc_bilinear).

    Args:
        acc: Accuracy of the method, in [0, 1].
        acc_bilinear: Accuracy with bilinear.
        acc_hr: Accuracy on the originals.

    Raises:
        UsageError: If there is no gap.
    """
    if acc_hr == acc_bilinear:
        raise UsageError(f"there is no gap to recover: original and bilinear both have accuracy {acc_hr}")
    return (acc - acc_bilinear) / (acc_hr - acc_bilinear)


def gap_interval(
    acc: float,
    acc_bilinear: float,
    acc_hr: float,
    *,
    draws: NDArray[np.floating],
    draws_bilinear: NDArray[np.floating],
    draws_hr: NDArray[np.floating],
    level: float = 0.95,
) -> RecoveredGap:
    """Recovered gap of one method with its interval, or the reason why it has none.

    Args:
        acc: Accuracy of the method, in [0, 1].
        acc_bilinear: Accuracy with bilinear.
        acc_hr: Accuracy on the originals.
        draws: Resampled accuracies of the method (draws,), from `bootstrap_means`.
        draws_bilinear: The same draws with bilinear.
        draws_hr: The same draws on the originals.
        level: Share of the draws in the interval.

    Raises:
        UsageError: If the draws differ in number or `level` is not between 0 and 1.
    """
    resampled = [np.asarray(each, dtype=np.float64) for each in (draws, draws_bilinear, draws_hr)]
    if len({each.shape for each in resampled}) != 1:
        raise UsageError(
            f"a recovered gap is paired: expected as many draws of each accuracy, got {[len(x) for x in resampled]}"
        )
    gap = acc_hr - acc_bilinear
    # The tolerance keeps 0.30 - 0.28, which is a little under 0.02 in binary, on the right side.
    if gap < MINIMUM_GAP - 1e-9:
        reason = f"original is only {gap:.4f} above bilinear in accuracy, under {MINIMUM_GAP}: a share is noise"
        return RecoveredGap(value=None, low=None, high=None, reason=reason)
    own, bilinear, hr = resampled
    gap_low, gap_high = interval(hr - bilinear, level)
    # Written so that an interval of no finite draw fails it too.
    if not gap_low > 0.0:
        reason = (
            f"the interval of original minus bilinear, [{gap_low:.4f}, {gap_high:.4f}], touches 0; "
            "more images would narrow it"
        )
        return RecoveredGap(value=None, low=None, high=None, reason=reason)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (own - bilinear) / (hr - bilinear)
    low, high = interval(shares, level)
    return RecoveredGap(value=recovered_gap(acc, acc_bilinear, acc_hr), low=low, high=high, reason=None)


def _tails(level: float) -> tuple[float, float]:
    if not 0.0 < level < 1.0:
        raise UsageError(f"expected the level of an interval between 0 and 1, got {level}")
    return (1.0 - level) / 2.0, (1.0 + level) / 2.0
