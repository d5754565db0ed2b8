"""Whether an accuracy could be that of guessing."""

from __future__ import annotations

LEVEL_OF_CHANCE = 0.025  # one side of a 95 % interval


def chance_level(support: list[int], outputs: int) -> float:
    """Return the accuracy of the best answer that does not look at the image.

    Args:
        support: Number of samples of each class.
        outputs: Number of classes that compete.
    """
    guess = 1.0 / max(outputs, 1)
    return guess if outputs > len(support) or not support else max(guess, max(support) / sum(support))


def is_at_chance(accuracy: float, n: int, chance: float) -> bool:
    """Say whether so many right answers of n are no more than guessing gives: an exact one-sided binomial test."""
    right = round(accuracy * n)
    if right == 0:
        return True
    if chance >= 1:
        return True
    from scipy.special import betainc  # P(X >= k) of n throws is I_chance(k, n - k + 1)

    return float(betainc(right, n - right + 1, chance)) > LEVEL_OF_CHANCE
