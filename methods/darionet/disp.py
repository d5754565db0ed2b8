"""DISP: a residual network at the size of LR with one pixel shuffle at its end, of 0.16 M parameters.

Published for the efficient super-resolution challenge of NTIRE 2026 (team 18) under the MIT licence; what is here was
written from a description of the architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

_CONVOLUTIONS = 4  # in a residual block
_PUBLISHED = {  # the published names, whose reparametrised branches are merged into `eval_conv`, and those here
    r"conv_1\.eval_conv\.(\w+)": r"first.\1",
    r"blocks\.(\d+)\.c1_r\.eval_conv\.(\w+)": r"blocks.\1.convolutions.0.\2",
    r"blocks\.(\d+)\.c2_r\.eval_conv\.(\w+)": r"blocks.\1.convolutions.1.\2",
    r"blocks\.(\d+)\._extern_conv_block\.0\.eval_conv\.(\w+)": r"blocks.\1.convolutions.2.\2",
    r"blocks\.(\d+)\.c3_r\.eval_conv\.(\w+)": r"blocks.\1.convolutions.3.\2",
    r"conv_2\.(\w+)": r"fused.\1",
    r"upsampler\.0\.(\w+)": r"shuffled.\1",
}


class Disp(nn.Module):
    """Maps RGB images to RGB images of a multiple of their size."""

    def __init__(self, *, blocks: int = 4, features: int = 32, factor: int = 4) -> None:
        """Build it with random values.

        Args:
            blocks: Residual blocks.
            features: Channels between the first and the last convolution.
            factor: Enlargement.
        """
        super().__init__()
        self.factor = factor
        self.first = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(features) for _ in range(blocks)))
        self.fused = nn.Conv2d(features, features, 1)
        self.shuffled = nn.Conv2d(features, 3 * factor**2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Enlarge `(N, 3, h, w)`, RGB, float, [0, 1]."""
        shallow = self.first(image)
        return F.pixel_shuffle(self.shuffled(shallow + self.fused(self.blocks(shallow))), self.factor)


class _Block(nn.Module):
    """Four convolutions, a SiLU after each, and the block's input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(_CONVOLUTIONS))

    def forward(self, given: Tensor) -> Tensor:
        value = given
        for convolution in self.convolutions:
            value = F.silu(convolution(value))
        return given + value


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the published names replaced by those of `Disp`; other names stay."""
    return {_own_name(name): value for name, value in state.items()}


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, int] | None:
    """Return the constructor arguments of the `Disp` whose state dict this is, or None if it is of another network."""
    first, shuffled = state.get("first.weight"), state.get("shuffled.weight")
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.") and ".convolutions." in name}
    if first is None or shuffled is None or first.ndim != 4 or not blocks:
        return None
    return {"blocks": len(blocks), "features": first.shape[0], "factor": round((shuffled.shape[0] / 3) ** 0.5)}


def _own_name(name: str) -> str:
    for published, own in _PUBLISHED.items():
        found = re.fullmatch(published, name)
        if found:
            return found.expand(own)
    return name
