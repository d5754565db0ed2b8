"""A moving average of a module's parameters, which is what is validated and saved where a recipe sets `ema`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """Moving average of all parameters; buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the module's parameters.

        Args:
            module: What is averaged.
            decay: Share of the average that one update leaves, below 1.
        """
        self._decay = decay
        self._updates = 0
        self._shadow = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the module's parameters; the first steps count more, so that the start is forgotten."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, value in module.named_parameters():
            self._shadow[name] = self._shadow[name].to(value.device).lerp_(value, 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module hold the average inside the context, and its own parameters again after it."""
        own = {name: value.detach().clone() for name, value in module.named_parameters()}
        try:
            _copy_into(module, self._shadow)
            yield
        finally:
            _copy_into(module, own)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"updates": self._updates, "shadow": self._shadow}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint held."""
        self._updates, self._shadow = state["updates"], dict(state["shadow"])


@torch.no_grad()
def _copy_into(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        value.copy_(values[name])
