"""What controls do to the network behind: they find its last layer, or let it take images at the size of LR."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from srbench.errors import UsageError

_SIDE = 64  # of the image that a network of any size is tried on, times the factor where it is small
_Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def last_layer(network: nn.Module) -> nn.Module:
    """Return the layer that gives the logits: the last linear layer or convolution of the definition.

    Raises:
        UsageError: If there is none.
    """
    outputs = getattr(getattr(network, "info", None), "n_classes", None)
    layers = [
        module
        for module in network.modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and outputs in (None, module.weight.shape[0])
    ]
    if not layers:
        raise UsageError(
            f"{name_of(network)} has no last layer that could be trained alone: no linear layer or convolution has one"
            " output a class; choose another classifier"
        )
    return layers[-1]


def shrink_input(network: nn.Module, factor: int) -> None:
    """Let a network take images of a side `factor` times smaller, its feature maps staying as large as they were.

    A transformer's patch embedding is resampled by timm to patches that are as much smaller, and so is a convolution
    whose patches do not overlap; in every other network the first strides of 2 become 1. All parameters stay as they
    are but those embeddings.

    Args:
        network: A classifier on [0, 1] images; it is changed, and put into eval mode.
        factor: A power of two.

    Raises:
        UsageError: If the structure cannot be changed so.
    """
    check_factor(factor)
    network.eval()
    info = getattr(network, "info", None)
    side = getattr(info, "input_size", None)
    inner: nn.Module = getattr(network, "network", network)
    if not _resample_tokens(inner, factor, name_of(network)):
        if side is not None:
            raise UsageError(
                f"{name_of(network)} takes only {side} x {side} images and is no transformer that timm can resample;"
                " choose a classifier that takes any size"
            )
        _remove_strides(network, factor)
    if side is not None:
        assert info is not None
        network.info = dataclasses.replace(info, input_size=side // factor)  # type: ignore[assignment]


def check_factor(factor: int) -> None:
    """Refuse a factor that strides of 2 cannot come to.

    Raises:
        UsageError: If it is no power of two.
    """
    if factor < 2 or factor & (factor - 1):
        raise UsageError(f"the factor must be 2, 4, 8 or another power of two, got {factor}")


def name_of(network: nn.Module) -> str:
    """Return what a sentence calls a classifier."""
    return f"classifier {network.id}" if hasattr(network, "id") else "the classifier"


def _resample_tokens(network: nn.Module, factor: int, name: str) -> bool:
    """Make the patches of a transformer smaller, and return whether it is one that timm can change."""
    embed = getattr(network, "patch_embed", None)
    resample = getattr(network, "set_input_size", None)
    grid, patch = getattr(embed, "grid_size", None), getattr(embed, "patch_size", None)
    if not callable(resample) or grid is None or patch is None:
        return False
    if any(side % factor for side in patch):
        raise UsageError(
            f"{name} has patches of {patch[0]} x {patch[1]} pixels, which a factor of {factor} does not divide;"
            " choose a smaller one with --set parameters.factor=2"
        )
    smaller = tuple(side // factor for side in patch)
    wanted = tuple(count * side for count, side in zip(grid, smaller, strict=True))
    try:
        resample(img_size=wanted, patch_size=smaller)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"timm cannot give {name} patches of {smaller[0]} x {smaller[1]} pixels"
            f" ({str(error).splitlines()[0] if str(error) else type(error).__name__}); choose another classifier"
        ) from error
    return True


@torch.no_grad()
def _remove_strides(network: nn.Module, factor: int) -> None:
    levels = _strided_levels(network)
    left = factor
    for level in levels:
        if left == 1:
            break
        stride = _stride(level[0])
        removed = math.gcd(left, stride)
        if removed == 1 or any(_stride(each) != stride for each in level):
            break
        for each in level:
            _divide_stride(each, removed)
        left //= removed
    if left > 1:
        raise UsageError(
            f"{name_of(network)} has no early strides that come to a factor of {factor}, so it cannot take LR at native"
            f" size; {_smaller(factor // left)}"
        )
    try:
        logits = network(_probe(network, _SIDE))
    except RuntimeError as error:
        raise UsageError(
            f"{name_of(network)} does not run without its first strides ({str(error).splitlines()[0]}); choose another"
            " classifier"
        ) from error
    if logits.ndim != 2:
        raise UsageError(f"{name_of(network)} returns no logits of shape (N, classes); is it a classifier?")


def _strided_levels(network: nn.Module) -> list[list[_Strided]]:
    """Return the layers that make maps smaller, those that take maps of one size together, the largest maps first."""
    seen: dict[tuple[int, ...], list[_Strided]] = {}
    handles = []

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        layers = seen.setdefault(tuple(given[0].shape[-2:]), [])
        if module not in layers:
            layers.append(module)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and _stride(module) > 1:
            handles.append(module.register_forward_hook(note))
    try:
        network(_probe(network, 2 * _SIDE))
    except RuntimeError as error:
        raise UsageError(
            f"{name_of(network)} does not run on images of {2 * _SIDE} pixels ({str(error).splitlines()[0]}); choose a"
            " classifier that takes any size"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return [seen[size] for size in sorted(seen, reverse=True)]


def _divide_stride(layer: _Strided, divisor: int) -> None:
    stride = _stride(layer)
    kernel = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
    left = stride // divisor
    if not isinstance(layer, nn.Conv2d):
        layer.stride = left
        if kernel == (stride, stride):
            layer.kernel_size = left  # a pool of whole cells, which shall not become one that overlaps
        return
    layer.stride = (left, left)
    if kernel == (stride, stride) and stride > 1:
        from timm.layers import resample_patch_embed

        layer.weight = nn.Parameter(
            resample_patch_embed(layer.weight, [left, left]), requires_grad=layer.weight.requires_grad
        )
        layer.kernel_size = (left, left)


def _stride(layer: nn.Module) -> int:
    stride = layer.stride
    return int(stride[0] if isinstance(stride, tuple) else stride)  # type: ignore[arg-type]


def _probe(network: nn.Module, side: int) -> Tensor:
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    channels = 3
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            channels = module.in_channels if getattr(network, "info", None) is None else 3
            break
    return torch.full((1, channels, side, side), 0.5, device=device)


def _smaller(reached: int) -> str:
    if reached > 1:
        return f"the largest factor is {reached} (--set parameters.factor={reached})"
    return "choose another classifier"
