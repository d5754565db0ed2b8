"""RDN: the residual dense network, every layer of a block reading all the layers before it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.method import MethodInfo
from srbench.training.networks import start_sub_pixel_as_bilinear
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable
from srbench.weights import WeightsFile, build, fill

_FACTORS = (2, 3, 4)
_UPSAMPLERS = ("paper", "direct", "nearest")
_EIGHT_WAYS = Augment(flip=True, rotate=True)
_SMALL = {"blocks": 3, "layers": 3, "growth": 32, "features": 32, "upsampler": "direct"}

_PSNR = Recipe(  # Zhang et al. 2018, section 4.1: 16 LR patches of 32 x 32, an epoch is a thousand steps
    losses={"l1": 1.0},
    epochs=800,
    steps_per_epoch=1000,
    batch_size=16,
    lr=1e-4,
    schedule="step",
    gamma=0.5,
    decay_every=200,
    patch=128,
    augment=_EIGHT_WAYS,
    select="psnr",
    unit_scale=False,
)
_GAN = dataclasses.replace(
    # idealo's way to train: all patches of a batch from one image, flat ones drawn again; the weights are of
    # unit-scaled terms
    _PSNR,
    losses={"l1": 1.0, "features": 0.5, "adversarial": 0.1},
    epochs=100,
    batch_size=8,
    lr=4e-4,
    decay_every=30,
    patch=160,
    patches_per_image=8,
    min_detail=0.03,
    unit_scale=None,
    select="none",
)


class RDN(Trainable):
    """Residual dense blocks whose outputs are fused, then enlargement by sub-pixel convolutions."""

    info = MethodInfo(
        role="network",
        family="super-resolution",
        version="1",
        factor=4,
        citation="Zhang et al. 2018, arXiv 1802.08797",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "psnr": _PSNR,
        "gan": _GAN,
        "gpu": dataclasses.replace(
            _PSNR,
            epochs=60,
            batch_size=32,
            lr=3e-4,
            schedule="cosine",
            warmup_steps=500,
            patch=160,
            ema=0.999,
            clip_norm=1.0,
            parameters={"blocks": 8, "layers": 6, "growth": 32, "features": 64},
            store_fp16=True,
        ),
        "cpu-small": dataclasses.replace(
            _PSNR,
            epochs=8,
            steps_per_epoch=1000,
            lr=1e-3,
            schedule="cosine",
            warmup_steps=100,
            patch=96,
            ema=0.999,
            clip_norm=1.0,
            parameters=_SMALL,
            store_fp16=True,
        ),
        "demo": dataclasses.replace(
            _PSNR,
            epochs=10,
            steps_per_epoch=150,
            lr=1e-3,
            schedule="cosine",
            warmup_steps=50,
            patch=None,
            clip_norm=1.0,
            parameters=_SMALL,
            store_fp16=True,
        ),
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "blocks": 2,
        "layers": 2,
        "growth": 4,
        "features": 6,
        "discriminator_features": 4,
    }

    def __init__(
        self,
        blocks: int = 16,
        layers: int = 8,
        growth: int = 64,
        features: int = 64,
        *,
        factor: int = 4,
        channels: int = 3,
        upsampler: str = "paper",
        discriminator_features: int = 64,
    ) -> None:
        """Build an untrained network.

        Args:
            blocks: Number of residual dense blocks; D in the paper.
            layers: 3 x 3 convolutions of a block; C in the paper.
            growth: Channels that each of them adds; G in the paper.
            features: Channels between the blocks; G0 in the paper.
            factor: Enlargement: 2, 3 or 4.
            channels: Channels of LR and SR: 3, or 1 for grey images.
            upsampler: "paper" enlarges features and makes the image of them at SR size; "direct" makes all sub-pixels
                of the image at LR size by one convolution, which takes a fraction of the time; "nearest" is idealo's:
                three convolutions, nearest enlargement, and one more.
            discriminator_features: Filters of the discriminator's first layer; only training has one.

        Raises:
            UsageError: If a number or the upsampler is none of these.
        """
        super().__init__()
        counts = {
            "blocks": blocks,
            "layers": layers,
            "growth": growth,
            "features": features,
            "discriminator_features": discriminator_features,
        }
        low = [name for name, count in counts.items() if count < 1]
        if low or factor not in _FACTORS or channels not in {1, 3} or upsampler not in _UPSAMPLERS:
            raise UsageError(
                "rdn takes blocks, layers, growth, features and discriminator_features >= 1, factor 2, 3 or 4, channels"
                f" 1 or 3 and upsampler {', '.join(_UPSAMPLERS)}; got {counts}, factor={factor}, channels={channels},"
                f" upsampler={upsampler!r}; the paper's are blocks=16, layers=8, growth=64, features=64"
            )
        self.shallow = nn.Conv2d(channels, features, 3, padding=1)
        self.entry = nn.Conv2d(features, features, 3, padding=1)
        self.blocks = nn.ModuleList(_DenseBlock(features, layers, growth) for _ in range(blocks))
        fused = nn.Conv2d(features, features, 3, padding=1)
        self.fusion = nn.Sequential(nn.Conv2d(blocks * features, features, 1), fused)
        self._steps: tuple[int, ...] = ()
        self.shuffled, self.last = nn.ModuleList(), None
        if upsampler == "nearest":
            self.last = _nearest(features, channels, factor)
        else:
            direct = upsampler == "direct"
            self._steps = (factor,) if direct or factor == 3 else (2,) * (factor // 2)
            width = channels if direct else growth
            shuffled = [
                nn.Conv2d(features if place == 0 else width, width * step**2, 3, padding=1)
                for place, step in enumerate(self._steps)
            ]
            last = None if direct else nn.Conv2d(width, channels, 3, padding=1)
            self.shuffled, self.last = nn.ModuleList(shuffled), last
            if width >= channels:
                start_sub_pixel_as_bilinear(self.shallow, fused, list(zip(shuffled, self._steps, strict=True)), last)
        self.info = dataclasses.replace(type(self).info, factor=factor, channels=channels)
        self.discriminator_features = discriminator_features

    @classmethod
    def from_weights(cls, loaded: WeightsFile) -> RDN:
        """Build the network of a file, srbench's or one with the layer names of idealo's.

        Raises:
            WeightsError: If the file's parameters are not those of an RDN.
        """
        state = {_own_name(key): value for key, value in loaded.state.items()}
        loaded = dataclasses.replace(loaded, state=state, parameters=_sizes(state) | loaded.parameters)
        return fill(build(cls, loaded), loaded)

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge `(N, C, h, w)`, RGB or grey, float, [0, 1], by the network's factor, whatever `size` is."""
        shallow = self.shallow(lr)
        features = self.entry(shallow)
        outputs = []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        features = self.fusion(torch.cat(outputs, dim=1)) + shallow
        for convolution, step in zip(self.shuffled, self._steps, strict=True):
            features = F.pixel_shuffle(convolution(features), step)
        return features if self.last is None else self.last(features)


