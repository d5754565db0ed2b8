"""`srbench.train`: from a call to trained weights that can be used by name."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import re
import shutil
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from srbench import weights
from srbench.data.catalogue import default_protocol, default_task_type, is_paired
from srbench.data.source import Source
from srbench.errors import TrainingError, UsageError
from srbench.imaging.colour import to_channels
from srbench.imaging.degrade import degrade
from srbench.imaging.resample import gaussian_blur
from srbench.method import Batch, Method
from srbench.networks.classifiers import Classifier, label_map
from srbench.networks.loading import demo_classifiers, load_classifier
from srbench.progress import track
from srbench.protocol import Protocol, load_protocol
from srbench.records.provenance import code_state, environment
from srbench.registry import Registry
from srbench.restore import restore
from srbench.training import checkpoint
from srbench.training.data import ImageSet, LabelMap, RawBatch, kind_of, open_splits
from srbench.training.loop import HelperTrainee, Loop, Phase, Trainee, TrainOutcome, make_fabric
from srbench.training.losses import (
    NEED_CLASSIFIER,
    NEED_LABELS,
    NEED_TEACHER_LOGITS,
    check_terms,
    classifier_terms,
)
from srbench.training.recipe import TERMS, Recipe, apply_overrides, load_recipe
from srbench.training.teacher import TeacherLogits, check_frozen, freeze, score
from srbench.training.validation import MethodValidation


@dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves behind.

    Attributes:
        weights: The weights of the selected epoch, in the run's folder; a copy resolves by name from now on.
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
        owner = card.owner if card is not None else ""
        found = ", ".join(f"{name} {value:.4g}" for name, value in sorted(self.metrics.items()))
        by = "the last" if self.criterion == "none" else f"the best by {self.criterion}"
        use = (
            f"--classifier {self.weights.label}"
            if owner == "classifiers"
            else f"srbench eval {owner} --weights {owner}={self.weights.label}"
        )
        return (
            f"{owner} {self.weights.label}: epoch {self.epoch} is {by} ({found})\n"
            f"{self.steps} steps, {self.images} images, {self.seconds:.0f} s;"
            f" {self.images_per_s:.3g} images/s while training, {self.wait_share:.0%} of it waiting for data\n"
            f"weights in {self.out / 'weights' / self.weights.path.name}, curves in {self.out / 'curves.csv'}\n"
            f"use them with: {use}" + "".join(f"\nnote: {note}" for note in self.notes)
        )


@dataclass(frozen=True)
class Setting:
    """What every run needs to know, for methods and classifiers alike.

    Attributes:
        fabric: Device, precision, ranks.
        protocol: The protocol.
        recipe: The recipe.
        recipe_name: Its name.
        data: Sources to train on.
        val: Sources to validate on.
        out: Folder of the run.
        name: Name of the weights.
        seed: Seed of everything that is drawn.
        limit: Images of each source at most.
        resume: Go on from the checkpoint.
        progress: Show progress bars on a terminal.
        command: Command line, for the card.
        licence: Licence of the weights, for the card.
    """

    fabric: Fabric
    protocol: Protocol
    recipe: Recipe
    recipe_name: str
    data: list[Source]
    val: list[Source]
    out: Path
    name: str
    seed: int
    limit: int | None
    resume: bool
    progress: bool
    command: str
    licence: str | None

    @property
    def shows(self) -> bool:
        """Whether this rank draws."""
        return self.progress and self.fabric.is_global_zero


def train(
    method: str,
    *,
    data: Sequence[str],
    val: str | None = None,
    classifier: str | None = None,
    protocol: str | Protocol | None = None,
    scale: float | None = None,
    recipe: str | Recipe | None = None,
    overrides: Sequence[str] = (),
    epochs: int | None = None,
    out: Path | str | None = None,
    name: str | None = None,
    init_from: str | None = None,
    licence: str | None = None,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    limit: int | None = None,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
    command: str = "",
) -> TrainingResult:
    """Train a method.

    Args:
        method: Its name.
        data: SPECs of the data to train on.
        val: SPEC of the validation data; None holds a part of `data` out, "test" takes its test split.
        classifier: SPEC of the teacher, or of the classifier that is adapted; None is the first demo classifier on the
            demo, and no classifier elsewhere.
        protocol: A protocol, its name or file; None is `demo` on the demo and `clean` elsewhere.
        scale: LR side / HR side, instead of the protocol's.
        recipe: A recipe, the name of one of the method's, or a TOML file; None takes the one for the data and device.
        overrides: "key=value" settings of the recipe.
        epochs: Instead of the recipe's.
        out: Folder of the run; None is out/train/<method>.
        name: Name of the weights; None is made of the recipe and the classifier.
        init_from: Weights to start from, a name or a file, instead of the recipe's; "owner:name" takes another
            method's.
        licence: Licence of the weights, for their card; None is that of `init_from`, where it is known.
        resume: Go on from the checkpoint in `out`.
        force: Start over where `out` holds a checkpoint.
        device: "auto", "cpu" or "cuda".
        precision: "auto" (bf16 on a GPU that has it, else fp32), "fp32" or "bf16".
        seed: Seed of everything that is drawn.
        limit: Images of each source at most.
        plugins: Files of further methods.
        progress: Show progress bars on a terminal.
        command: Command line, for the card.

    Returns:
        The weights, the history and what selected the epoch.

    Raises:
        UsageError: If the call is wrong; nothing has been trained then.
        TrainingError: If training cannot go on; the last checkpoint is named.
    """
    registry = Registry(plugins)
    cls = registry.get(method)
    if not cls.recipes:
        trainable = sorted(each for each, found in registry.working().items() if found.recipes)
        raise UsageError(f"{method} has nothing to train; methods that can be trained: {', '.join(trainable)}")
    demo = set(data) == {"demo"}
    chosen, recipe_name = choose_recipe(recipe, cls.recipes, demo=demo, device=device, kind=default_task_type(data))
    chosen = adjusted(chosen, overrides, epochs=epochs, init_from=init_from)
    if not chosen.losses:
        raise UsageError(f"recipe {recipe_name!r} has no losses; give at least one with --set losses.NAME=1")
    _check_turns(chosen)
    spec = classifier or (_demo_classifier(chosen) if demo else None)
    needing = sorted(set(chosen.losses) & NEED_CLASSIFIER)
    if spec is None and (needing or chosen.track == "adapted"):
        what = f"the loss term {needing[0]!r}" if needing else "the adapted track"
        raise UsageError(f"{what} needs a classifier; give --classifier SPEC, see `srbench list classifiers`")
    teacher = load_classifier(spec) if spec is not None else None
    setting = prepare_setting(
        recipe=chosen,
        recipe_name=recipe_name,
        protocol=choose_protocol(protocol, scale, data=data),
        data=data,
        val=val,
        out=Path(out) if out is not None else Path("out") / "train" / method,
        name=name or (recipe_name if teacher is None else f"{recipe_name}-{teacher.id}"),
        resume=resume,
        force=force,
        device=device,
        precision=precision,
        seed=seed,
        limit=limit,
        progress=progress,
        command=command,
        licence=licence,
    )
    return _Run(setting, method, cls, registry, teacher).result()


def choose_recipe(
    recipe: str | Recipe | None,
    recipes: Mapping[str, Recipe],
    *,
    demo: bool,
    device: str,
    kind: str = "classification",
) -> tuple[Recipe, str]:
    """Return the recipe and its name; without a name the one meant for the demo, the kind of task, or the device."""
    if isinstance(recipe, Recipe):
        return recipe, "custom"
    if recipe is None:
        cuda = device != "cpu" and torch.cuda.is_available()
        usual = ("demo", "default") if demo else ("gpu", "default") if cuda else ("cpu-small", "default")
        recipe = next((name for name in (kind, *usual) if name in recipes), next(iter(recipes)))
    return load_recipe(recipe, recipes), Path(recipe).stem if recipe.endswith(".toml") else recipe


def adjusted(recipe: Recipe, overrides: Sequence[str], *, epochs: int | None, init_from: str | None) -> Recipe:
    """Return the recipe with the call's own settings."""
    recipe = apply_overrides(recipe, overrides)
    if epochs is not None:
        recipe = apply_overrides(recipe, [f"epochs={epochs}"])
    return dataclasses.replace(recipe, init=init_from) if init_from is not None else recipe


