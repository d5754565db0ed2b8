"""Bicubic with a = -0.75 and no antialias, as OpenCV's INTER_CUBIC."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo


class BicubicOpenCV(Method):
    """Keys' cubic with a = -0.75, never widened."""

    info = MethodInfo(
        role="baseline",
        family="interpolation",
        version="1",
        citation="Keys 1981, doi:10.1109/TASSP.1981.1163711; OpenCV INTER_CUBIC",
    )

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return resize(lr, size, "bicubic", antialias=False)
