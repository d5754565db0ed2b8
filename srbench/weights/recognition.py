"""From a published checkpoint to its network, by the parameters' names, and from images of any size to its SR."""

from __future__ import annotations

import torch.nn.functional as F
from spandrel import ImageModelDescriptor, ModelLoader, SizeRequirements, UnsupportedModelError
from torch import Tensor, nn

from srbench.errors import WeightsError
from srbench.weights.files import WeightsFile


def recognise(loaded: WeightsFile) -> ImageModelDescriptor:
    """Return what spandrel makes of a checkpoint.

    Raises:
        WeightsError: If it recognises no architecture, or one that is not super-resolution of 3 -> 3 channels.
    """
    name = loaded.ref.path.name
    try:
        descriptor = ModelLoader(device="cpu").load_from_state_dict(dict(loaded.state))
    except UnsupportedModelError:
        raise WeightsError(
            f"{name} holds no architecture that spandrel recognises (its first parameter is"
            f" {next(iter(loaded.state), None)}); use a super-resolution checkpoint such as ESRGAN's"
        ) from None
    except Exception as error:  # noqa: BLE001
        # spandrel reads the sizes of an architecture from its parameters, and fails in any way if some lack or are 0
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise WeightsError(
            f"{name} looks like a known network, but parameters are missing or misshapen ({reason}); fetch it again"
        ) from None
    purpose = descriptor.purpose
    if not isinstance(descriptor, ImageModelDescriptor) or purpose != "SR" or descriptor.scale < 2:
        raise WeightsError(
            f"{name} is not for super-resolution: spandrel says {descriptor.architecture.id}, purpose {purpose}, factor"
            f" {descriptor.scale}; use a checkpoint that enlarges"
        )
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels != (3, 3):
        raise WeightsError(
            f"{name} maps {channels[0]} to {channels[1]} channels, expected 3 to 3; use a network for RGB images"
        )
    return descriptor


def enlarged(network: nn.Module, lr: Tensor, *, factor: int, requirements: SizeRequirements) -> Tensor:
    """Return `(N, C, factor * h, factor * w)`, what a network makes of images `(N, C, h, w)` of any size.

    Args:
        network: Enlarges by `factor`.
        lr: The images, float, [0, 1].
        factor: Enlargement.
        requirements: Sizes that the network takes; images are extended to one of them, and SR is cut back.
    """
    height, width = lr.shape[-2:]
    return network(_padded(lr, requirements))[..., : height * factor, : width * factor]


def _padded(lr: Tensor, requirements: SizeRequirements) -> Tensor:
    """Extend images `(N, C, h, w)` to the right and below until a network takes their size, mirrored where possible."""
    height, width = lr.shape[-2:]
    right, bottom = requirements.get_padding(width, height)
    if not (right or bottom):
        return lr
    mirrored = (min(right, width - 1), min(bottom, height - 1))  # mirroring reaches no further than the image
    lr = F.pad(lr, (0, mirrored[0], 0, mirrored[1]), mode="reflect")
    return F.pad(lr, (0, right - mirrored[0], 0, bottom - mirrored[1]), mode="replicate")
