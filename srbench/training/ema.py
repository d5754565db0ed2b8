"""Means of a module's parameters, validated and saved in their place: over steps (`ema`), and over the last epochs."""

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
        with _holding(module, self._shadow):
            yield

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"updates": self._updates, "shadow": self._shadow}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint held."""
        self._updates, self._shadow = state["updates"], dict(state["shadow"])


class EpochMean:
    """Plain mean of all parameters at the ends of several epochs; buffers are taken as they are."""

    def __init__(self) -> None:
        """Start with no epoch."""
        self._epochs = 0
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, module: nn.Module, *, first: bool) -> None:
        """Count the module's parameters as they are now; with `first` those that were counted before are forgotten."""
        if first:
            self._epochs, self._sums = 0, {}
        self._epochs += 1
        for name, value in module.named_parameters():
            before = self._sums.get(name)
            self._sums[name] = value.detach().clone() if before is None else before.to(value.device) + value

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Let the module hold the mean inside the context, and its own parameters again after it."""
        with _holding(module, {name: total / self._epochs for name, total in self._sums.items()}):
            yield

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"epochs": self._epochs, "sums": self._sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint held."""
        self._epochs, self._sums = state["epochs"], dict(state["sums"])


@contextmanager
def _holding(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    own = {name: value.detach().clone() for name, value in module.named_parameters()}
    try:
        _copy_into(module, values)
        yield
    finally:
        _copy_into(module, own)


@torch.no_grad()
def _copy_into(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        value.copy_(values[name])
