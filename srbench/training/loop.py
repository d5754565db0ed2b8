"""The one training loop: on the CPU, one GPU, or the ranks that torchrun started; it resumes to the same weights.

Everything random is a pure function of (seed, epoch, step, rank): the order of the data, the crops and flips, and the
generators of torch, numpy and Python, which are seeded anew before every step. A resumed run therefore needs no state
of a generator, and goes on exactly as the uninterrupted one would have gone on.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from srbench.compute.devices import use_device
from srbench.errors import TrainingError, UsageError
from srbench.method import Batch
from srbench.training import checkpoint
from srbench.training.curves import Bar, Curves
from srbench.training.data import ImageSet, Positions, RawBatch, epoch_plan, read_cropped
from srbench.training.losses import UnitScaler
from srbench.training.recipe import Recipe
from srbench.training.validation import Sums, Validator, choose_criterion, figures, is_better

_READERS, _AHEAD = 2, 4
_TRAIN, _CROP, _VALIDATE, _NORM = 2, 3, 4, 5  # streams of random numbers; 1 is the order of the data


@dataclass(frozen=True)
class HelperTrainee:
    """A network that is trained beside the method, on its detached output.

    Attributes:
        network: The helper.
        loss: Its loss of a batch and of SR, detached, at `batch.sr_size`.
    """

    network: nn.Module
    loss: Callable[[Batch, Tensor], Tensor]


@dataclass(frozen=True)
class Phase:
    """One of several optimiser steps that a training step consists of; parts that it does not train stand still.

    Attributes:
        trains: Names of the parts that it trains.
        losses: Weight of every loss term.
        step: Loss terms of a batch by name.
        optimizer: "adam", "adamw" or "sgd".
        scaled: Whether every term is divided by its size on the first batch.
    """

    trains: tuple[str, ...]
    losses: Mapping[str, float]
    step: Callable[[Batch], Mapping[str, Tensor]]
    optimizer: str
    scaled: bool


@dataclass(frozen=True)
class Trainee:
    """What is trained, as the loop sees it.

    Attributes:
        who: Name for error messages.
        recipe: The recipe.
        parts: Networks whose parameters are trained, by name.
        rates: Learning rate of each part.
        train_mode: Puts the parts into the modes that they are trained in.
        step: Loss terms of a batch by name, for all parts at once.
        images: What is trained on.
        make_batch: Turns what the readers give into a batch on the device.
        validator: This rank's share of the validation figures; parts are in eval mode then.
        guard: Raises if something that must stay frozen has been thawed.
        helpers: Helper networks by name.
        restore: SR of a batch at `batch.sr_size`, for the helpers.
        settings: What must be equal for a checkpoint to be gone on with, as plain JSON types.
        turns: What a training step does one after the other, where it does not train all parts at once by `step`.
    """

    who: str
    recipe: Recipe
    parts: Mapping[str, nn.Module]
    rates: Mapping[str, float]
    train_mode: Callable[[], None]
    step: Callable[[Batch], Mapping[str, Tensor]]
    images: ImageSet
    make_batch: Callable[[RawBatch], Batch]
    validator: Validator
    guard: Callable[[], None] = lambda: None
    helpers: Mapping[str, HelperTrainee] = field(default_factory=dict)
    restore: Callable[[Batch], Tensor] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class TrainOutcome:
    """What a run ended with; the parts of the job hold the selected epoch's parameters on every rank.

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


def make_fabric(device: str, precision: str) -> Fabric:
    """Return Fabric for a device and precision; under torchrun it joins the other ranks.

    Raises:
        UsageError: If the device or precision is not there.
    """
    if precision not in {"auto", "fp32", "bf16"}:
        raise UsageError(f"--precision takes auto, fp32 or bf16, got {precision!r}")
    accelerator = use_device(device).type
    half = precision == "bf16" or (
        precision == "auto" and accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    )
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local if world > 1 else 1,
        num_nodes=max(1, world // local) if world > 1 else 1,
        # Buffers are levelled by hand before they are used: a broadcast inside forward would overwrite what a second
        # forward pass of the same step still needs for its gradient.
        strategy=DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if world > 1 else "auto",
        precision="bf16-mixed" if half else "32-true",
    )
    fabric.launch()
    return fabric


