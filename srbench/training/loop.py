"""The one training loop: on the CPU, one GPU, or the ranks that torchrun started; it resumes to the same weights.

Everything random is a pure function of (seed, epoch, step, rank): the order of the data, the crops and flips, and the
generators of torch, numpy and Python, which are seeded anew before every step. A resumed run therefore needs no state
of a generator, and goes on exactly as the uninterrupted one would have gone on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from srbench.compute.progress import Progress, track
from srbench.errors import TrainingError, TrainingStopped, UsageError
from srbench.method import Batch
from srbench.training import checkpoint
from srbench.training.crops import RawBatch, read_cropped
from srbench.training.curves import Curves
from srbench.training.ema import EpochMean, MovingAverage
from srbench.training.fabric import level, mean_of_ranks, sum_of_ranks
from srbench.training.images import Positions
from srbench.training.losses import UnitScaler
from srbench.training.norms import batch_norms, estimating
from srbench.training.optim import make_optimizer, schedule_factor, set_rates
from srbench.training.plan import epoch_plan, read_ahead
from srbench.training.state import EpochSums, RunState, check_settings
from srbench.training.student import Helper, SealedBatch, Student
from srbench.training.trainee import Phase, Trainee, TrainOutcome
from srbench.training.validation import choose_criterion, figures, is_better

_TRAIN, _CROP, _VALIDATE, _NORM = 2, 3, 4, 5  # streams of random numbers; 1 is the order of the data


class Loop:
    """Networks, optimisers and the state of a run."""

    def __init__(self, trainee: Trainee, fabric: Fabric, *, out: Path, seed: int, progress: bool) -> None:
        """Set networks and optimisers up on the device; at least one part has a parameter that wants a gradient."""
        self._trainee, self._fabric, self._out, self._seed, self._progress = trainee, fabric, out, seed, progress
        self._recipe = trainee.recipe
        self._parts = trainee.parts()
        self._trainable = {
            name: [p for p in part.parameters() if p.requires_grad] for name, part in self._parts.items()
        }
        self._phases = [phase for phase in trainee.phases() if any(self._trainable[name] for name in phase.trains)]
        self._student = Student(trainee, self._phases)
        self._module, *self._optimizers = fabric.setup(self._student, *map(self._optimizer, self._phases))
        self._beside = trainee.helpers()
        self._helpers = {name: Helper(name, self._beside) for name in self._beside.networks} if self._beside else {}
        self._helper_modules: dict[str, Any] = {}
        self._helper_optimizers: dict[str, Any] = {}
        for name, helper in self._helpers.items():
            group = (helper.parameters(), self._recipe.helper_lr or self._recipe.lr)
            self._helper_modules[name], self._helper_optimizers[name] = fabric.setup(
                helper, make_optimizer([group], self._recipe, self._recipe.optimizer)
            )
        self._scaler = UnitScaler()
        self._average = MovingAverage(self._student, self._recipe.ema) if self._recipe.ema else None
        self._mean = EpochMean() if self._recipe.average_epochs > 1 else None
        self._state = RunState()
        self._saved_at = ""
        self._saving = False
        self._began = 0.0
        self._keys = set(self._student.state_dict())

    def resume(self) -> None:
        """Go on from the checkpoint.

        Raises:
            UsageError: If it was made by other settings.
            TrainingError: If it cannot be read.
        """
        path = self._checkpoint_path
        content = checkpoint.read(path)
        try:
            self._take_over(content, f"the checkpoint {path}")
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise TrainingError(
                f"the checkpoint {path} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]});"
                " start over with another --out or --force"
            ) from error
        self._note_saved()

    def _take_over(self, content: Mapping[str, Any], origin: str) -> None:
        check_settings(json.loads(content["settings"]), self._settings(), self._recipe)
        self._student.load_state_dict(content["student"])
        states = (
            content["optimizer"],
            *content.get("optimizers_of_later_phases", content.get("optimizers_of_later_turns", ())),
        )
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        for name, helper in self._helpers.items():
            helper.load_state_dict(content["helpers"][name])
            self._helper_optimizers[name].load_state_dict(content["helper_optimizers"][name])
        self._scaler = UnitScaler(content["sizes"])
        if self._average is not None:
            self._average.load(content["average"])
        if self._mean is not None:
            self._mean.load(content["epoch_mean"])
        self._state = RunState.from_checkpoint(content, origin=origin)
        if self._state.best is not None and set(self._state.best["state"]) != self._keys:
            raise ValueError("best.state holds other parameters")

    def run(self) -> TrainOutcome:
        """Train to the end and leave the selected epoch's parameters in the parts.

        Raises:
            TrainingError: If a loss, a gradient or a parameter is no longer finite, something frozen was thawed, or a
                checkpoint cannot be written.
            TrainingStopped: If somebody stopped it; what was saved is named.
        """
        fabric = self._fabric
        curves = Curves(self._out) if fabric.is_global_zero else None
        self._began = time.perf_counter() - self._state.seconds
        self._trainee.guard()
        try:
            self._train(curves)
        except KeyboardInterrupt as error:
            raise TrainingStopped(self._how_to_go_on()) from error
        finally:
            if curves is not None:
                curves.close()
        best = self._state.best
        assert best is not None
        self._student.load_state_dict(best["state"])
        level(fabric, self._student, parameters=True)
        return TrainOutcome(
            history=self._state.history,
            epoch=best["epoch"],
            metrics=best["metrics"],
            criterion=self._state.criterion,
            steps=self._state.steps,
            images=self._state.images,
            seconds=self._elapsed(),
        )

    def _train(self, curves: Curves | None) -> None:
        state, recipe = self._state, self._recipe
        epochs = recipe.epochs if recipe.losses else 0
        total = (recipe.steps_per_epoch or len(self._plan(1))) * epochs
        shows = self._progress and self._fabric.is_global_zero
        with track("training", total, unit="steps", done=state.steps, show=shows) as bar:
            if not state.history:
                bar.describe("validating")
                self._finish_epoch({"epoch": 0, "step": 0}, curves)
            for epoch in range(state.epoch + 1, epochs + 1):
                bar.describe(f"epoch {epoch}/{epochs}")
                row = self._train_epoch(epoch, bar)
                self._trainee.guard()
                self._check_keys()
                bar.describe("validating")
                self._finish_epoch(row, curves)

    # --- the steps of an epoch

    def _train_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        fabric, recipe, state = self._fabric, self._recipe, self._state
        plan = self._plan(epoch)
        began = time.perf_counter()
        images_before = state.images
        seconds_before, waited = state.running.seconds, 0.0
        batches = self._read(_CROP, epoch, [batch for step in plan for batch in step], state.step * recipe.accumulate)
        self._train_mode()
        for number in range(state.step, len(plan)):
            _reseed(self._seed, _TRAIN, epoch, number, fabric.global_rank)
            factor = schedule_factor(recipe, epoch=epoch, step=number, steps=len(plan))
            set_rates((*self._optimizers, *self._helper_optimizers.values()), factor)
            loss = 0.0
            held: list[Batch] = []
            count = len(plan[number])
            self._enter(self._phases[0])
            for index in range(count):
                start = time.perf_counter()
                raw = next(batches)
                waited += time.perf_counter() - start
                batch = self._trainee.make_batch(raw)
                last = index == count - 1
                self._step_helpers(batch, count=count, last=last)
                loss += self._backward(batch, 0, count=count, last=last)
                state.images += len(raw.positions) * fabric.world_size
                if len(self._phases) > 1:
                    held.append(batch)
            self._update(0)
            for phase in range(1, len(self._phases)):
                self._enter(self._phases[phase])
                for batch in held:
                    loss += self._backward(batch, phase, count=len(held), last=batch is held[-1])
                self._update(phase)
            if self._average is not None:
                self._average.update(self._student)
            ends = number == len(plan) - 1
            saves = not ends and recipe.checkpoint_every > 0 and (state.steps + 1) % recipe.checkpoint_every == 0
            if ends or saves:
                self._check_finite()
            state.step, state.steps = number + 1, state.steps + 1
            spent = time.perf_counter() - began
            speed = (state.images - images_before) / spent
            bar(1, figures=(f"loss {loss:.4g}", f"{speed:.3g} images/s", f"{waited / spent:.0%} waiting for data"))
            if saves:
                state.running.seconds = seconds_before + spent
                self._save()
        self._enter(None)
        spent = time.perf_counter() - began
        row = {"epoch": epoch, "step": state.steps, "lr": self._optimizers[0].param_groups[0]["lr"]}
        row |= state.running.means()
        row |= {
            "seconds": seconds_before + spent,
            "images_per_s": (state.images - images_before) / spent if spent else 0.0,
            "wait_share": waited / spent if spent else 0.0,
        }
        state.epoch, state.step, state.running = epoch, 0, EpochSums()
        return row

    def _enter(self, phase: Phase | None) -> None:
        """Let gradients reach the parts of a phase alone, and put the others into eval mode; None thaws all."""
        if len(self._phases) == 1:
            return
        self._trainee.train_mode()
        for name, part in self._parts.items():
            trained = phase is None or name in phase.trains
            for parameter in self._trainable[name]:
                parameter.requires_grad_(trained)
            if not trained:
                part.eval()

    def _backward(self, batch: Batch, phase: int, *, count: int, last: bool) -> float:
        """Add one batch's share to the gradients of a phase and return its share of the loss."""
        losses, scaled = self._phases[phase].losses, self._phases[phase].scaled
        with self._fabric.no_backward_sync(self._module, enabled=not last):
            terms: dict[str, Tensor] = self._module(SealedBatch(batch, phase=phase))
            values = self._values(terms)
            if scaled and self._scaler.missing(terms):
                self._scaler.measure(values)
            total = torch.zeros((), device=batch.hr.device)
            for name, term in terms.items():
                unit = self._scaler(name, term) if scaled else term
                total = total + losses[name] * unit
            scale = self._scaler.sizes if scaled else {}
            summed = sum(losses[name] * value / scale.get(name, 1.0) for name, value in values.items())
            if not math.isfinite(summed):
                broken = [name for name, value in values.items() if not math.isfinite(value)] or list(values)
                self._stop("loss", f"; term {', '.join(broken)}")
            if not total.requires_grad:
                raise UsageError(
                    f"no gradient reaches the parameters of {self._trainee.who}, so it cannot be trained; start from"
                    " another network"
                )
            self._fabric.backward(total / count)
        running = self._state.running
        for name, value in values.items():
            running.add(name, value)
        running.add("loss", summed)
        running.batches += phase == 0
        return summed / count

    def _step_helpers(self, batch: Batch, *, count: int, last: bool) -> None:
        """Train the helpers on SR as the method makes it now, before the method itself is stepped."""
        if self._beside is None:
            return
        with torch.no_grad(), self._fabric.autocast():
            sr = self._beside.restore(batch).float().detach()
        for name, module in self._helper_modules.items():
            with self._fabric.no_backward_sync(module, enabled=not last):
                loss = module(SealedBatch(batch, sr))
                self._state.running.add(f"helper_{name}", float(mean_of_ranks(self._fabric, loss)))
                self._fabric.backward(loss / count)
            if last:
                self._apply(module, self._helper_optimizers[name])

    def _update(self, phase: int) -> None:
        self._apply(self._module, self._optimizers[phase])

    def _apply(self, module: Any, optimizer: Any) -> None:
        """Clip the gradients if the recipe says so, and step."""
        if self._recipe.clip_norm is not None:
            norm = self._fabric.clip_gradients(
                module, optimizer, max_norm=self._recipe.clip_norm, error_if_nonfinite=False
            )
            if norm is not None and not bool(torch.isfinite(norm)):
                self._stop("gradient")  # clipped, it would turn every parameter into NaN
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _check_finite(self) -> None:
        """Stop before a parameter that is no longer finite is validated or saved."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self._student.parameters()):
            self._stop("gradient")

    def _stop(self, what: str, where: str = "") -> None:
        """End the run with one sentence.

        Args:
            what: What is not finite, such as "loss".
            where: What else there is to say about it, in brackets after the step.
        """
        state = self._state
        kept = (
            f"the last good checkpoint is {self._checkpoint_path} ({self._saved_at})"
            if self._saved_at
            else "no checkpoint had been written yet"
        )
        raise TrainingError(
            f"the {what} of {self._trainee.who} is no longer finite at epoch {state.epoch + 1}, step {state.step + 1}"
            f" (step {state.steps + 1} of the run{where}); {kept};"
            f" lower lr{'' if self._recipe.clip_norm else ' or set clip_norm'}, and start over with --force"
        )

    # --- the end of an epoch

    def _finish_epoch(self, row: dict[str, Any], curves: Curves | None) -> None:
        """Validate, keep the state if it is the best, and save."""
        recipe, state, epoch = self._recipe, self._state, int(row["epoch"])
        last, first = recipe.epochs, max(recipe.epochs - recipe.average_epochs, 0) + 1
        if self._mean is not None and epoch >= first:
            with self._averaged():
                self._mean.add(self._student, first=epoch == first)
        if epoch % recipe.validate_every == 0 or epoch == last:
            mean = self._mean if epoch == last else None
            with mean.applied(self._student) if mean is not None else self._averaged():
                self._estimate_norms(epoch)
                level(self._fabric, self._student)
                metrics = self._validate(epoch)
                if not state.criterion:
                    state.criterion = choose_criterion(recipe.select, metrics)
                if is_better(state.criterion, metrics, state.best["metrics"] if state.best else None):
                    state.best = {"epoch": epoch, "metrics": metrics, "state": _on_cpu(self._student.state_dict())}
            row |= {f"val_{name}": value for name, value in metrics.items()}
        state.history.append(row)
        if curves is not None:
            curves.write(state.history)
        self._save()

    def _validate(self, epoch: int) -> dict[str, float]:
        modes = [(module, module.training) for module in self._student.modules()]
        self._student.eval()
        _reseed(self._seed, _VALIDATE, epoch, 0, 0)
        try:
            with torch.no_grad():
                sums = self._trainee.validate(self._fabric.global_rank, self._fabric.world_size)
        finally:
            for module, training in modes:
                module.training = training
        return figures(sum_of_ranks(self._fabric, sums))

    def _estimate_norms(self, epoch: int) -> None:
        """Estimate batch-norm statistics anew on training batches."""
        if not self._recipe.norm_steps or not batch_norms(self._student):
            return
        self._train_mode()
        plan = [batch for step in self._plan(epoch + 1) for batch in step][: self._recipe.norm_steps]
        _reseed(self._seed, _NORM, epoch, 0, self._fabric.global_rank)
        with estimating(self._student):
            with torch.no_grad(), self._fabric.autocast():
                for raw in self._read(_NORM, epoch, plan):
                    batch = self._trainee.make_batch(raw)
                    if not self._recipe.losses:  # then nothing else is learned from images
                        self._state.images += len(raw.positions) * self._fabric.world_size
                    for number, phase in enumerate(self._phases):
                        self._enter(phase)
                        self._student(SealedBatch(batch, phase=number))
            self._enter(None)

    # --- checkpoints

    @property
    def _checkpoint_path(self) -> Path:
        return self._out / checkpoint.NAME

    def _save(self) -> None:
        # Ranks hold equal parameters; their buffers are levelled, so that any of them could go on from this file.
        level(self._fabric, self._student)
        for helper in self._helpers.values():
            level(self._fabric, helper)
        if self._fabric.is_global_zero:
            self._state.seconds = self._elapsed()
            content = self._state.to_checkpoint() | {
                "settings": json.dumps(self._settings()),
                "student": self._student.state_dict(),
                "optimizer": self._optimizers[0].state_dict(),
                "optimizers_of_later_phases": [each.state_dict() for each in self._optimizers[1:]],
                "helpers": {name: helper.state_dict() for name, helper in self._helpers.items()},
                "helper_optimizers": {name: each.state_dict() for name, each in self._helper_optimizers.items()},
                "average": self._average.state() if self._average is not None else None,
                "sizes": dict(self._scaler.sizes),
            }
            if self._mean is not None:
                content["epoch_mean"] = self._mean.state()
            self._saving = True
            checkpoint.write(self._checkpoint_path, content)
        self._note_saved()
        self._saving = False
        self._fabric.barrier()

    def _note_saved(self) -> None:
        self._saved_at = f"epoch {self._state.epoch}, step {self._state.steps}"

    def _how_to_go_on(self) -> str:
        if self._saving and checkpoint.holds(self._checkpoint_path, self._state.epoch, self._state.steps):
            self._note_saved()  # stopped between the write and the note of it
        if not self._saved_at:
            return "training stopped; nothing had been saved yet, so the same command starts over"
        return (
            f"training stopped; the same command with --resume goes on from {self._checkpoint_path} ({self._saved_at})"
        )

    def _settings(self) -> dict[str, Any]:
        settings = dict(self._trainee.settings())
        settings |= {"recipe": self._recipe.to_json(), "seed": self._seed, "ranks": self._fabric.world_size}
        return json.loads(json.dumps(settings))

    # --- small things

    def _plan(self, epoch: int) -> list[list[Positions]]:
        return epoch_plan(
            self._trainee.images,
            self._recipe,
            seed=self._seed,
            epoch=epoch,
            rank=self._fabric.global_rank,
            world=self._fabric.world_size,
        )

    def _read(self, stream: int, epoch: int, batches: list[Positions], first: int = 0) -> Iterator[RawBatch]:
        """Read batches in order from `first` on, a few ahead of the device."""

        def read(number: int) -> RawBatch:
            draws = np.random.default_rng([self._seed, stream, epoch, number, self._fabric.global_rank])
            raw = read_cropped(self._trainee.images, batches[number], self._recipe, draws)
            return dataclasses.replace(raw, number=(epoch - 1) * len(batches) + number)

        return read_ahead(read, range(first, len(batches)))

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        rates = self._trainee.rates()
        groups = [(self._trainable[name], rates[name]) for name in phase.trains if self._trainable[name]]
        return make_optimizer(groups, self._recipe, phase.optimizer)

    def _train_mode(self) -> None:
        self._trainee.train_mode()
        for helper in self._helpers.values():
            helper.train()

    def _values(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the terms as numbers, equal on all ranks, so that all of them stop where one is not finite."""
        stacked = torch.stack([term.detach().float() for term in terms.values()])
        return dict(zip(terms, mean_of_ranks(self._fabric, stacked).tolist(), strict=True))

    def _averaged(self) -> AbstractContextManager[None]:
        return self._average.applied(self._student) if self._average is not None else nullcontext()

    def _check_keys(self) -> None:
        extra = sorted(set(self._student.state_dict()) - self._keys)
        if extra:
            raise TrainingError(
                f"{self._trainee.who} gained parameters while it was trained, such as {extra[0]}, which would be saved"
                " with it; keep the teacher and the helpers out of the module, in a plain list or dict"
            )

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


def _reseed(*numbers: int) -> None:
    seed = int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
