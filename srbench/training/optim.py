"""Optimisers of a recipe, and the learning rate as a pure function of where the run is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from srbench.training.recipe import Recipe


def make_optimizer(
    groups: Iterable[tuple[Iterable[nn.Parameter], float]], recipe: Recipe, name: str
) -> torch.optim.Optimizer:
    """Build an optimiser.

    Args:
        groups: Parameters, and the learning rate that the schedule multiplies.
        recipe: Its momentum and weight decay.
        name: "adam", "adamw", "sgd" or "soap".
    """
    # "lr" follows the schedule, "rate" is what it is multiplied with
    settings: list[dict[str, Any]] = [{"params": list(given), "lr": rate, "rate": rate} for given, rate in groups]
    if name == "sgd":
        return torch.optim.SGD(settings, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    if name == "soap":
        from pytorch_optimizer import SOAP  # two seconds to import

        return SOAP(settings, lr=recipe.lr, weight_decay=recipe.weight_decay)
    optimizer_class = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return optimizer_class(settings, lr=recipe.lr, weight_decay=recipe.weight_decay)


def schedule_factor(recipe: Recipe, *, epoch: int, step: int, steps: int) -> float:
    """Return what the learning rates are multiplied with, from 0 to 1.

    Args:
        recipe: Its schedule and warm-up.
        epoch: Number of the epoch, from 1.
        step: Optimiser steps that are done in it.
        steps: Optimiser steps of an epoch.
    """
    done = (epoch - 1) * steps + step
    warm = min(1.0, (done + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    if recipe.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * done / (recipe.epochs * steps)))
    if recipe.schedule == "step":
        return warm * recipe.gamma ** ((epoch - 1) // recipe.decay_every)
    return warm


def set_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to its base rate times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
