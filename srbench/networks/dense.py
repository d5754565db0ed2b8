"""Segmentation networks of segmentation-models-pytorch: a decoder on any encoder of timm; the extra `dense`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from srbench.errors import UsageError, WeightsError

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
            f"smp:{name} needs the package segmentation-models-pytorch; install it with: pip install"
            " 'srbench-resizing[dense]'"
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


def padding_of(network: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns an image must be continued by before a network takes it.

    Both sides must be multiples of the stride of the deepest map. Where that map would be of one pixel, and the network
    normalises groups of channels, it must be of two: torch refuses to normalise a single value.

    Args:
        network: The network; those that take any size need nothing.
        size: Height and width of the image, pixels.
    """
    if not getattr(network, "requires_divisible_input_shape", False):
        return 0, 0
    stride = int(getattr(getattr(network, "encoder", None), "output_stride", 1))
    rows, columns = -size[0] % stride, -size[1] % stride
    if size[0] + rows == size[1] + columns == stride > 1 and any(
        isinstance(m, nn.GroupNorm) for m in network.modules()
    ):
        columns += stride
    return rows, columns


def fill_encoder(network: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Copy the weights of a timm classifier into the encoder of a network; its head is left out.

    Args:
        network: As `create_dense` returns it, or a detector that is built on a network of timm.
        state: State dict of the classifier.
        origin: What messages call the weights.

    Raises:
        UsageError: If the encoder is none of timm's.
        WeightsError: If a parameter of the encoder is missing or of another shape.
    """
    inner = getattr(
        getattr(network, "encoder", None), "model", getattr(getattr(network, "backbone", None), "body", None)
    )
    if not isinstance(inner, nn.Module):
        raise UsageError(f"the encoder is none of timm's, so it cannot start from {origin}; name it as timm:NAME")
    own = inner.state_dict()
    given = {key: _of_classifier(key, state) for key in own}
    wrong = [
        key
        for key, name in given.items()
        if not key.endswith("num_batches_tracked") and (name is None or state[name].shape != own[key].shape)
    ]
    if wrong:
        raise WeightsError(
            f"{origin} does not fit the encoder: {len(wrong)} parameters are missing or of another shape, such as"
            f" {wrong[0]}; give weights of the same architecture"
        )
    inner.load_state_dict({key: state[name] for key, name in given.items() if name is not None}, strict=False)


def _of_classifier(key: str, state: Mapping[str, Tensor]) -> str | None:
    """Return the key that a parameter of an encoder has in its classifier: timm flattens some modules' names."""
    names = (key, re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key))
    return next((name for name in names if name in state), None)
