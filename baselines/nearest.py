"""Nearest neighbour: every pixel becomes a block."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo


class Nearest(Method):
    """Copies the nearest pixel, pixel centres aligned."""

    info = MethodInfo(
        role="baseline",
        family="interpolation",
        version="1",
        citation="torch interpolate, mode nearest-exact",
    )

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return resize(lr, size, "nearest")
