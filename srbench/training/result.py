"""From a prepared run to trained weights: the loop is run, weights and card are saved, and the result says so."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from torch import Tensor, nn

from srbench import weights
from srbench.compute.numerics import tf32_allowed
from srbench.data.catalogue import is_demo
from srbench.errors import RecordError, TrainingError
from srbench.files.atomic import sweep_beside, sweep_temporary, write_bytes
from srbench.files.turns import only_writer
from srbench.records.provenance import code_state, environment
from srbench.training.images import ImageSet
from srbench.training.loop import Loop
from srbench.training.prepare import PreparedRun
from srbench.training.trainee import Trainee, TrainOutcome


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves behind.

    Attributes:
        weights: The weights of the selected epoch, in the run's folder; a copy is found by name from then on.
        history: One row an epoch; epoch 0 is before training.
        epoch: The selected epoch.
        metrics: Its figures on the validation data.
        criterion: What selected it.
        out: Folder of the run: weights/, checkpoint.pt, curves.csv.
        steps: Optimiser steps of the whole run.
        images: Images trained on in all, repeats included.
        seconds: Time of the whole run.
        network: The trained network, in eval mode.
        notes: What else must be known, a sentence each.
    """

    weights: weights.WeightsRef
    history: pd.DataFrame
    epoch: int
    metrics: dict[str, float]
    criterion: str
    out: Path
    steps: int
    images: int
    seconds: float
    network: nn.Module = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def images_per_s(self) -> float:
        """Images trained on a second, validation left out; 0 where nothing was trained."""
        spent = self._of_epochs("seconds").sum()
        return float(self.images / spent) if spent else 0.0

    @property
    def wait_share(self) -> float:
        """Share of the time of training that was spent waiting for data, [0, 1]."""
        spent = self._of_epochs("seconds")
        return float((self._of_epochs("wait_share") * spent).sum() / spent.sum()) if spent.sum() else 0.0

    def _of_epochs(self, column: str) -> pd.Series:
        if column not in self.history:  # nothing but the validation before training
            return pd.Series(dtype=float)
        return self.history[column].dropna()

    def summary(self) -> str:
        """Say in a few lines what was trained, how good it is, and how to use it."""
        card = self.weights.card
        namespace = card.namespace if card is not None else ""
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(self.metrics.items()))
        by = "the last" if self.criterion == "none" else f"the best by {self.criterion}"
        use = (
            f"--classifier {self.weights.label}"
            if namespace == "classifiers"
            else f"srbench eval {namespace} --weights {namespace}={self.weights.label}"
        )
        return (
            f"{namespace} {self.weights.label}: epoch {self.epoch} is {by} ({metrics})\n"
            f"{self.steps} steps, {self.images} images, {self.seconds:.0f} s;"
            f" {self.images_per_s:.3g} images/s while training, {self.wait_share:.0%} of it waiting for data\n"
            f"weights in {self.out / 'weights' / self.weights.path.name}, curves in {self.out / 'curves.csv'}\n"
            f"use them with: {use}" + "".join(f"\nnote: {note}" for note in self.notes)
        )


def fit(run: PreparedRun, trainee: Trainee) -> TrainOutcome:
    """Run the loop in the arithmetic of the run.

    Raises:
        BusyError: If another run trains into the same folder.
    """
    with only_writer(run.out, wait=False) if run.fabric.is_global_zero else nullcontext():
        if run.fabric.is_global_zero:
            sweep_temporary(run.out)
        loop = Loop(trainee, run.fabric, out=run.out, seed=run.options.seed, progress=run.options.progress)
        if run.options.resume:
            loop.resume()
        with tf32_allowed(run.numerics.tf32):
            return loop.run()


