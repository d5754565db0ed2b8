"""Describes the method under check and raises the error of a failed check."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srbench.method import Method

ODD = (13, 18)  # LR (height, width): not square, one side odd
UP, DOWN = (41, 57), (7, 5)  # sizes asked of methods that take any


@dataclass(frozen=True)
class Subject:
    """The method that is checked.

    Attributes:
        name: The name it is registered under.
        cls: Its class.
    """

    name: str
    cls: type[Method]

    @property
    def trainable(self) -> bool:
        """Whether it has recipes."""
        return bool(self.cls.recipes)

    def build(self) -> Method:
        """Return the smallest network, reproducibly, in eval mode."""
        torch.manual_seed(0)
        return self.cls(**self.cls.tiny).eval()

    def images(self, height: int, width: int, *, n: int = 2, seed: int = 0) -> Tensor:
        """Return `(n, C, height, width)`, float32, with both ends of [0, 1] in it."""
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(n, self.cls.info.channels, height, width, generator=generator)
        images[..., 0, 0], images[..., -1, -1] = 0.0, 1.0
        return images


class FailedError(Exception):
    """A check that did not pass; the message says what was seen and what to do."""


def require(holds: bool, message: str) -> None:
    """Go on if something holds.

    Raises:
        FailedError: With the message, if it does not.
    """
    if not holds:
        raise FailedError(message)


def arguments(method_class: type[Method]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a method's constructor by name."""
    if method_class.__init__ is nn.Module.__init__:  # its *args are a formality
        return {}
    return inspect.signature(method_class).parameters
