"""Bilinear interpolation: the reference that every accuracy difference is taken against."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo


class Bilinear(Method):
    """Linear interpolation in both directions; widened when it shrinks."""

    info = MethodInfo(role="baseline", family="interpolation", version="1", citation="torch interpolate, antialias")

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return resize(lr, size, "bilinear")