def save_weights(
    run: PreparedRun,
    card: weights.Card,
    state: Mapping[str, Tensor],
    outcome: TrainOutcome,
    *,
    images: ImageSet,
    val_images: ImageSet,
    classifier_state: Mapping[str, Tensor] | None = None,
    started: weights.WeightsFile | None = None,
) -> weights.WeightsRef:
    """Write the weights and their card into the run's folder, and into the user's folder, where names resolve.

    Args:
        run: The run.
        card: What is special to the network; all that the run and its outcome say is added to it.
        state: Parameters.
        outcome: How the run ended.
        images: What was trained on.
        val_images: What was validated on.
        classifier_state: Parameters of the classifier trained along.
        started: The weights that training started from; their licence goes on, unless the run names another.

    Raises:
        TrainingError: If the weights cannot be copied into the user's folder.
    """
    target = weights.weights_dir() / card.namespace / f"{card.name}{weights.SUFFIX}"
    own = run.out / "weights" / target.name
    if run.fabric.is_global_zero:
        card = dataclasses.replace(
            card,
            track=run.recipe.track,
            tasks=names if len(names := tuple({each.name for each in run.data})) == 1 and is_demo(names[0]) else (),
            recipe=run.recipe.to_json(),
            data={"train": images.describe(), "val": val_images.describe(), "limit": run.options.limit},
            command=run.options.command,
            commit=_commit(),
            device=environment(run.fabric.device).device,
            date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            metrics=outcome.metrics,
            licence=run.options.licence or (started.ref.licence if started is not None else ""),
            extra=_outcome_fields(run, outcome) | {"init": _start(started)} | dict(card.extra),
        )
        weights.save(own, state, card, classifier_state=classifier_state, store_fp16=run.recipe.store_fp16)
        _install(own, target)
    run.fabric.barrier()
    return weights.find(card.namespace, str(own))


def to_result(
    run: PreparedRun,
    outcome: TrainOutcome,
    *,
    saved: weights.WeightsRef,
    network: nn.Module,
    notes: tuple[str, ...] = (),
) -> TrainingResult:
    """Put together what the caller gets."""
    return TrainingResult(
        weights=saved,
        history=pd.DataFrame(outcome.history),
        epoch=outcome.epoch,
        metrics=outcome.metrics,
        criterion=outcome.criterion,
        out=run.out,
        steps=outcome.steps,
        images=outcome.images,
        seconds=outcome.seconds,
        network=network,
        notes=notes,
    )


def _outcome_fields(run: PreparedRun, outcome: TrainOutcome) -> dict[str, Any]:
    frame = pd.DataFrame(outcome.history)
    return {
        "seed": run.options.seed,
        "recipe_name": run.recipe_name,
        "protocol": {"name": run.protocol.name, "fingerprint": run.protocol.fingerprint},
        "selected_epoch": outcome.epoch,
        "selected_by": outcome.criterion,
        "steps": outcome.steps,
        "image_steps": outcome.images,
        "seconds": round(outcome.seconds, 1),
        "ranks": run.fabric.world_size,
        "precision": run.numerics.name,
        "history": {key: [_short(value) for value in frame[key]] for key in frame},
    }


def _start(started: weights.WeightsFile | None) -> str | None:
    """Say what training started from: a hash that is the same for starts that differ in their seed alone, or None."""
    if started is None:
        return None
    card = started.ref.card
    return started.ref.sha256 if card is None else weights.lineage(card.to_json())


def _commit() -> str | None:
    state = code_state()
    return f"{state.commit}-dirty" if state.commit and state.dirty else state.commit


def _short(value: Any) -> float | int | None:
    """Round to six significant digits; the card is for reading, the CSV file has all of them."""
    if isinstance(value, int | np.integer):
        return int(value)
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _install(source: Path, target: Path) -> None:
    """Copy weights and card to where names are looked up; a reader never sees half a file."""
    try:
        pairs = [(source.with_suffix(suffix), target.with_suffix(suffix)) for suffix in (weights.SUFFIX, ".json")]
        sweep_beside(copy for _, copy in pairs)
        for original, copy in pairs:
            write_bytes(copy, functools.partial(_copy, original))
    except (OSError, RecordError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise TrainingError(
            f"the weights are in {source}, but could not be copied to {target.parent}:"
            f" {getattr(cause, 'strerror', None) or error}; use them by their path"
        ) from error


def _copy(original: Path, stream: BinaryIO) -> None:
    with original.open("rb") as file:
        shutil.copyfileobj(file, stream)
