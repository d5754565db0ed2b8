"""Which difference between two methods a number of images can show."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError

SIGNIFICANCE = 0.05
POWER = 0.8
_TAIL = 6.0  # standard deviations of the number of discordant samples that are looked at
_STEPS = 12  # of the bisection: a 4000th of where it begins


@lru_cache(maxsize=256)
def smallest_difference(
    n: int, discordance: float, *, significance: float = SIGNIFICANCE, power: float = POWER
) -> float | None:
    """Return the smallest difference of two accuracies that the exact McNemar test would find with this power.

    Args:
        n: Number of samples that both methods saw.
        discordance: Share of them that exactly one of the two gets right. A difference cannot be larger than that, so
            where it would have to be, the share is taken to be the difference itself.
        significance: Level of the two-sided test.
        power: Share of all data sets of this size in which the test is to find it.

    Returns:
        The difference, in (0, 1]; None where n is too small for any.

    Raises:
        UsageError: If a share is not between 0 and 1, or n is below one.
    """
    if n < 1 or not 0.0 <= discordance <= 1.0 or not 0.0 < significance < 1.0 or not 0.0 < power < 1.0:
        raise UsageError(
            f"expected at least one sample and shares between 0 and 1, got n = {n}, discordance {discordance},"
            f" significance {significance}, power {power}"
        )
    if mcnemar_power(n, 1.0, 1.0, significance=significance) < power:
        return None
    low, high = 0.0, min(1.0, (discordance / n) ** 0.5 + 1.0 / n)
    while mcnemar_power(n, high, max(high, discordance), significance=significance) < power:
        low, high = high, min(1.0, 2.0 * high)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if mcnemar_power(n, middle, max(middle, discordance), significance=significance) < power:
            low = middle
        else:
            high = middle
    return high


def mcnemar_power(n: int, difference: float, discordance: float, *, significance: float = SIGNIFICANCE) -> float:
    """Return how often the exact two-sided McNemar test finds a difference of two accuracies.

    Args:
        n: Number of samples.
        difference: True difference of the accuracies, not above `discordance`.
        discordance: Share of the samples that exactly one of the two gets right.
        significance: Level of the test.
    """
    from scipy.special import bdtr, bdtrc  # scipy.stats takes a second to import

    if discordance <= 0.0:
        return 0.0
    spread = _TAIL * np.sqrt(n * discordance * (1.0 - discordance)) + 1.0
    low, high = max(0, int(n * discordance - spread)), min(n, int(np.ceil(n * discordance + spread)))
    discordant = np.arange(low, high + 1)
    most = _most_of_the_fewer(discordant, significance)
    tested = most >= 0
    discordant, most = discordant[tested], most[tested]
    better = (1.0 + min(difference / discordance, 1.0)) / 2.0
    # The test rejects where the fewer ones are at most `most`, on either side.
    found = bdtr(most, discordant, better) + bdtrc(discordant - most - 1, discordant, better)
    return float((_binomial(discordant, n, discordance) * found).sum())


def _most_of_the_fewer(discordant: NDArray[np.int64], significance: float) -> NDArray[np.int64]:
    """Return the largest count of the rarer outcome that is still significant, -1 where none is."""
    from scipy.special import bdtr, bdtrik

    most = np.full(discordant.shape, -1, dtype=np.int64)
    some = 2.0 * 0.5 ** discordant.astype(np.float64) <= significance
    if some.any():
        m = discordant[some]
        k = np.floor(bdtrik(significance / 2.0, m, 0.5)).astype(np.int64)
        # the inverse may miss a whole number by its last digit
        k += bdtr(k + 1, m, 0.5) * 2.0 <= significance
        k -= bdtr(k, m, 0.5) * 2.0 > significance
        most[some] = k
    return most


def _binomial(k: NDArray[np.int64], n: int, p: float) -> NDArray[np.float64]:
    from scipy.special import gammaln, xlog1py, xlogy

    logs = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p)
    return np.asarray(np.exp(logs), dtype=np.float64)
