"""Torchvision's networks with its own weights: which there are, how they normalise, and which size they take."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import nn

from srbench.errors import UsageError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_USUAL = "IMAGENET1K_V1"


@dataclass(frozen=True)
class OwnWeights:
    """Weights that torchvision has of one of its networks.

    Attributes:
        architecture: Name of the network.
        name: Name of the weights.
        mean: What is subtracted of each channel, [0, 1].
        std: What each channel is divided by.
        crop: Side of the images that the weights were made for, pixels; None where any size is taken.
        dense: Whether it is a network of places, with a backbone that would be fetched by itself.
    """

    architecture: str
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int | None
    dense: bool


def own_weights(spec: str) -> OwnWeights:
    """Return the weights of `NAME` or `NAME.WEIGHTS`; without a name of weights they are the first of ImageNet.

    Raises:
        UsageError: If the network has no such weights.
        ValueError: If torchvision has no such network.
    """
    from torchvision.models import get_model_builder, get_model_weights

    architecture, _, asked = spec.partition(".")
    known = {each.name: each for each in get_model_weights(architecture)}
    dense = "weights_backbone" in inspect.signature(get_model_builder(architecture)).parameters
    name = asked or (get_model_weights(architecture).DEFAULT.name if dense else _USUAL)
    if name not in known:
        raise UsageError(
            f"torchvision has no weights {name} of {architecture}, but {' and '.join(known)};"
            f" name them: torchvision:{architecture}.{next(iter(known))}"
        )
    transforms = known[name].transforms()
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    crop = getattr(transforms, "crop_size", None)
    return OwnWeights(
        architecture=architecture,
        name=name,
        mean=_IMAGENET[0] if mean is None else tuple(mean),
        std=_IMAGENET[1] if std is None else tuple(std),
        crop=None if crop is None else int(crop[0] if isinstance(crop, list | tuple) else crop),
        dense=dense,
    )


@torch.inference_mode()
def fixed_side(network: nn.Module, crop: int | None) -> int | None:
    """Return the side that a network needs, or None where it runs at another than that of its weights too."""
    side: int | None = getattr(network, "image_size", None)
    if side is not None or crop is None:
        return side
    try:
        network.eval()(torch.zeros(1, 3, crop + 32, crop + 32))
    except (RuntimeError, AssertionError, ValueError):
        return crop
    return None