def _check_turns(recipe: Recipe) -> None:
    if recipe.classifier_losses and recipe.track != "adapted":
        raise UsageError(
            f"classifier_losses train the classifier, which track {recipe.track!r} leaves alone; give"
            " --set track=adapted, or take the terms out by weights of 0"
        )
    if recipe.classifier_optimizer is not None and not recipe.classifier_losses:
        raise UsageError(
            "classifier_optimizer is for a classifier that has a step of its own; name its terms too, as in"
            " --set classifier_losses.ce_sr=1, or leave it out"
        )


def choose_protocol(protocol: str | Protocol | None, scale: float | None, *, data: Sequence[str]) -> Protocol:
    """Return the protocol in force, apart from what real pairs change in it."""
    if not isinstance(protocol, Protocol):
        protocol = load_protocol(protocol or default_protocol(data))
    if scale is not None and any(is_paired(spec) for spec in data):
        raise UsageError(f"the LR of real pairs is given, so --scale {scale:g} cannot apply; leave --scale out")
    return protocol if scale is None else protocol.at_scale(scale)


def prepare_setting(
    *,
    recipe: Recipe,
    recipe_name: str,
    protocol: Protocol,
    data: Sequence[str],
    val: str | None,
    out: Path,
    name: str,
    resume: bool,
    force: bool,
    device: str,
    precision: str,
    seed: int,
    limit: int | None,
    progress: bool,
    command: str,
    licence: str | None,
) -> Setting:
    """Check what can be wrong with a call, open the data and the device.

    Raises:
        UsageError: If something is wrong.
    """
    if recipe.patch is not None and protocol.sr.side is not None:
        raise UsageError(
            f"protocol {protocol.name!r} fixes the side of SR ({protocol.sr.side}), so patches have no meaning;"
            " leave them out with --set patch=none"
        )
    if recipe.patch is None and (recipe.patches_per_image > 1 or recipe.flatness):
        setting = "patches_per_image" if recipe.patches_per_image > 1 else "flatness"
        raise UsageError(
            f"recipe setting {setting} is about patches, but none are cut; give their side with --set patch=96, or set"
            " patches_per_image=1 and flatness=0"
        )
    training, validation = open_splits(data, val)
    factors = {source.factor for source in [*training, *validation]}
    if len(factors) > 1:
        found = ", ".join(sorted("LR made of HR" if factor is None else f"pairs of x{factor}" for factor in factors))
        raise UsageError(f"all data of a run have one kind of LR, got {found}; train on one of them at a time")
    (factor,) = factors
    protocol = protocol if factor is None else protocol.of_pairs(factor)
    file = out / checkpoint.NAME
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    if resume and not file.is_file():
        raise UsageError(f"--resume was given, but {out} holds no {checkpoint.NAME}; leave --resume out to start")
    if file.is_file() and not resume and not force:
        raise UsageError(
            f"{out} holds a checkpoint already; go on with --resume, or start over with --force or another --out"
        )
    return Setting(
        fabric=make_fabric(device, precision),
        protocol=protocol,
        recipe=recipe,
        recipe_name=recipe_name,
        data=training,
        val=validation,
        out=out,
        name=_clean_name(name),
        seed=seed,
        limit=limit,
        resume=resume,
        progress=progress,
        command=command,
        licence=licence,
    )


