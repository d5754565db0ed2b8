"""Bicubic as Pillow computes it on 8 bits."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import pillow_bicubic
from srbench.method import Method, MethodInfo


class BicubicPillow(Method):
    """Pillow's BICUBIC on 8 bits, which clamps and rounds between its two passes."""

    info = MethodInfo(
        role="baseline",
        family="interpolation",
        version="1",
        citation="Pillow Image.resize, Resampling.BICUBIC",
    )

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return pillow_bicubic(lr, size)
