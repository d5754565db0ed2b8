"""RRDN: the residual-in-residual dense network of idealo's image-super-resolution, read from its own weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srbench.errors import WeightsError
from srbench.weights import WeightsFile, fill_state

_RESIDUAL_SCALE = 0.2
_FIRST, _SHUFFLED = "Pre_blocks_conv.weight", "PreShuffle.weight"


class RRDN(nn.Module):
    """RRDB with ReLU and one sub-pixel convolution; parameter names are those of idealo's layers."""

    def __init__(self, blocks: int, dense: int, layers: int, growth: int, features: int, factor: int) -> None:
        """Build an untrained network.

        Args:
            blocks: Number of outer residual blocks; T there.
            dense: Dense blocks of each; D there.
            layers: 3 x 3 convolutions of a dense block before the one that fuses them; C there.
            growth: Channels that each of them adds; G there.
            features: Channels between the blocks; G0 there.
            factor: Enlargement.
        """
        super().__init__()
        self.blocks, self.dense, self.layers, self.factor = blocks, dense, layers, factor
        self.Pre_blocks_conv = _convolution(3, features)
        for block in range(1, blocks + 1):
            for part in range(1, dense + 1):
                for layer in range(layers):
                    inputs = features + layer * growth
                    self.add_module(f"F_{block}_{part}_{layer + 1}", _convolution(inputs, growth))
                self.add_module(f"LFF_{block}_{part}", _convolution(features + layers * growth, features))
        self.post_blocks_conv = _convolution(features, features)
        self.PreShuffle = _convolution(features, 3 * factor**2)
        self.SR = _convolution(3, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge `(N, 3, h, w)`, RGB, float, [0, 1], by the factor."""
        shallow = self.Pre_blocks_conv(lr)
        features = shallow
        for block in range(1, self.blocks + 1):
            inner = features
            for part in range(1, self.dense + 1):
                inner = inner + _RESIDUAL_SCALE * self._fused(inner, block, part)
            features = features + _RESIDUAL_SCALE * inner
        features = self.post_blocks_conv(features) + shallow
        sr: Tensor = self.SR(_depth_to_space(self.PreShuffle(features), self.factor))
        return sr

    def _fused(self, known: Tensor, block: int, part: int) -> Tensor:
        for layer in range(1, self.layers + 1):
            added = torch.relu(self.get_submodule(f"F_{block}_{part}_{layer}")(known))
            known = torch.cat([known, added], dim=1)
        fused: Tensor = self.get_submodule(f"LFF_{block}_{part}")(known)
        return fused


def holds_rrdn(state: Mapping[str, Tensor]) -> bool:
    """Say whether a state dict has the layer names of idealo's RRDN."""
    return _FIRST in state and _SHUFFLED in state


def build_rrdn(loaded: WeightsFile) -> RRDN:
    """Build and fill the network of a file, whose sizes are read from its tensors.

    Raises:
        WeightsError: If parameters are missing or misshapen, or the network is none for RGB images that enlarges.
    """
    state, name = loaded.state, loaded.ref.path.name
    numbers = [found for key in state if (found := re.fullmatch(r"LFF_(\d+)_(\d+)\.weight", key))]
    first = state.get("F_1_1_1.weight")
    factor = math.isqrt(state[_SHUFFLED].shape[0] // 3)
    if first is None or not numbers or factor < 2 or state[_FIRST].shape[1] != 3:
        raise WeightsError(f"{name} has names of idealo's RRDN but no such network for RGB images; fetch it again")
    network = RRDN(
        blocks=max(int(found[1]) for found in numbers),
        dense=max(int(found[2]) for found in numbers),
        layers=sum(key.startswith("F_1_1_") and key.endswith(".weight") for key in state),
        growth=first.shape[0],
        features=state[_FIRST].shape[0],
        factor=factor,
    )
    fill_state(network, state, origin=name, expected="idealo's RRDN")
    return network


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _depth_to_space(features: Tensor, factor: int) -> Tensor:
    """Turn `(N, factor * factor * C, h, w)` to pixels; TensorFlow's channels are the last to count, not the first."""
    count, channels, height, width = features.shape
    parts = features.reshape(count, factor, factor, channels // factor**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, height * factor, width * factor)
