"""How far a run has come: what a checkpoint holds beside parameters, and whether it is a checkpoint of this run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from srbench.errors import TrainingError, UsageError
from srbench.files.validate import Count, NotNegative, validated
from srbench.training.recipe import RENAMED, Recipe


@dataclass
class EpochSums:
    """Sums over the epoch that runs.

    Attributes:
        terms: Sum of each loss term over the batches, and of the whole loss as "loss".
        batches: Number of batches.
        seconds: Time spent before the last resume.
    """

    terms: dict[str, float] = field(default_factory=dict)
    batches: int = 0
    seconds: float = 0.0

    def add(self, name: str, value: float) -> None:
        """Add a term of one batch."""
        self.terms[name] = self.terms.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the mean loss as "loss", and that of each term as "loss_NAME", in the order of their names."""
        batches = max(self.batches, 1)
        terms = {f"loss_{name}": total / batches for name, total in sorted(self.terms.items()) if name != "loss"}
        return {"loss": self.terms["loss"] / batches} | terms


@dataclass
class RunState:
    """Counters, history and the best epoch so far.

    Attributes:
        history: One row an epoch, epoch 0 before training.
        best: The best epoch: "epoch", "metrics" and "state" on the CPU; None before the first validation.
        criterion: What selects it; "" before the first validation.
        epoch: Completed epochs.
        step: Completed optimiser steps of the epoch that runs.
        steps: Completed optimiser steps in all.
        images: Images trained on in all, on all ranks.
        seconds: Time of the run up to the checkpoint.
        running: Sums over the epoch that runs.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    criterion: str = ""
    epoch: int = 0
    step: int = 0
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    running: EpochSums = field(default_factory=EpochSums)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return tensors and plain values by name."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"history": json.dumps(self.history), "running": asdict(self.running)}

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any], *, origin: str) -> RunState:
        """Read what `to_checkpoint` gave; `origin` begins the sentence of an error.

        Raises:
            TrainingError: If a value is missing, of another type or out of range.
        """
        raw = {item.name: content.get(item.name) for item in fields(_Progress)}
        raw["history"] = json.loads(content["history"])
        best = content["best"]
        if best is not None:
            raw["best"] = {name: value for name, value in best.items() if name != "state"}
        remedy = "; start over with another --out or --force"
        progress = validated(_Progress, raw, origin=origin, error=TrainingError, remedy=remedy)
        if (best is None) != (not progress.history):
            raise TrainingError(f"{origin}: best and history contradict each other{remedy}")
        plain = {name: getattr(progress, name) for name in _PLAIN if name != "best"}
        return cls(history=list(progress.history), best=best, running=progress.running, **plain)


_PLAIN = ("best", "criterion", "epoch", "step", "steps", "images", "seconds")


@dataclass(frozen=True)
class _Best:
    epoch: Count
    metrics: dict[str, Any]


@dataclass(frozen=True)
class _Progress:
    """What is plain of a `RunState` in a checkpoint."""

    history: tuple[dict[str, Any], ...]
    best: _Best | None
    criterion: str
    epoch: Count
    step: Count
    steps: Count
    images: Count
    seconds: NotNegative
    running: EpochSums


def check_settings(then: Mapping[str, Any], now: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse a checkpoint of another run; more epochs are no other run unless the schedule depends on them.

    Args:
        then: The checkpoint's settings: "recipe", "seed", "ranks" and the trainee's own.
        now: Those of this run.
        recipe: The recipe of this run.

    Raises:
        UsageError: Naming the settings that differ.
    """
    defaults = Recipe().to_json()  # settings that did not exist then were at their defaults
    given = {RENAMED.get(key, key): value for key, value in then["recipe"].items()}
    augment = defaults["augment"] | given.get("augment", {})
    flat_then = {**defaults, **given, "augment": augment, **then}
    flat_now = {**now["recipe"], **now}
    for settings in (flat_then, flat_now):
        del settings["recipe"]
        if recipe.schedule != "cosine":
            del settings["epochs"]
    lines = [
        f"{key}: {flat_then.get(key)} then, {flat_now.get(key)} now"
        for key in sorted(set(flat_then) | set(flat_now))
        if flat_then.get(key) != flat_now.get(key)
    ]
    if lines:
        raise UsageError(
            f"the checkpoint was made with other settings ({'; '.join(lines[:4])});"
            " give the same ones to go on, or --force to start over"
        )
