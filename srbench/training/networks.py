"""What several methods do with networks: freeze them, name them in files, start them as bilinear; a discriminator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """Switch the gradients of a network's parameters off; gradients still flow through it to its input."""
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield network
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def name_as_inside(module: nn.Module, child: str) -> None:
    """Leave the name of a child out of the state dict's keys, so that a file has the keys of the child's own library.

    Args:
        module: Whose state dict it is, both written and read.
        child: Name of the attribute that holds the network.
    """
    inner = child + "."

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for key in [key for key in state if key.startswith(prefix + inner)]:
            state[prefix + key.removeprefix(prefix + inner)] = state.pop(key)

    def add(module: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
        for key in [f"{prefix}{name}" for name in getattr(module, child).state_dict()]:
            if key in state:
                state[prefix + inner + key.removeprefix(prefix)] = state.pop(key)

    module.register_state_dict_post_hook(drop)
    module.register_load_state_dict_pre_hook(add)


@torch.no_grad()
def start_as_bilinear(layers: nn.Sequential) -> None:
    """Change the first values of an RRDB network, in spandrel's layout, so that it starts as bilinear enlargement.

    RRDB has no path from the image to the output; from random values it spends its first thousands of steps on
    learning to copy. Here three channels carry the image through: the first and the last two convolutions hand them
    on, and after each doubling by nearest neighbour a convolution smooths them by (1, 2, 1) / 4 in both directions,
    which makes it bilinear (away from the zeros around the image). Every other channel adds nothing yet, and learns
    from the first step on. Below three channels nothing is changed.

    Args:
        layers: The network's `model`: convolution, trunk, doublings, two convolutions.
    """
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first, *doublings, inner, last = convolutions
    if first.out_channels < 3 or first.in_channels != 3:
        return
    identity = torch.eye(3)[:, :, None, None]
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    for convolution in (first, inner, last):
        _carry(convolution, F.pad(identity, (1,) * 4))
    for convolution in doublings:
        _carry(convolution, identity * torch.outer(taps, taps))
    # What the trunk's last convolution gives is added to the carried image.
    last_of_trunk = [layer for layer in layers[1].modules() if isinstance(layer, nn.Conv2d)][-1]
    last_of_trunk.weight[:3] = 0.0
    assert last_of_trunk.bias is not None
    last_of_trunk.bias[:3] = 0.0


@torch.no_grad()
def start_sub_pixel_as_bilinear(
    first: nn.Conv2d,
    fused: nn.Conv2d | nn.BatchNorm2d,
    shuffled: Sequence[tuple[nn.Conv2d, int]],
    last: nn.Conv2d | None,
) -> None:
    """Change the first values of a network with sub-pixel convolutions, so that it starts as bilinear enlargement.

    Such a network is shallow features, plus what a trunk makes of them, then convolutions whose channels are shuffled
    to pixels. As in `start_as_bilinear` the first channels, as many as the image has, carry it through; each
    convolution before a shuffle gives its channels the bilinear weights of the sub-pixel that it becomes (away from the
    zeros around the image). Every other channel adds nothing yet, and learns from the first step on. Where there are
    fewer features than channels of the image nothing is changed.

    Args:
        first: From the image to the shallow features; what follows must hand positive values on.
        fused: The trunk's last layer, whose output is added to the shallow features.
        shuffled: The convolutions before each shuffle, with the factor of that shuffle.
        last: From the features at SR size to the image, or None where the last shuffle gives it.
    """
    channels = first.in_channels
    if first.out_channels < channels:
        return
    identity = torch.eye(channels)[:, :, None, None]
    for convolution in (first, last):
        if convolution is not None:
            middle = convolution.kernel_size[0] // 2
            _carry(convolution, F.pad(identity, (middle,) * 4))
    for convolution, factor in shuffled:
        _carry(convolution, torch.einsum("oc,pyx->opcyx", torch.eye(channels), _bilinear_taps(factor)).flatten(0, 1))
    assert fused.bias is not None
    fused.weight[:channels] = 0.0
    fused.bias[:channels] = 0.0


def _carry(convolution: nn.Conv2d, kernels: Tensor) -> None:
    """Give the first rows these kernels `(rows, channels, k, k)` of the first channels, and nothing of the others."""
    rows, channels = kernels.shape[:2]
    convolution.weight[:rows] = 0.0
    convolution.weight[:rows, :channels] = kernels.to(convolution.weight)
    assert convolution.bias is not None
    convolution.bias[:rows] = 0.0


def _bilinear_taps(factor: int) -> Tensor:
    """Return the weights of a pixel's 3 x 3 neighbourhood for each of its sub-pixels, `(factor ** 2, 3, 3)`."""
    offset = (torch.arange(factor) + 0.5) / factor - 0.5
    taps = torch.stack([(-offset).clamp_min(0), 1 - offset.abs(), offset.clamp_min(0)], dim=1)
    return torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)


class Discriminator(nn.Module):
    """Tells HR from SR; convolutional as SRGAN's, for images of any size from 2**stages pixels on.

    `srbench.training.trainable.Trainable` builds one where a recipe has the term "adversarial", and plays against it.
    """

    def __init__(self, *, channels: int = 3, features: int = 64, stages: int = 4, per_patch: bool = False) -> None:
        """Build it.

        Args:
            channels: Channels of the images.
            features: Filters of the first layer; they double with each stage, up to eight times as many.
            stages: Halvings of the image.
            per_patch: Return one score for every position of the last feature map instead of one for every image.
        """
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1), nn.LeakyReLU(0.2)]
        width = features
        for stage in range(stages):
            wider = features * min(2 ** (stage + 1), 8)
            layers += [*_normed(width, width, stride=2), *_normed(width, wider, stride=1)]
            width = wider
        self.body = nn.Sequential(*layers)
        self.head: nn.Module = (
            nn.Conv2d(width, 1, 3, padding=1)
            if per_patch
            else nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
        )
        self.per_patch = per_patch

    def forward(self, image: Tensor) -> Tensor:
        """Return raw scores, `(N, 1)` or `(N, 1, h, w)`, of images `(N, C, H, W)`, RGB, float, [0, 1]."""
        maps = self.body(image * 2 - 1)
        # The mean over positions is what lets a linear head take images of any size.
        return self.head(maps if self.per_patch else F.adaptive_avg_pool2d(maps, 1).flatten(1))


def _normed(width: int, wider: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(width, wider, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