def open_images(setting: Setting, sources: Sequence[Source], labels: LabelMap | None, *, scored: bool) -> ImageSet:
    """Fill the cache of HR crops on rank 0, and open it everywhere."""
    fabric = setting.fabric
    count = sum(min(len(source.samples), setting.limit or len(source.samples)) for source in sources)
    if not fabric.is_global_zero:
        fabric.barrier()
    with track("decoding", count, show=setting.shows) as advance:
        images = ImageSet(
            sources,
            setting.protocol.hr,
            label_map=labels,
            limit=setting.limit,
            enlarge=scored,
            advance=advance,
        )
    if fabric.is_global_zero:
        fabric.barrier()
    return images


def run_job(setting: Setting, job: Trainee) -> TrainOutcome:
    """Run the loop."""
    if setting.fabric.is_global_zero:
        checkpoint.sweep(setting.out)
    loop = Loop(job, setting.fabric, out=setting.out, seed=setting.seed, progress=setting.progress)
    if setting.resume:
        loop.resume()
    return loop.run()


def save_weights(
    setting: Setting,
    owner: str,
    state: Mapping[str, Tensor],
    outcome: TrainOutcome,
    *,
    images: ImageSet,
    val_images: ImageSet,
    classifier_state: Mapping[str, Tensor] | None = None,
    started: weights.WeightsFile | None = None,
    **fields: Any,
) -> weights.WeightsRef:
    """Write the weights and their card into the run's folder, and into the user's folder, where names resolve.

    Args:
        setting: The run.
        owner: Method, or "classifiers".
        state: Parameters.
        outcome: How the run ended.
        images: What was trained on.
        val_images: What was validated on.
        classifier_state: Parameters of the classifier trained along.
        started: The weights that training started from; their licence goes on, unless the run names another.
        **fields: Further fields of the card.
    """
    fabric, recipe = setting.fabric, setting.recipe
    target = weights.weights_dir() / owner / f"{setting.name}{weights.SUFFIX}"
    own = setting.out / "weights" / target.name
    if fabric.is_global_zero:
        frame = pd.DataFrame(outcome.history)
        history = {key: [_short(value) for value in frame[key]] for key in frame}
        extra = {
            "seed": setting.seed,
            "recipe_name": setting.recipe_name,
            "protocol": {"name": setting.protocol.name, "fingerprint": setting.protocol.fingerprint},
            "selected_epoch": outcome.epoch,
            "selected_by": outcome.criterion,
            "steps": outcome.steps,
            "image_steps": outcome.images,
            "seconds": round(outcome.seconds, 1),
            "ranks": fabric.world_size,
            "precision": str(fabric._precision.precision),
            "history": history,
        }
        card = weights.Card(
            owner=owner,
            name=setting.name,
            track=recipe.track,
            tasks=("demo",) if all(source.name == "demo" for source in setting.data) else (),
            recipe=recipe.to_json(),
            data={"train": images.describe(), "val": val_images.describe(), "limit": setting.limit},
            command=setting.command,
            commit=_commit(),
            device=environment(fabric.device).device,
            date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            metrics=outcome.metrics,
            licence=setting.licence or (started.ref.licence if started is not None else ""),
            extra=extra | fields.pop("extra", {}),
            **fields,
        )
        weights.save(own, state, card, classifier_state=classifier_state, half=recipe.half)
        _install(own, target)
    fabric.barrier()
    return weights.find(owner, str(own))


