"""The only place where a method is called: LR in, SR at HR size out, its contract checked.

Scoring, timing, training, validation, `srbench bench`, `srbench upscale` and conformance all restore through it, so
that a method sees the same channels and the same precision everywhere, and its output takes the same way back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from srbench.compute.numerics import Numerics
from srbench.errors import ContractError
from srbench.imaging.colour import to_channels
from srbench.imaging.degrade import restore_size
from srbench.method import Method
from srbench.protocol import Restoration


def restore(
    method: Method,
    lr: Tensor,
    size: tuple[int, int],
    *,
    restoration: Restoration,
    numerics: Numerics | None,
    channels: int | None = None,
    name: str | None = None,
    watch: AbstractContextManager[object] | None = None,
) -> Tensor:
    """Restore LR `(N, C, h, w)`, RGB or grey, float32, [0, 1], to SR `(N, C, *size)`, float32.

    SR may leave [0, 1], and where `info.output` is "lr" or "own" it stays as it comes. Gradients flow where they are
    on.
    Nothing waits for the device; see `is_finite`.

    Args:
        method: The method, as it is or compiled.
        lr: The batch. A caller that needs it afterwards passes a clone, since a method may write to it.
        size: Wanted (height, width) in pixels.
        restoration: Kernel of the return from a native factor, `protocol.sr`.
        numerics: Arithmetic of the call; None leaves what is in force, for training, whose shell has set it.
        channels: Channels of the data. Where this is 1 and C is 3, those of SR are equal, whatever a network made of
            them. None takes C.
        name: What the method is called in errors; None takes its class's name.
        watch: Context that surrounds what the restoration costs: the call and the way back to size.

    Raises:
        ContractError: If the method's output has another shape or is not floating-point.
    """
    with watch if watch is not None else nullcontext():
        sr = native(method, lr, size, numerics=numerics, channels=channels, name=name)
        return restore_size(sr, size, restoration) if method.info.output == "hr" else sr


def native(
    method: Method,
    lr: Tensor,
    size: tuple[int, int],
    *,
    numerics: Numerics | None,
    channels: int | None = None,
    name: str | None = None,
) -> Tensor:
    """Restore LR `(N, C, h, w)` as `restore` does, and leave SR `(N, C, H, W)`, float32, at the method's own factor.

    Where `serves_all_sizes` holds, one such SR can be brought to any size.

    Args:
        method: The method, as it is or compiled.
        lr: The batch; a method may write to it.
        size: Wanted (height, width) in pixels.
        numerics: Arithmetic of the call; None leaves what is in force.
        channels: As in `restore`.
        name: What the method is called in errors; None takes its class's name.

    Raises:
        ContractError: If the method's output has another shape or is not floating-point.
    """
    image = to_channels(lr, method.info.channels)
    sr = call(method, image, size, numerics=numerics, name=name).float()
    return to_channels(to_channels(sr, channels) if channels is not None else sr, lr.shape[1])


def serves_all_sizes(method: Method) -> bool:
    """Say whether what a method makes is the same whatever size it is asked for."""
    return method.info.factor != "any" or method.info.output != "hr"


def call(
    method: Method, lr: Tensor, size: tuple[int, int], *, numerics: Numerics | None, name: str | None = None
) -> Tensor:
    """Return what a method makes of LR `(N, C, h, w)` with the method's own C, as it comes: at its native factor.

    Args:
        method: The method.
        lr: The batch, float32, [0, 1].
        size: Wanted (height, width) in pixels.
        numerics: Arithmetic of the call, or None for what is in force.
        name: What the method is called in errors.

    Raises:
        ContractError: If the output has another shape or is not floating-point.
    """
    with numerics.active() if numerics is not None else nullcontext():
        sr = method(lr, size)
    check_shape(method, sr, lr, size, name=name)
    return sr


def check_shape(method: Method, sr: object, lr: Tensor, size: tuple[int, int], *, name: str | None = None) -> None:
    """Hold the shape and type of a method's output against its contract; the device is not waited for.

    Raises:
        ContractError: Naming what was expected and what came.
    """
    info, who = method.info, name or type(method).__name__
    height, width = lr.shape[-2:]
    if info.output == "own" and isinstance(sr, Tensor) and sr.ndim == 4:
        side = tuple(sr.shape[-2:])
    elif info.output == "lr":
        side = (height, width)
    else:
        side = size if info.factor == "any" else (height * info.factor, width * info.factor)
    expected = (lr.shape[0], lr.shape[1], *side)
    if not isinstance(sr, Tensor) or tuple(sr.shape) != expected:
        got = tuple(sr.shape) if isinstance(sr, Tensor) else type(sr).__name__
        raise ContractError(f"expected sr of shape {expected} from {who!r}, got {got}")
    if not sr.is_floating_point():
        raise ContractError(f"expected a floating-point sr from {who!r}, got {sr.dtype}")


def is_finite(values: Tensor) -> Tensor:
    """Say on the device whether all values are finite, a bool of no dimension; 20 x as fast as asking each of them."""
    if not values.numel():
        return torch.ones((), dtype=torch.bool, device=values.device)
    low, high = values.aminmax()  # NaN passes through
    return torch.isfinite(low) & torch.isfinite(high)


def not_finite(name: str) -> str:
    """Say what is wrong with a method's output that is not finite."""
    return f"expected finite values from {name!r}, got NaN or infinity; check its weights"


def check_finite(name: str, sr: Tensor) -> None:
    """Hold the values of SR against the contract; this waits for the device.

    Raises:
        ContractError: If one is NaN or infinite.
    """
    if not bool(is_finite(sr)):
        raise ContractError(not_finite(name))
