"""The share of what bilinear loses that a method wins back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.metrics.stats.bootstrap import interval

# Below this distance between the original and bilinear, the share of it that a method recovers is noise.
MINIMUM_GAP = 0.02


@dataclass(frozen=True)
class RecoveredGap:
    """Share of the accuracy lost by bilinear that a method wins back.

    Attributes:
        value: 0 is no better than bilinear, 1 as good as the original; None where the gap is too small to divide by.
        low: Lower end of its interval, None with the value.
        high: Upper end of its interval, None with the value.
        reason: Why there is no value, None where there is one.
        draws: Draws of the share, nan where a draw has no gap; None with the value.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str | None
    draws: NDArray[np.float64] | None = None


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
        draws_hr: The same draws on the originals; draws in which these are not above bilinear are left out.
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
    # A draw in which the original is not above bilinear has no gap: its share has the wrong sign or is infinite.
    has_gap = hr > bilinear
    share = np.divide(own - bilinear, hr - bilinear, out=np.full_like(own, np.nan), where=has_gap)
    low, high = interval(share, level)
    value = recovered_gap(acc, acc_bilinear, acc_hr)
    return RecoveredGap(value=value, low=low, high=high, reason=None, draws=share)
