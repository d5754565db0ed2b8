"""Which sizes of LR a graph takes: one, or a range."""

from __future__ import annotations

import re
from dataclasses import dataclass

from srbench.errors import UsageError

_MOST = 4096  # pixels a side


@dataclass(frozen=True)
class LrSize:
    """The LR sizes of a graph, (height, width) in pixels.

    Attributes:
        low: The smallest.
        high: The largest; equal to `low` where the graph takes one size.
    """

    low: tuple[int, int]
    high: tuple[int, int]

    @property
    def fixed(self) -> bool:
        """Whether the graph takes one size."""
        return self.low == self.high

    @property
    def examples(self) -> list[tuple[int, int]]:
        """Sizes to try the graph on: the one it takes, or both ends of the range and one that is not square."""
        if self.fixed:
            return [self.low]
        return list(dict.fromkeys([self.low, self.high, (self.low[0], self.high[1])]))

    def __str__(self) -> str:
        """Return it as `--lr-size` takes it."""
        if not self.fixed:
            return f"{self.low[0]}-{self.high[0]}"
        height, width = self.low
        return str(height) if height == width else f"{height}x{width}"


def parse_lr_size(text: str) -> LrSize:
    """Return the sizes of `81`, `56x84` (height x width) or `64-128` (each side in that range, on its own).

    Raises:
        UsageError: If it is none of these.
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5})|-(\d{1,5}))?", text.strip())
    numbers = [int(number) for number in match.groups() if number is not None] if match is not None else []
    if match is None or min(numbers) < 1 or max(numbers) > _MOST or (match[3] is not None and numbers[1] <= numbers[0]):
        raise UsageError(
            "--lr-size takes the size of LR in pixels, H, HxW or LOW-HIGH, such as 81, 56x84 or 64-128, at most"
            f" {_MOST} a side; got {text!r}"
        )
    first, last = numbers[0], numbers[-1]
    return LrSize((first, first), (last, last)) if match[3] is not None else LrSize((first, last), (first, last))
