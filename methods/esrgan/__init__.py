"""ESRGAN, and any other super-resolution checkpoint of 3 -> 3 channels, at its own factor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from spandrel import SizeRequirements
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.imaging.tiles import tiled_batch, window_multiple
from srbench.method import MethodInfo
from srbench.training.networks import name_as_inside
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable
from srbench.weights import NamedWeights, WeightsFile, build, fill
from srbench.weights.recognition import enlarged, recognise

from .checkpoints import BASICSR, build_basicsr, build_rrdb, check_declared
from .rrdn import build_rrdn, holds_rrdn

_MINIMUM_SIDE = 2  # spandrel's own requirement for RRDB, pixels
_DEMO = {"blocks": 2, "features": 32}

_PSNR = Recipe(  # Wang et al. 2018, section 4.1: a million steps of 16 patches
    losses={"l1": 1.0},
    epochs=200,
    steps_per_epoch=5000,
    batch_size=16,
    lr=2e-4,
    schedule="step",
    gamma=0.5,
    decay_every=40,
    patch=128,
    augment=Augment(flip=True),
    select="psnr",
    store_fp16=True,
)
_GAN = dataclasses.replace(
    # Section 4.1 again, with the classifier's features in the place of VGG-19's; weights are of unit-scaled terms
    _PSNR,
    losses={"perceptual": 1.0, "adversarial": 0.1, "l1": 0.5},
    epochs=80,
    lr=1e-4,
    decay_every=20,
    select="none",
    init="df2k-psnr-x4",
)


class ESRGAN(Trainable):
    """RRDB trained for PSNR or adversarially, or whatever network a checkpoint holds.

    Parameter names in files are spandrel's, without a prefix, so that the files open in any tool that reads ESRGAN's.
    """

    info = MethodInfo(
        role="network",
        family="super-resolution",
        version="1",
        factor=4,
        citation="Wang et al. 2018, arXiv 1809.00219",
    )
    weights: ClassVar[Mapping[str, NamedWeights]] = {
        "df2k-gan-x4": NamedWeights(
            uri="https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.1/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
            sha256="ff704c30",
            licence="BSD-3-Clause",
            factor=4,
            architecture="ESRGAN",
            note="the published ESRGAN, adversarial, DF2K + OST",
        ),
        "df2k-psnr-x4": NamedWeights(
            # what follows # is never sent, it lends the cached file its name's ending
            uri="https://drive.google.com/uc?export=download&id=1swaV5iBMFfg-DL6ZyiARztbhutDCWXMM"
            "#ESRGAN_PSNR_SRx4_DF2K_official-150ff491.pth",
            sha256="150ff491",
            licence="Apache-2.0",
            factor=4,
            architecture="ESRGAN",
            note="the PSNR-oriented RRDB that ESRGAN and DarioNet start from, DF2K",
        ),
    }
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "psnr": _PSNR,
        "gan": _GAN,
        "demo-psnr": dataclasses.replace(
            _PSNR,
            epochs=4,
            steps_per_epoch=50,
            batch_size=16,
            lr=5e-4,
            schedule="cosine",
            patch=None,
            parameters=_DEMO,
        ),
        "demo-gan": dataclasses.replace(
            _GAN,
            epochs=2,
            steps_per_epoch=50,
            batch_size=16,
            schedule="cosine",
            patch=None,
            parameters=_DEMO | {"discriminator_features": 16},
            init="demo-psnr-x4",
        ),
    }
    tiny: ClassVar[Mapping[str, Any]] = {"blocks": 1, "features": 8, "discriminator_features": 4}

    def __init__(
        self,
        blocks: int = 23,
        features: int = 64,
        *,
        factor: int = 4,
        arch: str = "rrdb",
        discriminator_features: int = 64,
        tile: int = 0,
        overlap: int = 32,
    ) -> None:
        """Build an untrained network.

        Args:
            blocks: Number of residual-in-residual dense blocks; growth is 32.
            features: Channels between them.
            factor: Enlargement: 2, 4 or 8.
            arch: "rrdb", or "basicsr:NAME(option=value, ...)" for an architecture of BasicSR (extra `basicsr`), for
                which blocks and features have no meaning.
            discriminator_features: Filters of the discriminator's first layer; only training has one.
            tile: Side of the core of a tile in LR pixels, for images that do not fit into memory; 0 never tiles.
            overlap: LR pixels that a tile sees around its core.

        Raises:
            UsageError: If a number is out of range, or the architecture cannot be built.
        """
        super().__init__()
        if blocks < 1 or features < 1 or discriminator_features < 1 or factor not in {2, 4, 8}:
            raise UsageError(
                "esrgan takes blocks, features and discriminator_features >= 1 and factor 2, 4 or 8, got"
                f" blocks={blocks}, features={features}, discriminator_features={discriminator_features},"
                f" factor={factor}; choose numbers in these ranges"
            )
        if tile < 0 or overlap < 0:
            raise UsageError(
                f"esrgan takes tile >= 0 (0 is off) and overlap >= 0, got tile={tile}, overlap={overlap};"
                " try tile=128, overlap=32"
            )
        if arch != "rrdb" and not arch.startswith(BASICSR):
            raise UsageError(f"esrgan takes arch 'rrdb' or 'basicsr:NAME', got {arch!r}")
        self.tile, self.overlap, self.discriminator_features = tile, overlap, discriminator_features
        if arch == "rrdb":
            self._install(build_rrdb(blocks, features, factor), factor, SizeRequirements(minimum=_MINIMUM_SIDE))
        else:
            self._install(build_basicsr(arch, factor), factor, SizeRequirements())
        name_as_inside(self, "network")

    @classmethod
    def from_weights(cls, loaded: WeightsFile) -> ESRGAN:
        """Build the network that a checkpoint holds.

        Raises:
            WeightsError: If spandrel recognises none, the network is not super-resolution of 3 -> 3 channels, or its
                architecture or factor is not the one declared for these weights.
        """
        if str(loaded.parameters.get("arch", "")).startswith(BASICSR):
            return fill(build(cls, loaded), loaded)
        # the network made here gives way to the checkpoint's, so it is as small as can be and takes no memory
        small = dataclasses.replace(loaded, parameters={**loaded.parameters, "blocks": 1, "features": 1})
        with torch.device("meta"):
            method = build(cls, small)
        if holds_rrdn(loaded.state):
            network = build_rrdn(loaded)
            method._install(network, network.factor, SizeRequirements())
            return method
        descriptor = recognise(loaded)
        check_declared(descriptor, loaded, cls.weights)
        method._install(descriptor.model.requires_grad_(True), descriptor.scale, descriptor.size_requirements)
        return method

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge `(N, 3, h, w)`, RGB, float, [0, 1], by the network's factor, whatever `size` is."""
        if self.tile and max(lr.shape[-2:]) > self.tile + self.overlap:
            size = (lr.shape[-2] * self._factor, lr.shape[-1] * self._factor)
            multiple = window_multiple(self)
            return tiled_batch(
                lr,
                size,
                lambda window, _: self._enlarge(window),
                tile=self.tile,
                margin=self.overlap,
                multiple=multiple,
            )
        return self._enlarge(lr)

    @property
    def _factor(self) -> int:
        return int(self.info.factor)

    def _install(self, network: nn.Module, factor: int, requirements: SizeRequirements) -> None:
        self.network = network
        self._requirements, self.tile_multiple = requirements, requirements.multiple_of
        self.info = dataclasses.replace(type(self).info, factor=factor)

    def _enlarge(self, lr: Tensor) -> Tensor:
        return enlarged(self.network, lr, factor=self._factor, requirements=self._requirements)