class Loop:
    """State of a run: networks, optimisers, averages, history."""

    def __init__(self, job: Trainee, fabric: Fabric, *, out: Path, seed: int, progress: bool) -> None:
        """Set networks and optimisers up on the device.

        Raises:
            UsageError: If there is nothing to train.
        """
        self._job, self._fabric, self._out, self._seed, self._progress = job, fabric, out, seed, progress
        self._recipe = job.recipe
        self._trainable = {name: [p for p in part.parameters() if p.requires_grad] for name, part in job.parts.items()}
        together = Phase(tuple(job.parts), job.recipe.losses, job.step, job.recipe.optimizer, job.recipe.scales_terms)
        self._turns = [turn for turn in job.turns or (together,) if any(self._trainable[name] for name in turn.trains)]
        if not self._turns:
            raise UsageError(f"{job.who} has no parameters to train with this recipe; use a recipe of track 'adapted'")
        self._student = _Student(job, self._turns)
        optimizers = [
            _optimizer(
                [
                    {"params": self._trainable[name]} | _rates(job.rates[name])
                    for name in turn.trains
                    if self._trainable[name]
                ],
                self._recipe,
                turn.optimizer,
            )
            for turn in self._turns
        ]
        self._module, *self._optimizers = fabric.setup(self._student, *optimizers)
        self._helpers = {name: _Helper(helper) for name, helper in job.helpers.items()}
        self._helper_modules: dict[str, Any] = {}
        self._helper_optimizers: dict[str, Any] = {}
        for name, helper in self._helpers.items():
            rate = self._recipe.helper_lr or self._recipe.lr
            group = {"params": list(helper.parameters())} | _rates(rate)
            self._helper_modules[name], self._helper_optimizers[name] = fabric.setup(
                helper, _optimizer([group], self._recipe, self._recipe.optimizer)
            )
        self._scaler = UnitScaler()
        self._average = _Average(self._student, self._recipe.ema) if self._recipe.ema else None
        self._history: list[dict[str, Any]] = []
        self._best: dict[str, Any] | None = None
        self._criterion = ""
        self._epoch = 0  # completed
        self._step = 0  # completed inside the epoch that runs
        self._steps = 0  # completed in all
        self._images = 0
        self._seconds = 0.0
        self._running = _Running()
        self._saved_at = ""
        self._keys = set(self._student.state_dict())

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint lies."""
        return self._out / checkpoint.NAME

    def resume(self) -> None:
        """Go on from the checkpoint.

        Raises:
            UsageError: If it was made by other settings.
            TrainingError: If it cannot be read.
        """
        content = checkpoint.read(self.checkpoint_path)
        _check_settings(json.loads(content["settings"]), self._settings(), self._recipe)
        self._student.load_state_dict(content["student"])
        states = (content["optimizer"], *content.get("optimizers_of_later_turns", ()))
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        for name, helper in self._helpers.items():
            helper.load_state_dict(content["helpers"][name])
            self._helper_optimizers[name].load_state_dict(content["helper_optimizers"][name])
        self._scaler = UnitScaler(content["sizes"])
        if self._average is not None:
            self._average.load(content["average"])
        self._history = json.loads(content["history"])
        self._best = content["best"]
        self._criterion = content["criterion"]
        self._epoch, self._step, self._steps = content["epoch"], content["step"], content["steps"]
        self._images, self._seconds = content["images"], content["seconds"]
        self._running = _Running(**content["running"])
        self._saved_at = f"epoch {self._epoch}, step {self._steps}"

    def run(self) -> TrainOutcome:
        """Train to the end and leave the selected epoch's parameters in the parts.

        Raises:
            TrainingError: If the loss is no longer finite, the teacher was thawed, or a checkpoint cannot be written.
        """
        fabric, recipe = self._fabric, self._recipe
        curves = Curves(self._out) if fabric.is_global_zero else None
        self._began = time.perf_counter() - self._seconds
        self._job.guard()
        try:
            with Bar(self._total_steps(), self._steps, show=self._progress and fabric.is_global_zero) as bar:
                if not self._history:
                    bar.say("validating")
                    self._finish_epoch({"epoch": 0, "step": 0}, curves)
                for epoch in range(self._epoch + 1, recipe.epochs + 1):
                    bar.say(f"epoch {epoch}/{recipe.epochs}")
                    row = self._train_epoch(epoch, bar)
                    self._job.guard()
                    self._check_keys()
                    bar.say("validating")
                    self._finish_epoch(row, curves)
        finally:
            if curves is not None:
                curves.close()
        assert self._best is not None
        self._student.load_state_dict(self._best["state"])
        self._level(self._student, parameters=True)
        return TrainOutcome(
            history=self._history,
            epoch=self._best["epoch"],
            metrics=self._best["metrics"],
            criterion=self._criterion,
            steps=self._steps,
            images=self._images,
            seconds=self._elapsed(),
        )

    def _train_epoch(self, epoch: int, bar: Bar) -> dict[str, Any]:
        fabric, recipe = self._fabric, self._recipe
        plan = self._plan(epoch)
        began = time.perf_counter()
        images_before = self._images
        seconds_before, waited = self._running.seconds, 0.0
        batches = self._read(_CROP, epoch, [batch for step in plan for batch in step], self._step * recipe.accumulate)
        self._train_mode()
        for number in range(self._step, len(plan)):
            parts = plan[number]
            _reseed(self._seed, _TRAIN, epoch, number, fabric.global_rank)
            self._set_rates(self._rate(epoch, number, len(plan)))
            loss = 0.0
            held: list[Batch] = []
            self._enter(self._turns[0])
            for place in range(len(parts)):
                start = time.perf_counter()
                raw = next(batches)
                waited += time.perf_counter() - start
                batch = self._job.make_batch(raw)
                last = place == len(parts) - 1
                self._step_helpers(batch, count=len(parts), last=last)
                loss += self._backward(batch, 0, count=len(parts), last=last, epoch=epoch)
                self._images += len(raw.positions) * fabric.world_size
                if len(self._turns) > 1:
                    held.append(batch)
            self._update(0)
            for turn in range(1, len(self._turns)):
                self._enter(self._turns[turn])
                for batch in held:
                    loss += self._backward(batch, turn, count=len(held), last=batch is held[-1], epoch=epoch)
                self._update(turn)
            if self._average is not None:
                self._average.update(self._student)
            self._step, self._steps = number + 1, self._steps + 1
            spent = time.perf_counter() - began
            bar.step(loss=loss, images_per_s=(self._images - images_before) / spent, wait_share=waited / spent)
            if recipe.checkpoint_every and self._steps % recipe.checkpoint_every == 0 and self._step < len(plan):
                self._running.seconds = seconds_before + spent
                self._save()
        self._enter(None)
        spent = time.perf_counter() - began
        row: dict[str, Any] = {"epoch": epoch, "step": self._steps, "lr": self._optimizers[0].param_groups[0]["lr"]}
        row["loss"] = self._running.terms.pop("loss") / max(self._running.batches, 1)
        row |= {f"loss_{k}": v / max(self._running.batches, 1) for k, v in sorted(self._running.terms.items())}
        row |= {
            "seconds": seconds_before + spent,
            "images_per_s": (self._images - images_before) / spent if spent else 0.0,
            "wait_share": waited / spent if spent else 0.0,
        }
        self._epoch, self._step, self._running = epoch, 0, _Running()
        return row

    def _enter(self, turn: Phase | None) -> None:
        """Let gradients reach the parts of a turn alone, and put the others into eval mode; None thaws all."""
        if len(self._turns) == 1:
            return
        self._job.train_mode()
        for name, part in self._job.parts.items():
            trained = turn is None or name in turn.trains
            for parameter in self._trainable[name]:
                parameter.requires_grad_(trained)
            if not trained:
                part.eval()

    def _update(self, turn: int) -> None:
        optimizer = self._optimizers[turn]
        if self._recipe.clip_norm is not None:
            self._fabric.clip_gradients(self._module, optimizer, max_norm=self._recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _step_helpers(self, batch: Batch, *, count: int, last: bool) -> None:
        """Train the helpers on SR as the method makes it now, before the method itself is stepped."""
        if not self._helpers:
            return
        assert self._job.restore is not None
        with torch.no_grad(), self._fabric.autocast():
            sr = self._job.restore(batch).float().detach()
        for name, module in self._helper_modules.items():
            optimizer = self._helper_optimizers[name]
            with self._fabric.no_backward_sync(module, enabled=not last):
                loss = module(_Sealed(batch, sr))
                self._note(f"helper_{name}", float(self._mean(loss)))
                self._fabric.backward(loss / count)
            if last:
                if self._recipe.clip_norm is not None:
                    self._fabric.clip_gradients(module, optimizer, max_norm=self._recipe.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: Batch, turn: int, *, count: int, last: bool, epoch: int) -> float:
        losses, scaled = self._turns[turn].losses, self._turns[turn].scaled
        with self._fabric.no_backward_sync(self._module, enabled=not last):
            terms: dict[str, Tensor] = self._module(_Sealed(batch, turn=turn))
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
                self._stop(values, epoch)
            self._fabric.backward(total / count)
        for name, value in values.items():
            self._note(name, value)
        self._note("loss", summed)
        self._running.batches += turn == 0
        return summed / count

    def _stop(self, values: Mapping[str, float], epoch: int) -> None:
        broken = [name for name, value in values.items() if not math.isfinite(value)] or list(values)
        kept = (
            f"the last good checkpoint is {self.checkpoint_path} ({self._saved_at})"
            if self._saved_at
            else "no checkpoint had been written yet"
        )
        raise TrainingError(
            f"the loss of {self._job.who} is no longer finite at epoch {epoch}, step {self._step + 1}"
            f" (step {self._steps + 1} of the run; term {', '.join(broken)}); {kept};"
            " lower lr or set clip_norm, and start over with --force"
        )

    def _finish_epoch(self, row: dict[str, Any], curves: Curves | None) -> None:
        """Validate, keep the state if it is the best, and save."""
        recipe, epoch = self._recipe, int(row["epoch"])
        if epoch % recipe.validate_every == 0 or epoch == recipe.epochs:
            with self._averaged():
                self._estimate_norms(epoch)
                self._level(self._student)
                found = self._validate(epoch)
                if not self._criterion:
                    self._criterion = choose_criterion(recipe.select, found)
                if is_better(self._criterion, found, self._best["metrics"] if self._best else None):
                    self._best = {"epoch": epoch, "metrics": found, "state": _on_cpu(self._student.state_dict())}
            row |= {f"val_{name}": value for name, value in found.items()}
        self._history.append(row)
        if curves is not None:
            curves.write(self._history)
        self._save()

    def _validate(self, epoch: int) -> dict[str, float]:
        fabric = self._fabric
        modes = [(module, module.training) for module in self._student.modules()]
        self._student.eval()
        _reseed(self._seed, _VALIDATE, epoch, 0, 0)
        try:
            with torch.no_grad():
                sums = self._job.validator(fabric.global_rank, fabric.world_size)
        finally:
            for module, training in modes:
                module.training = training
        return figures(_summed(sums, fabric))

    def _estimate_norms(self, epoch: int) -> None:
        """Estimate batch-norm statistics anew on training batches: they drift behind the weights."""
        norms = [module for module in self._student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if not self._recipe.norm_steps or not norms:
            return
        self._train_mode()
        norms = [module for module in norms if module.training and module.track_running_stats]
        momenta = [module.momentum for module in norms]
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
        plan = [batch for step in self._plan(epoch + 1) for batch in step][: self._recipe.norm_steps]
        _reseed(self._seed, _NORM, epoch, 0, self._fabric.global_rank)
        with torch.no_grad(), self._fabric.autocast():
            for raw in self._read(_NORM, epoch, plan):
                batch = self._job.make_batch(raw)
                for number, turn in enumerate(self._turns):
                    self._enter(turn)
                    self._student(_Sealed(batch, turn=number))
        self._enter(None)
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum

    def _save(self) -> None:
        # Ranks hold equal parameters; their buffers are levelled, so that any of them could go on from this file.
        self._level(self._student)
        for helper in self._helpers.values():
            self._level(helper)
        self._saved_at = f"epoch {self._epoch}, step {self._steps}"
        if self._fabric.is_global_zero:
            content = {
                "settings": json.dumps(self._settings()),
                "student": self._student.state_dict(),
                "optimizer": self._optimizers[0].state_dict(),
                "optimizers_of_later_turns": [each.state_dict() for each in self._optimizers[1:]],
                "helpers": {name: helper.state_dict() for name, helper in self._helpers.items()},
                "helper_optimizers": {name: each.state_dict() for name, each in self._helper_optimizers.items()},
                "average": self._average.state() if self._average is not None else None,
                "sizes": dict(self._scaler.sizes),
                "history": json.dumps(self._history),
                "best": self._best,
                "criterion": self._criterion,
                "epoch": self._epoch,
                "step": self._step,
                "steps": self._steps,
                "images": self._images,
                "seconds": self._elapsed(),
                "running": asdict(self._running),
            }
            checkpoint.write(self.checkpoint_path, content)
        self._fabric.barrier()

    def _settings(self) -> dict[str, Any]:
        return json.loads(
            json.dumps(
                dict(self._job.settings)
                | {"recipe": self._recipe.to_json(), "seed": self._seed, "ranks": self._fabric.world_size}
            )
        )

    def _plan(self, epoch: int) -> list[list[Positions]]:
        return epoch_plan(
            self._job.images,
            self._recipe,
            seed=self._seed,
            epoch=epoch,
            rank=self._fabric.global_rank,
            world=self._fabric.world_size,
        )

    def _read(self, stream: int, epoch: int, batches: list[Positions], first: int = 0) -> Iterator[RawBatch]:
        """Read batches in order from `first` on, a few ahead of the device."""

        def load(number: int) -> RawBatch:
            draws = np.random.default_rng([self._seed, stream, epoch, number, self._fabric.global_rank])
            return read_cropped(self._job.images, batches[number], self._recipe, draws)

        pending: deque[Future[RawBatch]] = deque()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
            try:
                for number in range(first, len(batches)):
                    pending.append(pool.submit(load, number))
                    if len(pending) > _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _total_steps(self) -> int:
        return self._steps_per_epoch() * self._recipe.epochs

    def _steps_per_epoch(self) -> int:
        return self._recipe.steps_per_epoch or len(self._plan(1))

    def _rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the factor of the learning rates, a pure function of where the run is."""
        recipe = self._recipe
        done = (epoch - 1) * steps + step
        warm = min(1.0, (done + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
        if recipe.schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * done / (recipe.epochs * steps)))
        if recipe.schedule == "step":
            return warm * recipe.gamma ** ((epoch - 1) // recipe.decay_every)
        return warm

    def _set_rates(self, factor: float) -> None:
        for optimizer in (*self._optimizers, *self._helper_optimizers.values()):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * factor

    def _train_mode(self) -> None:
        self._job.train_mode()
        for helper in self._helpers.values():
            helper.train()

    def _note(self, name: str, value: float) -> None:
        self._running.terms[name] = self._running.terms.get(name, 0.0) + value

    def _values(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the terms as numbers, equal on all ranks, so that all of them stop where one is not finite."""
        stacked = torch.stack([term.detach().float() for term in terms.values()])
        return dict(zip(terms, self._mean(stacked).tolist(), strict=True))

    def _mean(self, value: Tensor) -> Tensor:
        mean = self._fabric.all_reduce(value.detach().float(), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _averaged(self) -> AbstractContextManager[None]:
        return self._average.applied(self._student) if self._average is not None else nullcontext()

    def _level(self, module: nn.Module, *, parameters: bool = False) -> None:
        """Give every rank the buffers (and the parameters) of rank 0."""
        if self._fabric.world_size == 1:
            return
        tensors = [*module.buffers(), *(module.parameters() if parameters else ())]
        for tensor in tensors:
            torch.distributed.broadcast(tensor.data, src=0)

    def _check_keys(self) -> None:
        extra = sorted(set(self._student.state_dict()) - self._keys)
        if extra:
            raise TrainingError(
                f"{self._job.who} gained parameters while it was trained, such as {extra[0]}, which would be saved with"
                " it; keep the teacher and the helpers out of the module, in a plain list or dict"
            )

    def _elapsed(self) -> float:
        return time.perf_counter() - self._began


class _Sealed:
    """Carries a batch through Fabric, which would otherwise take the frozen dataclass apart."""

    def __init__(self, batch: Batch, sr: Tensor | None = None, *, turn: int = 0) -> None:
        self.batch, self.sr, self.turn = batch, sr, turn


class _Student(nn.Module):
    """All that is trained, as one module: one forward is one turn of a training step, which is what DDP watches."""

    def __init__(self, job: Trainee, turns: Sequence[Phase]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(job.parts))
        self._turns, self._who = tuple(turns), job.who

    def forward(self, sealed: _Sealed) -> dict[str, Tensor]:
        """Return the wanted terms, each a scalar."""
        turn = self._turns[sealed.turn]
        found = turn.step(sealed.batch)
        missing = [name for name in turn.losses if name not in found]
        if missing:
            raise UsageError(
                f"the recipe weighs the loss term {missing[0]!r}, which {self._who} does not return;"
                f" it returns {', '.join(sorted(found)) or 'none'}"
            )
        return {name: found[name] for name in turn.losses}


class _Helper(nn.Module):
    def __init__(self, helper: HelperTrainee) -> None:
        super().__init__()
        self.network = helper.network
        self._loss = helper.loss

    def forward(self, sealed: _Sealed) -> Tensor:
        """Return the helper's loss."""
        assert sealed.sr is not None
        return self._loss(sealed.batch, sealed.sr)


class _Average:
    """Moving average of all parameters; buffers are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
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

    def applied(self, module: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which the module holds the average."""
        return _swapped(module, self._shadow)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"updates": self._updates, "shadow": self._shadow}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint held."""
        self._updates, self._shadow = state["updates"], dict(state["shadow"])


@contextmanager
def _swapped(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
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


@dataclass
class _Running:
    """Sums over the epoch that runs."""

    terms: dict[str, float] = field(default_factory=dict)
    batches: int = 0
    seconds: float = 0.0


def _rates(rate: float) -> dict[str, Any]:
    return {"lr": rate, "rate": rate}  # "lr" follows the schedule, "rate" is what it is multiplied with


def _optimizer(groups: list[dict[str, Any]], recipe: Recipe, name: str) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def _reseed(*numbers: int) -> None:
    seed = int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _summed(sums: Sums, fabric: Fabric) -> Sums:
    """Add up the ranks' sums; a rank that had no batch knows no names."""
    if fabric.world_size == 1:
        return sums
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, (sums.totals, sums.counts))
    total = Sums()
    for totals, counts in gathered:
        for name in totals:
            total.totals[name] = total.totals.get(name, 0.0) + totals[name]
            total.counts[name] = total.counts.get(name, 0) + counts[name]
    return total


def _check_settings(then: dict[str, Any], now: dict[str, Any], recipe: Recipe) -> None:
    """Refuse a checkpoint of another run; more epochs are no other run unless the schedule depends on them.

    Raises:
        UsageError: Naming the settings that differ.
    """
    then, now = copy.deepcopy(then), copy.deepcopy(now)
    usual = Recipe().to_json()  # settings that did not exist then were at their defaults
    augment = usual["augment"] | then["recipe"].get("augment", {})
    then["recipe"] = usual | then["recipe"] | {"augment": augment}
    if recipe.schedule != "cosine":
        then["recipe"]["epochs"] = now["recipe"]["epochs"] = None
    flat_then, flat_now = ({**settings.pop("recipe"), **settings} for settings in (then, now))
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