class _Run:
    """Training of a method."""

    def __init__(
        self, setting: Setting, name: str, cls: type[Method], registry: Registry, teacher: Classifier | None
    ) -> None:
        self._setting, self._name, self._teacher, self._registry = setting, name, teacher, registry
        recipe, fabric, protocol = setting.recipe, setting.fabric, setting.protocol
        self._device = fabric.device
        kind = kind_of([*setting.data, *setting.val])
        refused = check_terms({*recipe.losses, *recipe.classifier_losses}, kind)
        if refused:
            raise UsageError(refused)
        if teacher is not None and kind.loss_term in recipe.losses:
            kind.answers(teacher.info, setting.data[0])
        labels = partial(label_map, teacher.info) if teacher is not None else None
        self._images = open_images(setting, setting.data, labels, scored=False)
        self._val_images = open_images(setting, setting.val, labels, scored=True)
        unlabelled = sorted({*recipe.losses, *recipe.classifier_losses} & NEED_LABELS)
        if unlabelled and self._images.labels is None:
            raise UsageError(
                f"the loss term {unlabelled[0]!r} needs labels: {self._images.why_unlabelled};"
                " train with the term 'logits', which needs none"
            )
        torch.manual_seed(setting.seed)
        self._method, self._parameters, self._started = self._build(cls)
        check_channels(self._name, self._method, [*setting.data, *setting.val])
        self._method.recipe = recipe
        self._method.prepare(protocol)
        self._classifier: Classifier | None = None
        if teacher is not None:
            teacher.to(self._device)
            freeze(teacher)
            if recipe.track == "adapted":
                self._classifier = self._adapted(teacher, self._started)
        self._degradation = training_degradation(protocol)
        self._logits: list[TeacherLogits] = []
        self._wants_logits = teacher is not None and bool(
            set(recipe.losses) & NEED_TEACHER_LOGITS - {kind.loss_term} or set(recipe.losses) - set(TERMS)
        )
        if self._wants_logits and self._cacheable():
            sides = (False, True) if recipe.augment.flip else (False,)
            self._logits = [self._open_logits(self._images, flipped=flipped) for flipped in sides]
        self._val_logits = self._open_logits(self._val_images, flipped=False) if teacher is not None else None

    def result(self) -> TrainingResult:
        """Train, save, and say how it went."""
        setting = self._setting
        outcome = run_job(setting, self._job())
        self._method.eval()
        adapted = self._classifier.network.state_dict() if self._classifier is not None else None
        factor = self._method.info.factor
        # A classifier that only validated says nothing about which classifiers the weights are for.
        taught = setting.recipe.track == "adapted" or not set(setting.recipe.losses) <= set(TERMS) - NEED_CLASSIFIER
        teacher = self._teacher.info if self._teacher is not None and taught else None
        ref = save_weights(
            setting,
            self._name,
            self._method.state_dict(),
            outcome,
            images=self._images,
            val_images=self._val_images,
            classifier_state=adapted,
            started=self._started,
            parameters=self._parameters,
            scale=setting.protocol.effective_scale,
            factor=factor if isinstance(factor, int) else None,
            teacher={"id": teacher.id, "sha256": teacher.weights_sha256} if teacher is not None else None,
            extra={"validated_with": self._teacher.id if self._teacher is not None else None},
        )
        return TrainingResult(
            weights=ref,
            history=pd.DataFrame(outcome.history),
            epoch=outcome.epoch,
            metrics=outcome.metrics,
            criterion=outcome.criterion,
            out=setting.out,
            steps=outcome.steps,
            images=outcome.images,
            seconds=outcome.seconds,
            network=self._method,
        )

    def _build(self, cls: type[Method]) -> tuple[Method, dict[str, Any], weights.WeightsFile | None]:
        recipe = self._setting.recipe
        if recipe.init is None:
            known = inspect.signature(cls).parameters
            unknown = sorted(set(recipe.parameters) - set(known))
            if unknown:
                raise UsageError(
                    f"{self._name} takes no parameter {unknown[0]!r}; it takes {', '.join(known) or 'none'}"
                )
            return cls(**recipe.parameters), dict(recipe.parameters), None
        owner, colon, spec = recipe.init.partition(":")
        if not colon or owner not in self._registry.names():
            owner, spec = self._name, recipe.init
        ref = weights.find(owner, spec, self._registry.get(owner).weights)
        loaded = weights.load(ref)
        for key, value in recipe.parameters.items():
            if key in loaded.parameters and loaded.parameters[key] != value:
                raise UsageError(
                    f"the weights {ref.label!r} were made with {key}={loaded.parameters[key]}, the recipe asks for"
                    f" {key}={value}; leave the parameter out, or start without --init-from"
                )
        known = inspect.signature(cls).parameters
        fresh = {key: value for key, value in recipe.parameters.items() if key in known} if ref.card else {}
        loaded = dataclasses.replace(loaded, parameters=dict(loaded.parameters) | fresh)
        return cls.from_weights(loaded), dict(loaded.parameters), loaded

    def _adapted(self, teacher: Classifier, loaded: weights.WeightsFile | None) -> Classifier:
        classifier = deepcopy(teacher)
        base = loaded.ref.card.teacher if loaded is not None and loaded.ref.card is not None else None
        same = base is not None and base.get("sha256") == teacher.info.weights_sha256
        if loaded is not None and loaded.classifier_state is not None and same:
            # With another classifier only the method is transferred.
            weights.fill_state(
                classifier.network, loaded.classifier_state, origin=loaded.ref.path.name, expected=teacher.id
            )
        classifier.requires_grad_(True)
        return classifier

    def _cacheable(self) -> bool:
        """Say whether the teacher's scores of whole HR crops are what training needs, often enough to keep them."""
        recipe = self._setting.recipe
        if recipe.patch is not None or recipe.augment.shift or recipe.augment.rotate:
            return False
        if recipe.steps_per_epoch is None:
            return True
        steps = recipe.epochs * recipe.steps_per_epoch * recipe.accumulate
        return steps * recipe.batch_size * self._setting.fabric.world_size >= len(self._images)

    def _open_logits(self, images: ImageSet, *, flipped: bool) -> TeacherLogits:
        assert self._teacher is not None
        fabric = self._setting.fabric
        logits = TeacherLogits(images, self._teacher, flipped=flipped, device=self._device)
        with track("teacher", -(-len(images) // fabric.world_size), show=self._setting.shows) as advance:
            logits.fill(rank=fabric.global_rank, world=fabric.world_size, advance=advance)
        fabric.barrier()
        return logits

    def _job(self) -> Trainee:
        recipe = self._setting.recipe
        parts: dict[str, nn.Module] = {"method": self._method}
        rates = {"method": recipe.lr}
        if self._classifier is not None:
            parts["classifier"] = self._classifier
            rates["classifier"] = recipe.classifier_lr or recipe.lr
        return Trainee(
            who=self._name,
            recipe=recipe,
            parts=parts,
            rates=rates,
            train_mode=self._train_mode,
            step=self._method_step,
            images=self._images,
            make_batch=self._make_batch,
            validator=MethodValidation(
                method=self._method,
                images=self._val_images,
                protocol=self._setting.protocol,
                judge=self._classifier or self._teacher,
                teacher_logits=self._val_logits,
                batch_size=validation_batch(self._device),
                device=self._device,
                seed=self._setting.seed,
            ),
            guard=self._guard,
            helpers={
                name: HelperTrainee(network, partial(self._method.helper_step, name))
                for name, network in self._method.helpers().items()
            },
            restore=self._restore,
            turns=self._turns(),
            settings={
                "method": self._name,
                "version": self._method.info.version,
                "protocol": self._setting.protocol.fingerprint,
                "teacher": self._teacher.info.sha256 if self._teacher is not None else None,
                "data": self._images.key,
                "validation data": self._val_images.key,
            },
        )

    def _turns(self) -> tuple[Phase, ...]:
        """Return the method's turn and the classifier's, where the recipe trains them one after the other."""
        recipe = self._setting.recipe
        if not recipe.classifier_losses:
            return ()
        optimizer = recipe.classifier_optimizer or recipe.optimizer
        return (
            Phase(("method",), recipe.losses, self._method_step, recipe.optimizer, recipe.scales_terms),
            Phase(("classifier",), recipe.classifier_losses, self._classifier_step, optimizer, scaled=False),
        )

    def _method_step(self, batch: Batch) -> Mapping[str, Tensor]:
        return self._method.training_step(batch, self._teacher, self._classifier)

    def _classifier_step(self, batch: Batch) -> Mapping[str, Tensor]:
        assert self._classifier is not None
        recipe = self._setting.recipe
        with torch.no_grad():
            sr = self._restore(batch)
        return classifier_terms(recipe.classifier_losses, sr, batch, self._classifier, smoothing=recipe.label_smoothing)

    def _train_mode(self) -> None:
        self._method.train()
        if self._classifier is not None:
            self._classifier.train(self._setting.recipe.classifier_train_mode)

    def _guard(self) -> None:
        if self._teacher is not None:
            check_frozen(self._teacher, self._name)

    def _restore(self, batch: Batch) -> Tensor:
        return restore(
            self._method, batch.lr, batch.sr_size, restoration=self._setting.protocol.sr, numerics=None, name=self._name
        )

    def _make_batch(self, raw: RawBatch) -> Batch:
        hr, lr = to_images(raw, self._device)
        scored = hr
        hr = to_channels(hr, self._method.info.channels)
        lr = None if lr is None else to_channels(lr, self._method.info.channels)
        blur = self._setting.recipe.augment
        if lr is None:
            soft = blurred(hr, blur.blur, blur.blur_probability)
            lr = degrade(soft, self._degradation, grey=self._images.channels == 1)
        labels = self._images.labels
        return Batch(
            lr=lr,
            hr=hr,
            label=None if labels is None else torch.from_numpy(labels[raw.positions]).to(self._device),
            teacher_logits=self._teacher_logits(raw, scored),
            sr_size=self._setting.protocol.sr_size(hr.shape[-2], hr.shape[-1]),
            kind=self._images.kind.name,
        )

    def _teacher_logits(self, raw: RawBatch, hr: Tensor) -> Tensor | None:
        if not self._wants_logits:
            return None
        assert self._teacher is not None
        if not self._logits:
            return score(self._teacher, hr)
        rows = self._logits[0].rows(raw.positions)
        if raw.flipped.any():
            rows[torch.from_numpy(raw.flipped)] = self._logits[1].rows(raw.positions[raw.flipped])
        return rows.to(self._device)


def check_channels(name: str, method: Method, sources: Sequence[Source]) -> None:
    """Refuse data in colour for a network of one channel.

    Raises:
        UsageError: Naming the data.
    """
    channels = method.info.channels
    for source in sources:
        if channels not in (3, source.channels):
            raise UsageError(
                f"{name} takes {channels}-channel images here, {source.spec} has {source.channels};"
                " train on grey images, or build the network for colour with --set parameters.channels=3"
            )


def to_images(raw: RawBatch, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return HR and real LR, `(N, 3, H, W)`, RGB, float32, [0, 1], on the device, mirrored as drawn."""
    flipped = torch.from_numpy(raw.flipped).to(device).view(-1, 1, 1, 1)

    def put(pixels: Tensor) -> Tensor:
        image = pixels.to(device, non_blocking=True).float().div_(255)
        return torch.where(flipped, image.flip(-1), image) if raw.flipped.any() else image

    return put(raw.hr), None if raw.lr is None else put(raw.lr)


def blurred(image: Tensor, largest: float, probability: float) -> Tensor:
    """Blur a share of the images `(N, C, H, W)` by a Gaussian whose sigma is drawn uniformly from 0 to `largest`."""
    if largest == 0 or probability == 0:
        return image
    draws = torch.rand(len(image), 2)
    return torch.cat(
        [
            gaussian_blur(one[None], float(share) * largest) if chance < probability else one[None]
            for one, (chance, share) in zip(image, draws, strict=True)
        ]
    )


def training_degradation(protocol: Protocol) -> Any:
    """Return the degradation for HR of any size: an LR side in pixels becomes the scale that it stands for."""
    scale = protocol.effective_scale
    if protocol.lr.lr_side is None or scale is None:
        return protocol.lr
    return dataclasses.replace(protocol.lr, scale=scale, lr_side=None)


def validation_batch(device: torch.device) -> int:
    """Return how many images a batch of validation holds."""
    return 64 if device.type == "cuda" else 16


def _demo_classifier(recipe: Recipe) -> str | None:
    names = demo_classifiers()
    needed = set(recipe.losses) & NEED_CLASSIFIER or recipe.track == "adapted" or recipe.select not in {"psnr", "none"}
    return names[0] if names and needed else None


def _clean_name(name: str) -> str:
    cleaned = re.sub(r"[^\w+-]+", "-", Path(name).stem if name.endswith(weights.SUFFIX) else name).strip("-")
    if not cleaned:
        raise UsageError(f"--name {name!r} has no letter or digit; give a word such as mine-x4")
    return cleaned


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
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (weights.SUFFIX, ".json"):
            part = target.with_name(f".{target.stem}{suffix}.part")
            shutil.copyfile(source.with_suffix(suffix), part)
            part.replace(target.with_suffix(suffix))
    except OSError as error:
        raise TrainingError(
            f"the weights are in {source}, but could not be copied to {target.parent}: {error.strerror or error};"
            " use them by their path"
        ) from error
