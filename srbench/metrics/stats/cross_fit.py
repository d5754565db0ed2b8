"""A choice that is scored on samples which did not help to make it: two halves, each chooses for the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CrossFitted:
    """The best of several settings by two halves of the samples.

    Attributes:
        best: The setting that is best on the first half and the one that is best on the second.
        right: Whether each sample is right `(n,)`, under the setting that is best on the other half.
    """

    best: tuple[int, int]
    right: NDArray[np.bool_]


def second_half(sample_ids: Iterable[str]) -> NDArray[np.bool_]:
    """Say for each sample whether it is in the second half: by the last bit of its id's sha256, in whatever order."""
    return np.array([hashlib.sha256(sample_id.encode()).digest()[-1] & 1 for sample_id in sample_ids], dtype=bool)


def cross_fitted(
    right: Mapping[int, NDArray[np.bool_]], second: NDArray[np.bool_], *, usual: int | None = None
) -> CrossFitted | None:
    """Choose the setting with the most right samples on each half, ties to the smaller, and score it on the other.

    Args:
        right: Whether each sample is right `(n,)`, by setting.
        second: Whether each sample is in the second half `(n,)`.
        usual: The setting that stays where the lead of the best over it is within one standard error of the paired
            difference (Breiman et al. 1984, the rule of one standard error); None compares settings as equals.

    Returns:
        The two choices and what they make of the samples, or None where a half is empty.
    """
    halves = (~second, second)
    if not all(half.any() for half in halves):
        return None
    first_best, second_best = (_best(right, half, usual) for half in halves)
    return CrossFitted((first_best, second_best), np.where(second, right[first_best], right[second_best]))


def _best(right: Mapping[int, NDArray[np.bool_]], half: NDArray[np.bool_], usual: int | None) -> int:
    best = min(right, key=lambda setting: (-int(right[setting][half].sum()), setting))
    if usual is None or best == usual:
        return best
    lead = right[best][half].astype(np.float64) - right[usual][half]
    return best if lead.mean() > lead.std() / math.sqrt(len(lead)) else usual
