"""Segmentation networks of segmentation-models-pytorch: a decoder on any encoder of timm; the extra `dense`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from srbench.errors import UsageError

_WORDS = {"num_classes": "classes", "in_chans": "in_channels"}  # what timm and torchvision say, and cards with them
_OF_TIMM = ("timm-", "timm:")


def create_dense(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Build a network with random weights.

    Args:
        name: DECODER/ENCODER, such as "FPN/timm-mobilenetv2_100"; an encoder without "timm-" is the library's own.
        args: Arguments of the decoder; those that it does not know go to the encoder.

    Raises:
        UsageError: If the library is missing or the name is not of that form.
        Exception: Whatever the library raises where it cannot build the network.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise UsageError(
            f"smp:{name} needs the package segmentation-models-pytorch; install it with: pip install 'srbench[dense]'"
        ) from None
    decoder, slash, encoder = name.partition("/")
    if not (slash and decoder and encoder):
        raise UsageError(f"smp:{name}: expected smp:DECODER/ENCODER, such as smp:FPN/timm-mobilenetv2_100")
    for prefix in _OF_TIMM:
        if encoder.startswith(prefix):
            encoder = f"tu-{encoder.removeprefix(prefix)}"
    given = {_WORDS.get(key, key): value for key, value in args.items()}
    network: nn.Module = smp.create_model(decoder, encoder_name=encoder, encoder_weights=None, **given)
    return network


def multiple_of(network: nn.Module) -> int:
    """Return what the sides of a network's input must be multiples of, pixels; 1 where any will do."""
    if not getattr(network, "requires_divisible_input_shape", False):
        return 1
    return int(getattr(getattr(network, "encoder", None), "output_stride", 1))
