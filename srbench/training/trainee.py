"""Defines `Trainee`, the interface between the training loop and what it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from srbench.method import Batch
from srbench.training.crops import RawBatch
from srbench.training.images import ImageSet
from srbench.training.recipe import Recipe
from srbench.training.validation import Sums


@dataclass(frozen=True)
class Phase:
    """One of the optimiser steps of a training step; the parts that it does not train stand still in eval mode.

    Attributes:
        trains: Names of the parts that it trains.
        losses: Weight of every loss term.
        step: Returns the loss terms of a batch by name, each a scalar.
        optimizer: "adam", "adamw", "sgd" or "soap".
        scaled: Whether every term is divided by its size on the first batch.
    """

    trains: tuple[str, ...]
    losses: Mapping[str, float]
    step: Callable[[Batch], Mapping[str, Tensor]]
    optimizer: str
    scaled: bool


@dataclass(frozen=True)
class Helpers:
    """Networks that are trained beside the parts, on what these restore, and are not saved with them (a discriminator).

    Attributes:
        networks: The networks by name.
        loss: Returns the loss of one of them by its name, a scalar, of a batch and its detached SR at `batch.sr_size`.
        restore: Returns SR of a batch at `batch.sr_size`, `(N, C, H, W)`, RGB or grey, float.
    """

    networks: Mapping[str, nn.Module]
    loss: Callable[[str, Batch, Tensor], Tensor]
    restore: Callable[[Batch], Tensor]


class Trainee(ABC):
    """What is trained. The loop asks it for networks and losses, and knows nothing of methods and classifiers.

    Attributes:
        who: Name for error messages.
        recipe: The recipe.
        images: The training images.
    """

    who: str
    recipe: Recipe
    images: ImageSet

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """Return the networks whose parameters are trained, by name."""

    @abstractmethod
    def rates(self) -> Mapping[str, float]:
        """Return the learning rate of each part."""

    @abstractmethod
    def train_mode(self) -> None:
        """Put the parts into the modes that they are trained in."""

    @abstractmethod
    def make_batch(self, raw: RawBatch) -> Batch:
        """Turn what the readers give into a batch on the device."""

    @abstractmethod
    def step(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the loss terms of a batch by name, each a scalar, with gradient for all parts at once."""

    @abstractmethod
    def validate(self, rank: int, world: int) -> Sums:
        """Return this rank's share of the validation figures; the parts are in eval mode."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return what must be equal for a checkpoint to be resumed, as plain JSON types."""

    def phases(self) -> tuple[Phase, ...]:
        """Return what a training step does one after the other: here one phase, which trains all parts by `step`."""
        recipe = self.recipe
        return (Phase(tuple(self.parts()), recipe.losses, self.step, recipe.optimizer, recipe.scales_terms),)

    def guard(self) -> None:  # noqa: B027 most trainees hold nothing frozen
        """Raise if something that must stay frozen has been thawed.

        Raises:
            TrainingError: Naming what was thawed.
        """

    def helpers(self) -> Helpers | None:
        """Return what is trained beside the parts, or None."""
        return None


@dataclass(frozen=True)
class TrainOutcome:
    """What a run ended with; the parts of the trainee hold the selected epoch's parameters on every rank.

    Attributes:
        history: One row an epoch, epoch 0 before training.
        epoch: The selected epoch.
        metrics: Its figures on the validation data.
        criterion: What selected it.
        steps: Optimiser steps in all.
        images: Images trained on in all, on all ranks, repeats included.
        seconds: Time of the run, earlier parts of a resumed one included.
    """

    history: list[dict[str, Any]]
    epoch: int
    metrics: dict[str, float]
    criterion: str
    steps: int
    images: int
    seconds: float
