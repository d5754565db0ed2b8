"""Exact tests of paired decisions, and their correction for many rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError


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
