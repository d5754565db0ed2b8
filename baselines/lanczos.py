"""Lanczos-3: a windowed sinc of three lobes."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo


class Lanczos(Method):
    """Lanczos-3, widened when it shrinks, as Pillow's LANCZOS in floating point."""

    info = MethodInfo(
        role="baseline",
        family="interpolation",
        version="1",
        citation="Duchon 1979, doi:10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2",
    )

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return resize(lr, size, "lanczos")
