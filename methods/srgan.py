"""SRGAN: the SRResNet generator, trained by pixels alone (variant A) or against a discriminator too (variant B)."""

from __future__ import annotations

import dataclasses
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

_FACTORS = (2, 3, 4)
_EIGHT_WAYS = Augment(flip=True, rotate=True)
_SMALL = {"blocks": 8, "features": 32, "upsampler": "direct"}
_VARIANT_B = {"l2": 1.0, "features": 0.5, "adversarial": 0.1}  # weights of unit-scaled terms

_PSNR = Recipe(  # Ledig et al. 2017, section 3.2: SRResNet, a million steps of 16 patches
    losses={"l2": 1.0},
    epochs=200,
    steps_per_epoch=5000,
    batch_size=16,
    lr=1e-4,
    patch=96,
    augment=_EIGHT_WAYS,
    select="psnr",
    unit_scale=False,
    norm_steps=100,
)
_DEEPLENSE_A = Recipe(
    losses={"l2": 1.0}, epochs=8, batch_size=63, lr=5e-4, select="psnr", unit_scale=False, norm_steps=50
)
_CPU = dataclasses.replace(
    _PSNR,
    epochs=8,
    steps_per_epoch=1000,
    lr=1e-3,
    schedule="cosine",
    warmup_steps=100,
    ema=0.999,
    parameters=_SMALL,
    norm_steps=50,
)
_DEMO = dataclasses.replace(
    _CPU,
    epochs=6,
    steps_per_epoch=150,
    warmup_steps=50,
    patch=None,
    ema=0.0,
    parameters=_SMALL | {"discriminator_features": 16},
)


class SRGAN(Trainable):
    """Residual blocks with batch norm and a long skip, then enlargement by sub-pixel convolutions."""

    info = MethodInfo(
        role="network",
        family="super-resolution",
        version="1",
        factor=4,
        citation="Ledig et al. 2017, arXiv 1609.04802",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "psnr": _PSNR,
        "gan": dataclasses.replace(  # Ledig et al. again: 200,000 steps from SRResNet, the rate falls half-way
            _PSNR,
            losses=_VARIANT_B,
            epochs=40,
            schedule="step",
            gamma=0.1,
            decay_every=20,
            select="none",
            unit_scale=None,
        ),
        "deeplense-a": _DEEPLENSE_A,
        "deeplense-b": dataclasses.replace(
            _DEEPLENSE_A, losses=_VARIANT_B, epochs=25, batch_size=32, lr=1e-6, select="none", unit_scale=None
        ),
        "finetune": dataclasses.replace(  # a few hundred real pairs
            _PSNR, epochs=20, steps_per_epoch=100, schedule="cosine", patch=64, ema=0.99, norm_steps=50
        ),
        "gpu": dataclasses.replace(
            _CPU, epochs=60, batch_size=32, lr=5e-4, warmup_steps=500, patch=128, parameters={}, norm_steps=100
        ),
        "cpu-small": _CPU,
        "demo": _DEMO,
        "demo-gan": dataclasses.replace(
            _DEMO, losses=_VARIANT_B, epochs=4, steps_per_epoch=50, lr=1e-4, select="none", unit_scale=None
        ),
    }
    tiny: ClassVar[Mapping[str, Any]] = {"blocks": 2, "features": 6, "discriminator_features": 4}

    def __init__(
        self,
        blocks: int = 16,
        features: int = 64,
        *,
        factor: int = 4,
        channels: int = 3,
        upsampler: str = "paper",
        discriminator_features: int = 64,
    ) -> None:
        """Build an untrained network.

        Args:
            blocks: Number of residual blocks, of two 3 x 3 convolutions with batch norm each.
            features: Channels between them.
            factor: Enlargement: 2, 3 or 4.
            channels: Channels of LR and SR: 3, or 1 for grey images such as a telescope's.
            upsampler: "paper" enlarges features and makes the image of them at SR size; "direct" makes all sub-pixels
                of the image at LR size by one convolution, which takes a fraction of the time.
            discriminator_features: Filters of the discriminator's first layer; only training has one.

        Raises:
            UsageError: If a number or the upsampler is none of these.
        """
        super().__init__()
        counts = {"blocks": blocks, "features": features, "discriminator_features": discriminator_features}
        low = [name for name, count in counts.items() if count < 1]
        if low or factor not in _FACTORS or channels not in {1, 3} or upsampler not in {"paper", "direct"}:
            raise UsageError(
                "srgan takes blocks, features and discriminator_features >= 1, factor 2, 3 or 4, channels 1 or 3 and"
                f" upsampler paper or direct; got {counts}, factor={factor}, channels={channels},"
                f" upsampler={upsampler!r}; the paper's are blocks=16, features=64"
            )
        self.shallow = nn.Conv2d(channels, features, 9, padding=4)
        self.shallow_slope = nn.PReLU()
        self.blocks = nn.Sequential(*(_ResidualBlock(features) for _ in range(blocks)))
        fused = nn.BatchNorm2d(features)
        self.fusion = nn.Sequential(nn.Conv2d(features, features, 3, padding=1), fused)
        direct = upsampler == "direct"
        self._steps = (factor,) if direct or factor == 3 else (2,) * (factor // 2)
        width = channels if direct else features
        shuffled = [nn.Conv2d(features, width * step**2, 3, padding=1) for step in self._steps]
        self.shuffled = nn.ModuleList(shuffled)
        self.slopes = None if direct else nn.ModuleList(nn.PReLU() for _ in shuffled)
        self.last = None if direct else nn.Conv2d(features, channels, 9, padding=4)
        start_sub_pixel_as_bilinear(self.shallow, fused, list(zip(shuffled, self._steps, strict=True)), self.last)
        self.info = dataclasses.replace(type(self).info, factor=factor, channels=channels)
        self.discriminator_features = discriminator_features

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge `(N, C, h, w)`, RGB or grey, float, [0, 1], by the network's factor, whatever `size` is."""
        shallow = self.shallow_slope(self.shallow(lr))
        features = self.fusion(self.blocks(shallow)) + shallow
        for place, (convolution, step) in enumerate(zip(self.shuffled, self._steps, strict=True)):
            features = F.pixel_shuffle(convolution(features), step)
            if self.slopes is not None:
                features = self.slopes[place](features)
        return features if self.last is None else self.last(features)

    def adversarial(self, discriminator: nn.Module, hr: Tensor, sr: Tensor) -> Tensor:
        """Return -log of the discriminator's trust in SR, a scalar."""
        return _trust(discriminator(sr), 1.0)

    def discriminating(self, discriminator: nn.Module, hr: Tensor, sr: Tensor) -> Tensor:
        """Return the discriminator's cross-entropy on HR, which is real, and on SR, which is not."""
        return _trust(discriminator(hr), 1.0) + _trust(discriminator(sr), 0.0)


class _ResidualBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.BatchNorm2d(features),
            nn.PReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            nn.BatchNorm2d(features),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features `(N, features, h, w)`, float: the input plus what the body adds."""
        return features + self.body(features)


def _trust(scores: Tensor, target: float) -> Tensor:
    scores = scores.float()
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))
