"""What is drawn for an image: from its id and the seed where a table is made, from the global generator in training."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Draws:
    """Random numbers of one image and one purpose, always in the same order for the same id and seed."""

    def __init__(self, sample_id: str | None, seed: int = 0, purpose: str = "") -> None:
        """Seed the generator.

        Args:
            sample_id: Id of the image; None draws from the global generator.
            seed: Seed of the run.
            purpose: Separates the streams of one image.
        """
        self._generator: torch.Generator | None = None
        if sample_id is not None:
            text = f"{seed}|{sample_id}" + (f"|{purpose}" if purpose else "")
            digest = hashlib.sha256(text.encode()).digest()
            self._generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def normal(self, like: Tensor) -> Tensor:
        """Return numbers from a normal distribution, of the shape, dtype and device of `like`."""
        if self._generator is None:
            return torch.randn_like(like)
        return torch.randn(like.shape, generator=self._generator).to(like)

    def poisson(self, rates: Tensor) -> Tensor:
        """Return counts from Poisson distributions of these rates, of their dtype and device."""
        return torch.poisson(rates.float().cpu(), generator=self._generator).to(rates)

    def uniform(self, low: float, high: float) -> float:
        """Return a number between two."""
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return min(int(self.uniform(low, high + 1)), high)

    def happens(self, probability: float) -> bool:
        """Return true with this probability."""
        return self.uniform(0, 1) < probability

    def choice(self, shares: dict[str, float]) -> str:
        """Return one of the names, each with its share of all."""
        at = self.uniform(0, sum(shares.values()))
        for name, share in shares.items():
            at -= share
            if at < 0:
                return name
        return name
