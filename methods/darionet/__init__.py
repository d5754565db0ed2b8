"""DarioNet: a super-resolution network trained until a frozen classifier scores SR as it scores the original."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from spandrel import SizeRequirements
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from srbench.errors import UsageError, WeightsError
from srbench.method import MethodInfo
from srbench.training.networks import name_as_inside, start_as_bilinear, start_sub_pixel_as_bilinear
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable
from srbench.weights import WeightsFile, fill_state
from srbench.weights.recognition import enlarged, recognise

from .disp import Disp, arguments_of, own_names

_FACTOR = 4
_ARCHITECTURES = ("rrdb", "compact", "disp")
_SMALL = {"blocks": 3, "features": 32}
_DEMO = {"blocks": 2, "features": 32}

_PAPER = Recipe(
    losses={"logits": 1.0},
    epochs=10,
    batch_size=16,
    lr=1e-5,
    unit_scale=False,
    init="esrgan:df2k-psnr-x4",
    select="ce_difference",
)
_GPU = Recipe(
    losses={"logits": 1.0},
    epochs=40,
    batch_size=32,
    lr=1e-4,
    schedule="cosine",
    warmup_steps=100,
    augment=Augment(flip=True, shift=16),
    ema=0.999,
    clip_norm=10.0,
    parameters={"blocks": 8, "features": 64},
    store_fp16=True,
)
_CPU = Recipe(
    losses={"logits": 1.0},
    epochs=12,
    steps_per_epoch=100,
    batch_size=8,
    lr=2e-4,
    schedule="cosine",
    augment=Augment(flip=True),
    parameters=_SMALL,
    store_fp16=True,
)

# The teachers' stages say at every place what the logits say once for an image, so far fewer images are needed. The
# pixel term, which weighs a tenth at an error of 0.03, keeps the network from learning what its teachers alone see.
# The cosine ends at zero, which brings most of what unseen classifiers gain. Crops and drawn input sizes are left out:
# with them the same network recovered less for every classifier (docs/methods/darionet.md).
_PHOTOS = Recipe(
    losses={"logits": 1.0, "stages": 3.0, "l1": 3.33},
    unit_scale=False,
    epochs=10,
    steps_per_epoch=325,
    batch_size=8,
    optimizer="soap",
    lr=3e-4,
    schedule="cosine",
    warmup_steps=50,
    augment=Augment(flip=True),
    ema=0.998,
    clip_norm=5.0,
    parameters={"arch": "disp", "blocks": 4, "features": 32},
    select="none",
    validate_every=2,
    checkpoint_every=50,
    store_fp16=True,
)

# The same for a device of a hundred times a CPU core's rate. Nobody has run it yet.
_PHOTOS_GPU = dataclasses.replace(
    _PHOTOS, epochs=40, steps_per_epoch=1000, batch_size=32, lr=4.5e-4, warmup_steps=500, ema=0.9995, checkpoint_every=0
)

# Images of 64 x 64 leave nothing to cut patches of, and one epoch of Tiny ImageNet is 100,000 of them.
_TINY_IMAGENET = dataclasses.replace(
    _GPU, epochs=10, batch_size=128, augment=Augment(flip=True), parameters={"blocks": 4, "features": 32}
)


def _pixel_stage(recipe: Recipe, **changes: object) -> Recipe:
    return dataclasses.replace(recipe, losses={"l1": 1.0}, select="psnr", clip_norm=None, **changes)  # type: ignore[arg-type]


def _build(arch: str, blocks: int, features: int) -> nn.Module:
    if arch == "compact":
        return Compact(num_feat=features, num_conv=blocks, upscale=_FACTOR)
    if arch == "disp":
        disp = Disp(blocks=blocks, features=features, factor=_FACTOR)
        start_sub_pixel_as_bilinear(disp.first, disp.fused, [(disp.shuffled, _FACTOR)], None)
        return disp
    rrdb = ESRGAN(num_filters=features, num_blocks=blocks, scale=_FACTOR)
    start_as_bilinear(rrdb.model)
    return rrdb


class DarioNet(Trainable):
    """A network under the squared difference of the teacher's scores of SR and HR, or any sum of the other losses.

    The network is the paper's RRDB, or one that does more with a CPU's time because it has no convolution at the size
    of SR: Real-ESRGAN's compact one, or DISP. Parameter names in files are spandrel's, DISP's apart, so that published
    checkpoints are starting points and the files open in any tool that reads those.
    """

    info = MethodInfo(
        role="network",
        family="super-resolution",
        version="1",
        factor=_FACTOR,
        citation="Ceccaroni, Ercolino, Lanzino, Ruggeri, Jan 2021: DarioNet",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "paper": _PAPER,
        "gpu-psnr": _pixel_stage(_GPU, lr=3e-4, patch=160, epochs=100),
        "gpu": _GPU,
        "cpu-small-psnr": _pixel_stage(_CPU, lr=5e-4, batch_size=16, patch=96, epochs=10),
        "cpu-small": _CPU,
        "photos": _PHOTOS,
        "photos-gpu": _PHOTOS_GPU,
        "tiny-imagenet-psnr": _pixel_stage(_TINY_IMAGENET, lr=5e-4),
        "tiny-imagenet": _TINY_IMAGENET,
        "demo-psnr": _pixel_stage(_CPU, lr=5e-4, batch_size=16, steps_per_epoch=50, epochs=4, parameters=_DEMO),
        "demo": dataclasses.replace(
            _CPU, lr=5e-4, batch_size=16, steps_per_epoch=50, epochs=6, parameters=_DEMO, init="esrgan:demo-psnr-x4"
        ),
    }
    tiny: ClassVar[Mapping[str, Any]] = {"blocks": 1, "features": 8}

    def __init__(self, blocks: int = 23, features: int = 64, *, arch: str = "rrdb") -> None:
        """Build an untrained network.

        Args:
            blocks: Number of residual-in-residual dense blocks, whose growth is 32. Where `arch` is "compact", number
                of convolutions between the first and the last; where it is "disp", number of residual blocks.
            features: Channels between them.
            arch: "rrdb", "compact" (SRVGGNetCompact of Real-ESRGAN, Wang et al. 2021, arXiv 2107.10833), or "disp"
                (NTIRE 2026, efficient super-resolution, team 18), which is published with 4 blocks of 32 features.

        Raises:
            UsageError: If a number is below 1, or there is no such architecture.
        """
        super().__init__()
        if blocks < 1 or features < 1:
            raise UsageError(
                f"darionet takes blocks >= 1 and features >= 1, got blocks={blocks}, features={features};"
                " the paper's are 23 and 64"
            )
        if arch not in _ARCHITECTURES:
            raise UsageError(f"darionet takes arch rrdb, compact or disp, got {arch!r}")
        self._install(_build(arch, blocks, features), _FACTOR, SizeRequirements())
        name_as_inside(self, "network")

    @classmethod
    def from_weights(cls, loaded: WeightsFile) -> DarioNet:
        """Build the network of a checkpoint, DarioNet's or a published one, at its own factor.

        Raises:
            WeightsError: If the file is for neither DISP nor another super-resolution network of 3 -> 3 channels that
                spandrel recognises.
        """
        name = loaded.ref.path.name
        if loaded.ref.arguments:
            raise WeightsError(f"darionet reads its whole architecture from {name}; leave out what follows the ?")
        with torch.device("meta"):  # the network made here gives way to the checkpoint's
            method = cls(blocks=1, features=1)
        state = own_names(loaded.state)
        arguments = arguments_of(state)
        if arguments is not None:
            network = Disp(**arguments)
            method._install(network, network.factor, SizeRequirements())
            fill_state(method, state, origin=name, expected="darionet")
        else:
            descriptor = recognise(loaded)
            method._install(descriptor.model.float(), descriptor.scale, descriptor.size_requirements)
        return method

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge `(N, 3, h, w)`, RGB, float, [0, 1], by the network's factor, whatever `size` is."""
        return enlarged(self.network, lr, factor=int(self.info.factor), requirements=self._requirements)

    def _install(self, network: nn.Module, factor: int, requirements: SizeRequirements) -> None:
        self.network = network.requires_grad_(True)
        self._requirements = requirements
        self.info = dataclasses.replace(type(self).info, factor=factor)
