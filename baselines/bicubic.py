"""Bicubic with a = -0.5, antialiased when it shrinks; exact to MATLAB's imresize where the protocol mirrors borders."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo
from srbench.protocol import Protocol


class Bicubic(Method):
    """Keys' cubic with a = -0.5."""

    info = MethodInfo(
        role="baseline",
        family="interpolation",
        version="1",
        citation="Keys 1981, doi:10.1109/TASSP.1981.1163711",
    )

    def __init__(self) -> None:
        """Start with the border that torch itself has."""
        super().__init__()
        self.border = "clamp"

    def prepare(self, protocol: Protocol) -> None:
        """Mirror the border where the LR was made so, and only there."""
        self.border = protocol.lr.border

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return resize(lr, size, "bicubic", border=self.border)
