"""Area averaging: every output pixel is the mean of the input pixels it covers."""

from __future__ import annotations

from torch import Tensor

from srbench.imaging.resample import resize
from srbench.method import Method, MethodInfo


class Area(Method):
    """Adaptive average pooling; enlarging, it repeats and averages neighbours."""

    info = MethodInfo(role="baseline", family="interpolation", version="1", citation="torch interpolate, mode area")

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(N, C, h, w)`, RGB, float, [0, 1], to `size`."""
        return resize(lr, size, "area")
