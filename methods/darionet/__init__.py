"""DarioNet: a super-resolution network trained until a frozen classifier scores SR as it scores the original."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from spandrel import ModelLoader, UnsupportedModelError
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from srbench.errors import UsageError, WeightsError
from srbench.method import MethodInfo
from srbench.training.networks import name_as_inside, start_as_bilinear, start_sub_pixel_as_bilinear
from srbench.training.recipe import Augment, Recipe
from srbench.training.trainable import Trainable
from srbench.weights import WeightsFile, fill_state

from .disp import Disp, arguments_of, own_names

_FACTOR = 4
_ARCHITECTURES = {"rrdb": ESRGAN, "compact": Compact, "disp": Disp}
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

# Crops and sizes that vary keep the network from learning what its teachers alone see; so does the pixel term, which
# weighs a tenth at an error of 0.03. The cosine ends at zero, which brings most of what unseen classifiers gain.
_PHOTOS = Recipe(
    losses={"logits": 1.0, "l1": 3.33},
    unit_scale=False,
    epochs=12,
    steps_per_epoch=300,
    batch_size=8,
    lr=4e-4,
    schedule="cosine",
    warmup_steps=50,
    augment=Augment(flip=True, shift=32),
    input_sizes=(160, 192, 224, 224, 224, 256),
    ema=0.998,
    clip_norm=5.0,
    parameters={"arch": "disp", "blocks": 4, "features": 32},
    select="none",
    validate_every=4,
    checkpoint_every=50,
    store_fp16=True,
)

# Images of 64 x 64 leave nothing to cut patches of, and one epoch of Tiny ImageNet is 100,000 of them.
_TINY_IMAGENET = dataclasses.replace(
    _GPU, epochs=10, batch_size=128, augment=Augment(flip=True), parameters={"blocks": 4, "features": 32}
)


def _pixel_stage(recipe: Recipe, **changes: object) -> Recipe:
    return dataclasses.replace(recipe, losses={"l1": 1.0}, select="psnr", clip_norm=None, **changes)  # type: ignore[arg-type]


class DarioNet(Trainable):
    """A network under the squared difference of the teacher's scores of SR and HR, or any sum of the other losses.

    The network is the paper's RRDB, or Real-ESRGAN's compact one, which has no convolution at the size of SR and so
    does more with the time of a CPU. Parameter names in files are spandrel's, so that published checkpoints are
    starting points and the files open in any tool that reads those.
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
        self.network: nn.Module
        if arch == "compact":
            self.network = Compact(num_feat=features, num_conv=blocks, upscale=_FACTOR)
        elif arch == "disp":
            self.network = Disp(blocks=blocks, features=features, factor=_FACTOR)
            start_sub_pixel_as_bilinear(
                self.network.first, self.network.fused, [(self.network.shuffled, _FACTOR)], None
            )
        else:
            self.network = ESRGAN(num_filters=features, num_blocks=blocks, scale=_FACTOR)
            start_as_bilinear(self.network.model)
        name_as_inside(self, "network")

    @classmethod
    def from_weights(cls, loaded: WeightsFile) -> DarioNet:
        """Build the network of a checkpoint, DarioNet's or a published one in any of its key names.

        Raises:
            WeightsError: If the file holds no RRDB, no compact network and no DISP of factor 4 for RGB images.
        """
        name = loaded.ref.path.name
        if loaded.ref.arguments:
            raise WeightsError(f"darionet reads its whole architecture from {name}; leave out what follows the ?")
        refusal = WeightsError(
            f"{name} holds no RRDB, no compact network and no DISP of factor {_FACTOR}, which darionet's are; use its"
            " own weights or ESRGAN's"
        )
        state = own_names(loaded.state)
        disp = arguments_of(state)
        if disp is not None:
            if disp.pop("factor") != _FACTOR:
                raise refusal
            method = cls(arch="disp", **disp)
            fill_state(method, state, origin=name, expected="darionet")
            return method
        try:
            descriptor = ModelLoader(device="cpu").load_from_state_dict(dict(loaded.state))
        except (UnsupportedModelError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AssertionError):
            raise refusal from None
        network = descriptor.model
        if not isinstance(network, tuple(_ARCHITECTURES.values())) or descriptor.scale != _FACTOR:
            raise refusal
        state = network.state_dict()
        if isinstance(network, ESRGAN):
            blocks = len({key.split(".")[3] for key in state if key.startswith("model.1.sub.") and ".RDB" in key})
            method = cls(blocks=blocks, features=state["model.0.weight"].shape[0])
        else:
            method = cls(blocks=network.num_conv, features=network.num_feat, arch="compact")
        fill_state(method, state, origin=name, expected="darionet")
        return method

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Enlarge `(N, 3, h, w)`, RGB, float, [0, 1], by 4, whatever `size` is."""
        return self.network(lr)