class _DenseBlock(nn.Module):
    def __init__(self, features: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(features + place * growth, growth, 3, padding=1) for place in range(layers)
        )
        self.fusion = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features `(N, features, h, w)`, float: the block's input plus what its layers add."""
        known = features
        for layer in self.layers:
            known = torch.cat([known, F.relu(layer(known))], dim=1)
        return features + self.fusion(known)


def _nearest(features: int, channels: int, factor: int) -> nn.Sequential:
    """Return idealo's last layers, of 64 and 32 channels: `(N, features, h, w)` to the image at SR size."""
    pixels = channels * factor**2
    return nn.Sequential(
        nn.Conv2d(features, 64, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(64, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, pixels, 3, padding=1),
        nn.Upsample(scale_factor=factor, mode="nearest"),
        nn.Conv2d(pixels, channels, 3, padding=1),
    )


_IDEALO = {  # names of its layers and ours
    "F_m1": "shallow",
    "F_0": "entry",
    "GFF_1": "fusion.0",
    "GFF_2": "fusion.1",
    "UPN1": "last.0",
    "UPN2": "last.2",
    "UPN3": "last.4",
    "SR": "last.6",
}


def _own_name(key: str) -> str:
    """Translate the name of a parameter in idealo's files; any other stays as it is."""
    layer, _, kind = key.rpartition(".")
    if found := re.fullmatch(r"F_([1-9]\d*)_([1-9]\d*)", layer):
        return f"blocks.{int(found[1]) - 1}.layers.{int(found[2]) - 1}.{kind}"
    if found := re.fullmatch(r"LFF_([1-9]\d*)", layer):
        return f"blocks.{int(found[1]) - 1}.fusion.{kind}"
    return f"{_IDEALO[layer]}.{kind}" if layer in _IDEALO else key


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the constructor arguments of a network with idealo's last layers; a card states those of any other."""
    first, layer, last = (state.get(f"{name}.weight") for name in ("shallow", "blocks.0.layers.0", "last.6"))
    if first is None or layer is None or last is None or last.shape[0] < 1:
        return {}
    return {
        "blocks": sum(re.fullmatch(r"blocks\.\d+\.fusion\.weight", key) is not None for key in state),
        "layers": sum(re.fullmatch(r"blocks\.0\.layers\.\d+\.weight", key) is not None for key in state),
        "growth": layer.shape[0],
        "features": first.shape[0],
        "channels": last.shape[0],
        "factor": math.isqrt(last.shape[1] // last.shape[0]),
        "upsampler": "nearest",
    }
