"""The method of a call: its weights, and how it restores a picture, whole or tile by tile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from srbench import __version__
from srbench.compute.numerics import Numerics
from srbench.errors import ContractError, is_out_of_memory, sentence
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.imaging.codecs import Picture, Pixels, without_fringe
from srbench.imaging.resample import resize
from srbench.imaging.tiles import Restore, canvas, enlarged_side, rounded_up, tiled, window_multiple
from srbench.method import Method
from srbench.protocol import Protocol, load_protocol
from srbench.restore import check_finite, restore

_PROTOCOL = "clean"


def protocol_of_factor(factor: float) -> Protocol:
    """Return the protocol whose return to size and rounding hold here; a method may ask it for its scale."""
    protocol = load_protocol(_PROTOCOL)
    return protocol.at_scale(1 / factor) if factor >= 1 else protocol


@dataclass(frozen=True)
class Engine:
    """A method as it is used here.

    Attributes:
        loaded: The method with its weights.
        protocol: Its kernel returns a native factor to the wanted one.
        factor: Enlargement of both sides.
        tile: Side of a tile in LR pixels, or None.
        device: Where the method runs.
    """

    loaded: LoadedMethod
    protocol: Protocol
    factor: float
    tile: int | None
    device: torch.device

    def __post_init__(self) -> None:
        self.method.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def method(self) -> Method:
        """The network or kernel itself."""
        assert self.loaded.method is not None  # it is loaded, or there was an error
        return self.loaded.method

    @cached_property
    def multiple(self) -> int:
        """LR pixels at whose multiples the method's tiles begin and end."""
        return window_multiple(self.method)

    @property
    def notes(self) -> list[str]:
        """What is said of the call's options: a side of a tile that does not fit the network's windows."""
        if self.tile is None or self.tile % self.multiple == 0:
            return []
        used, windows = rounded_up(self.tile, self.multiple), f"the {self.multiple} pixels of {self.loaded.name}"
        return [f"--tile {self.tile} is rounded up to {used}, a multiple of {windows}"]

    def made(self, sha256: str) -> str:
        """Return how a result comes from a file of that hash; tiles are no part of it."""
        ref = self.loaded.weights.ref if self.loaded.weights is not None else None
        return (
            (
                f"srbench {__version__}: {self.loaded.name} {self.method.info.version},"
                f" weights {ref.sha256[:12] if ref else 'none'}, x{self.factor!r}, of {sha256[:16]}"
            )
            .encode("ascii", "replace")
            .decode()
        )

    def restore(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(1, C, h, w)`, RGB or grey, float32, [0, 1], to `(1, C, *size)`."""
        info, name, grey = self.method.info, self.loaded.name, lr.shape[1] == 1
        if info.channels == 1 and not grey:
            raise ContractError(f"method {name!r} takes grey images alone; turn this one grey or take another method")
        try:
            sr = restore(
                self.method,
                lr.clone(),
                size,
                restoration=self.protocol.sr,
                numerics=Numerics.of(self.device, "fp32"),
                channels=lr.shape[1],
                name=name,
            )
        except ContractError:
            raise
        except Exception as error:
            # whatever a method does wrong is said with the picture's name; the other pictures go on
            raise ContractError(_failure(name, lr, error)) from error
        check_finite(name, sr)
        return sr

    def alpha(self, alpha: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample `(1, 1, h, w)`, [0, 1], by bicubic with antialias, whatever the method is."""
        return resize(alpha, size, "bicubic")

    def enlarge(self, picture: Picture, tick: Callable[[], None]) -> Picture:
        """Return the picture at its new size."""
        height, width = picture.pixels.shape[:2]
        size = (enlarged_side(height, self.factor), enlarged_side(width, self.factor))
        (tall, target_tall), (wide, target_wide) = canvas((height, width), self.factor)

        def whole(pixels: Pixels, restore: Restore, device: torch.device, tick: Callable[[], None] | None) -> Pixels:
            extended = np.pad(pixels, ((0, tall - height), (0, wide - width), (0, 0)), mode="edge")
            result = tiled(
                extended,
                (target_tall, target_wide),
                restore,
                tile=self.tile,
                multiple=self.multiple,
                device=device,
                tick=tick,
            )
            return np.ascontiguousarray(result[: size[0], : size[1]])

        pixels, alpha = whole(visible_pixels(picture), self.restore, self.device, tick), None
        if picture.alpha is not None:
            alpha = whole(picture.alpha[..., None], self.alpha, torch.device("cpu"), None)[..., 0]
        return dataclasses.replace(picture, pixels=pixels, alpha=alpha)


def _failure(name: str, lr: Tensor, error: Exception) -> str:
    height, width = lr.shape[-2:]
    if is_out_of_memory(error):
        tile = max(16, min(height, width) // 4)
        return f"{width} x {height} pixels at once are too many for the memory; try --tile {tile}"
    return f"method {name!r} fails on {width} x {height} pixels: {sentence(error)}"


def visible_pixels(picture: Picture) -> Pixels:
    """Return `(H, W, C)` uint8 as the method and the classifier see it."""
    return picture.pixels if picture.alpha is None else without_fringe(picture.pixels, picture.alpha)
