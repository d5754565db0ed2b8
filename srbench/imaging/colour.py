"""One grey: how images of three channels become one channel, and one channel three.

Luma as a metric is no grey of this kind: `srbench.metrics.to_y` is BT.601 in its limited range, as papers report it.
"""

from __future__ import annotations

from torch import Tensor


def to_channels(image: Tensor, channels: int) -> Tensor:
    """Return `(N, channels, H, W)` of `(N, 1 or 3, H, W)`, RGB or grey, any float range.

    Grey is repeated. RGB becomes the mean over its channels, the grey image that is nearest to it. The mean of three
    equal channels is that channel to the last bit, so that grey images lose nothing on the way.
    """
    if image.shape[1] == channels:
        return image
    if channels == 1:
        red, green, blue = image[:, :1], image[:, 1:2], image[:, 2:]
        return red + ((green - red) + (blue - red)) / 3
    return image.repeat(1, channels, 1, 1)
