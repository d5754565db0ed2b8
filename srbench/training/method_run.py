"""Training of a method: its networks, batches and validation, as the loop asks for them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srbench import weights
from srbench.compute.devices import on_device
from srbench.compute.progress import track
from srbench.errors import UsageError
from srbench.imaging.colour import to_channels
from srbench.imaging.degrade import degrade, restore_size
from srbench.imaging.sizes import at_side, sweep
from srbench.method import Batch, Method
from srbench.networks.classifiers import Classifier, label_map
from srbench.registry import Registry
from srbench.restore import restore
from srbench.training.batch import blurred, to_images, training_degradation
from srbench.training.cautions import about_outcome, about_train_mode, sample_images
from srbench.training.crops import RawBatch
from srbench.training.fabric import sum_of_ranks
from srbench.training.images import ImageSet, task_type_of
from srbench.training.imitation import Imitated
from srbench.training.losses import (
    NEED_CLASSIFIER,
    NEED_LABELS,
    NEED_TEACHER_LOGITS,
    check_terms,
    classifier_terms,
)
from srbench.training.norms import folded_norms
from srbench.training.prepare import PreparedRun, check_channels, open_images
from srbench.training.recipe import TERMS
from srbench.training.result import TrainingResult, fit, save_weights, to_result
from srbench.training.teacher import (
    FreshLogits,
    HrLogits,
    Teacher,
    TeacherLogits,
    check_frozen,
    freeze,
    is_cached,
    logits_variance,
)
from srbench.training.trainable import Trainable
from srbench.training.trainee import Helpers, Phase, Trainee
from srbench.training.validation import (
    MethodValidation,
    Sums,
    Watcher,
    about_batches,
    batch_fields,
    choose_criterion,
    figures,
    is_higher_better,
    validation_batch,
)


class MethodRun(Trainee):
    """A method that is trained, and the classifier beside it: frozen as a teacher, or trained along."""

    def __init__(
        self,
        run: PreparedRun,
        name: str,
        method_class: type[Method],
        registry: Registry,
        *,
        teachers: Sequence[Classifier] = (),
        judges: Sequence[Classifier] = (),
    ) -> None:
        """Build the networks, decode the images, and compute the teacher's logits.

        Args:
            run: The run.
            name: Name of the method.
            method_class: Its class.
            registry: All methods, one of which may lend its weights to start from.
            teachers: The classifiers that the losses ask, one a batch in turn.
            judges: Classifiers that see SR in validation and take no part in training.

        Raises:
            UsageError: If method, data, recipe and classifier do not go together; what needs no pixels is checked
                before any image is decoded.
        """
        self.who, self.recipe = name, run.recipe
        self._run, self._registry, self._classifiers = run, registry, tuple(teachers)
        self._device = run.fabric.device
        self._task_type = task_type_of([*run.data, *run.val])
        torch.manual_seed(run.options.seed)
        self._method, self._parameters, self._started = self._build(method_class)
        check_channels(name, self._method, [*run.data, *run.val])
        if run.recipe.input_sizes and method_class.training_step is not Trainable.training_step:
            raise UsageError(
                f"{name} has a training step of its own, which shows the classifier SR at the size of HR; leave"
                " input_sizes out"
            )
        self._method.recipe = run.recipe
        self._method.prepare(run.protocol)
        for network in (*teachers, *judges):
            network.to(self._device)
            freeze(network)
        adapts = bool(teachers) and run.recipe.track == "adapted"
        self._classifier = self._adapted(teachers[0], self._started) if adapts else None
        self._folded = [] if self._classifier is None else list(folded_norms(self._classifier))
        self._check_parameters()
        self._imitated = self._open_imitated()
        self.images, self._val_images = self._open_images()
        self._notes = self._cautions()
        self._degradation = training_degradation(run.protocol)
        self._keep_imitated()
        self._wants_logits = self._needs_teacher_logits()
        self._teachers = [self._teacher(network) for network in teachers]
        self._validation = MethodValidation(
            method=self._method,
            images=self._val_images,
            protocol=run.protocol,
            watchers=self._watchers(judges),
            batch_size=validation_batch(self._device),
            device=self._device,
            seed=run.options.seed,
        )
        self._choose_parameters()

    def result(self) -> TrainingResult:
        """Train, save, and say how it went."""
        run = self._run
        outcome = fit(run, self)
        self._method.eval()
        factor = self._method.info.factor
        # A classifier that only validated says nothing about which classifiers the weights are for.
        taught = run.recipe.track == "adapted" or not set(run.recipe.losses) <= set(TERMS) - NEED_CLASSIFIER
        teachers = [_identity(network) for network in self._classifiers] if taught else []
        card = weights.Card(
            namespace=self.who,
            name=run.name,
            parameters=self._parameters,
            scale=run.protocol.effective_scale,
            factor=factor if isinstance(factor, int) else None,
            teacher=teachers[0] if teachers else None,
            extra={"validated_with": self._classifiers[0].id if self._classifiers else None}
            | ({"teachers": teachers} if len(teachers) > 1 else {})
            | ({"imitates": self._imitated.identity()} if self._imitated is not None else {})
            | batch_fields(self._validation.limits),
        )
        saved = save_weights(
            run,
            card,
            self._method.state_dict(),
            outcome,
            images=self.images,
            val_images=self._val_images,
            classifier_state=self._changed_classifier(),
            started=self._started,
        )
        notes = [*self._notes, *about_outcome(outcome.epoch, outcome.steps, outcome.criterion)]
        notes += about_batches(self._validation.limits)
        return to_result(run, outcome, saved=saved, network=self._method, notes=tuple(notes))

    def _changed_classifier(self) -> dict[str, Tensor] | None:
        """Return the tensors of the classifier trained along that are no longer those of the frozen one."""
        if self._classifier is None:
            return None
        frozen = self._classifiers[0].network.state_dict()
        state = self._classifier.network.state_dict()
        return {key: value for key, value in state.items() if not torch.equal(value, frozen[key])} or state

    # --- what the loop asks for

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the method, and the classifier where it is trained along."""
        parts: dict[str, nn.Module] = {"method": self._method}
        return parts if self._classifier is None else parts | {"classifier": self._classifier}

    def rates(self) -> Mapping[str, float]:
        """Return the learning rate of each part."""
        return {"method": self.recipe.lr, "classifier": self.recipe.classifier_lr or self.recipe.lr}

    def train_mode(self) -> None:
        """Put the method into train mode, and the classifier as the recipe says."""
        self._method.train()
        if self._classifier is not None:
            self._classifier.train(self.recipe.classifier_train_mode)
            for norm in self._folded:
                norm.eval()  # what statistics of a batch would make of it is another network

    def step(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the terms of the method's training step."""
        teacher = self._classifiers[batch.teacher_number] if self._classifiers else None
        return self._method.training_step(batch, teacher, self._classifier)

    def phases(self) -> tuple[Phase, ...]:
        """Return the method's phase and the classifier's, where the recipe trains them one after the other."""
        recipe = self.recipe
        if not recipe.classifier_losses:
            return super().phases()
        optimizer = recipe.classifier_optimizer or recipe.optimizer
        return (
            Phase(("method",), recipe.losses, self.step, recipe.optimizer, recipe.scales_terms),
            Phase(("classifier",), recipe.classifier_losses, self._classifier_step, optimizer, scaled=False),
        )

    def make_batch(self, raw: RawBatch) -> Batch:
        """Return HR, LR made of it or given, labels, and the teacher's logits where the recipe needs them."""
        hr, lr = to_images(raw, self._device)
        seen_by_teacher = hr
        hr = to_channels(hr, self._method.info.channels)
        lr = None if lr is None else to_channels(lr, self._method.info.channels)
        if lr is None:
            augment = self.recipe.augment
            soft = blurred(hr, augment.blur, augment.blur_probability)
            lr = degrade(soft, self._degradation, grey=self.images.channels == 1)
        own_size = (hr.shape[-2], hr.shape[-1])
        sr_size = self._run.protocol.sr_size(*own_size)
        shown_size = own_size if raw.input_size is None else at_side(own_size, raw.input_size)
        shown = restore_size(seen_by_teacher, shown_size, self._run.protocol.sr)
        turn = raw.number % max(len(self._teachers), 1)
        teacher = self._teachers[turn] if self._teachers else None
        return Batch(
            lr=lr,
            hr=hr,
            label=on_device(self.images.targets(raw.positions, raw.placed), self._device),
            teacher_logits=(
                teacher.logits(raw, shown, whole=shown_size == own_size)
                if teacher is not None and self._wants_logits
                else None
            ),
            sr_size=sr_size,
            task_type=self.images.task_type.name,
            shown_size=shown_size if raw.input_size is not None and shown_size != sr_size else None,
            shown_hr=shown if raw.input_size is not None else None,
            teacher_number=turn,
            logits_unit=teacher.unit if teacher is not None else 1.0,
            imitated=None if self._imitated is None else self._imitated.sr(raw, lr, sr_size),
        )

    def validate(self, rank: int, world: int) -> Sums:
        """Return this rank's share of the validation figures."""
        return self._validation(rank, world)

    def settings(self) -> Mapping[str, Any]:
        """Return what must be equal for a checkpoint to be resumed."""
        return {
            "method": self.who,
            "version": self._method.info.version,
            "protocol": self._run.protocol.fingerprint,
            "teacher": "+".join(network.info.sha256 for network in self._classifiers) or None,
            "data": self.images.key,
            "validation data": self._val_images.key,
        } | ({} if self._imitated is None else {"imitated": self._imitated.ref.sha256})

    def guard(self) -> None:
        """Raise if the teacher has been thawed."""
        for network in self._classifiers:
            check_frozen(network, self.who)

    def helpers(self) -> Helpers | None:
        """Return the method's helpers, if it has any."""
        networks = self._method.helpers()
        return Helpers(networks, self._method.helper_step, self._restored) if networks else None

    def _restored(self, batch: Batch) -> Tensor:
        """Return SR of a batch at `batch.sr_size`, brought there by the protocol's kernel."""
        return restore(
            self._method, batch.lr, batch.sr_size, restoration=self._run.protocol.sr, numerics=None, name=self.who
        )

    # --- what is set up before the first step

    def _check_parameters(self) -> None:
        """Refuse a run in which nothing could be trained.

        Raises:
            UsageError: Naming the track.
        """
        if any(parameter.requires_grad for part in self.parts().values() for parameter in part.parameters()):
            return
        raise UsageError(
            f"track {self.recipe.track!r} trains {self.who} alone, which has no parameters of its own; train the"
            " classifier along with --set track=adapted"
            if self._classifier is None
            else f"track {self.recipe.track!r} leaves neither {self.who} nor the classifier a parameter to train; let"
            " adapt() leave some of the classifier's their gradients"
        )

    def _cautions(self) -> tuple[str, ...]:
        """Say what training in train mode would break of the classifier trained along."""
        if self._classifier is None or not self.recipe.classifier_train_mode:
            return ()
        images = sample_images(self.images).to(self._device)
        remedy = "freeze them with --set classifier_train_mode=false, or training breaks it"
        who = f"classifier {self._classifier.id}"
        return tuple(about_train_mode(self._classifier, images, who=who, remedy=remedy))

    def _open_images(self) -> tuple[ImageSet, ImageSet]:
        run, recipe = self._run, self.recipe
        teacher = self._classifiers[0] if self._classifiers else None
        refused = check_terms({*recipe.losses, *recipe.classifier_losses}, self._task_type)
        if refused:
            raise UsageError(refused)
        if teacher is not None and self._task_type.loss_term in recipe.losses:
            self._task_type.map_outputs(teacher.info, run.data[0])
        labels = partial(label_map, teacher.info) if teacher is not None else None
        images = open_images(run, run.data, labels, scored=False)
        val_images = open_images(run, run.val, labels, scored=True)
        unlabelled = sorted({*recipe.losses, *recipe.classifier_losses} & NEED_LABELS)
        if unlabelled and not images.labelled:
            raise UsageError(
                f"the loss term {unlabelled[0]!r} needs labels: {images.why_unlabelled};"
                " train with the term 'logits', which needs none"
            )
        return images, val_images

    def _open_imitated(self) -> Imitated | None:
        """Return the method that the recipe imitates, on the device.

        Raises:
            UsageError: If there is no term that asks for it, or a term and no method.
        """
        wanted, spec = "imitation" in self.recipe.losses, self.recipe.imitates
        if wanted != (spec is not None):
            raise UsageError(
                "the loss term 'imitation' needs a method to imitate; name it with --set imitates=METHOD:WEIGHTS"
                if wanted
                else f"imitates={spec!r} has no effect without its loss term; add --set losses.imitation=1"
            )
        if spec is None:
            return None
        imitated = Imitated(spec, self._registry, protocol=self._run.protocol, device=self._device)
        if imitated.method.info.channels != self._method.info.channels:
            raise UsageError(
                f"{self.who} has {self._method.info.channels} channels here and cannot imitate {spec}, which has"
                f" {imitated.method.info.channels}; name another method"
            )
        return imitated

    def _build(self, method_class: type[Method]) -> tuple[Method, dict[str, Any], weights.WeightsFile | None]:
        """Return the method, its constructor arguments, and the weights that it starts from."""
        recipe, known = self.recipe, inspect.signature(method_class).parameters
        parameters = weights.current_arguments(method_class, recipe.parameters)
        if recipe.init is None:
            unknown = sorted(set(parameters) - set(known))
            if unknown:
                raise UsageError(f"{self.who} takes no parameter {unknown[0]!r}; it takes {', '.join(known) or 'none'}")
            return method_class(**parameters), parameters, None
        namespace, colon, spec = recipe.init.partition(":")
        if not colon or namespace not in self._registry.names():
            namespace, spec = self.who, recipe.init
        ref = weights.find(namespace, spec, self._registry.get(namespace).weights)
        loaded = weights.load(ref)
        made_with = weights.current_arguments(method_class, loaded.parameters)
        for key, value in parameters.items():
            if made_with.get(key, value) != value:
                raise UsageError(
                    f"the weights {ref.label!r} were made with {key}={made_with[key]}, the recipe asks for"
                    f" {key}={value}; leave the parameter out, or start without --init-from"
                )
        fresh = {key: value for key, value in parameters.items() if key in known} if ref.card else {}
        loaded = dataclasses.replace(loaded, parameters=made_with | fresh)
        return method_class.from_weights(loaded), dict(loaded.parameters), loaded

    def _adapted(self, teacher: Classifier, loaded: weights.WeightsFile | None) -> Classifier:
        """Return a copy of the teacher to train along, as the weights to start from hold it."""
        classifier = deepcopy(teacher).requires_grad_(True)
        self._method.adapt(classifier)
        base = loaded.ref.card.teacher if loaded is not None and loaded.ref.card is not None else None
        same = base is not None and base.get("sha256") == teacher.info.weights_sha256
        if loaded is not None and loaded.classifier_state is not None and same:
            # With another classifier only the method is transferred.
            weights.fill_changed(
                classifier.network, loaded.classifier_state, origin=loaded.ref.path.name, expected=teacher.id
            )
        return classifier

    def _choose_parameters(self) -> None:
        """Let the method choose constructor arguments on the validation images."""
        self._method.to(self._device).eval()
        self._parameters |= self._method.choose_parameters(self._input_sizes(), self._score)

    def _input_sizes(self) -> list[int]:
        """Return the multiples of 32 between the sides of LR and SR, and SR's own, of the first validation image."""
        protocol, hr_size = self._run.protocol, self._val_images.shapes[0].tolist()
        side = min(protocol.sr_size(*hr_size))
        lr_side = (protocol.effective_scale or 1.0) * min(hr_size)
        return [*sweep(int(lr_side), side - 1), side]

    def _score(self) -> float:
        """Return the figure by which a table ranks, smaller for better: agreement with HR where nothing is labelled.

        Cross-entropy would favour sizes at which the network behind knows too little to be sure of anything.
        """
        fabric = self._run.fabric
        with torch.no_grad():
            metrics = figures(sum_of_ranks(fabric, self._validation(fabric.global_rank, fabric.world_size)))
        ranking = self._task_type.criterion
        criterion = choose_criterion(ranking if ranking in metrics else "agreement", metrics)
        return -metrics[criterion] if is_higher_better(criterion) else metrics[criterion]

    def _classifier_step(self, batch: Batch) -> Mapping[str, Tensor]:
        assert self._classifier is not None
        recipe = self.recipe
        with torch.no_grad():
            sr = self._restored(batch)
        return classifier_terms(recipe.classifier_losses, sr, batch, self._classifier, smoothing=recipe.label_smoothing)

    # --- what stands still and is computed once: the SR that is imitated, the teacher's logits of HR

    def _keep_imitated(self) -> None:
        """Compute the SR to imitate beforehand, where training sees whole images and LR has nothing that is drawn."""
        drawn = self._degradation.seeded or self.recipe.augment.blur > 0
        one_size = len(np.unique(self.images.shapes, axis=0)) == 1
        if self._imitated is None or drawn or not one_size or not self._sees_whole_images():
            return
        fabric = self._run.fabric
        with track("imitated", self._share(self.images), show=self._run.shows) as advance:
            rank, world = fabric.global_rank, fabric.world_size
            self._imitated.keep(self.images, self._degradation, rank=rank, world=world, advance=advance)
        fabric.barrier()

    def _needs_teacher_logits(self) -> bool:
        terms = set(self.recipe.losses)
        of_teacher = NEED_TEACHER_LOGITS - {self._task_type.loss_term}
        return bool(self._classifiers) and bool(terms & of_teacher or terms - set(TERMS))

    def _sees_whole_images(self) -> bool:
        """Say whether training sees whole HR crops, mirrored at most."""
        return self.recipe.patch is None and not self.recipe.augment.shift and not self.recipe.augment.rotate

    def _cacheable(self) -> bool:
        """Say whether the teacher's logits of whole HR crops are what training needs, often enough to keep them."""
        recipe = self.recipe
        if not self._sees_whole_images():
            return False
        if recipe.steps_per_epoch is None:
            return True
        steps = recipe.epochs * recipe.steps_per_epoch * recipe.accumulate
        images = steps * recipe.batch_size * self._run.fabric.world_size
        return images >= len(self.images) * len(self._classifiers)

    def _teacher(self, network: Classifier) -> Teacher:
        """Return one of the teachers; where there are several each counts by the variance of its own logits."""
        unit, cached = 1.0, []
        if self._wants_logits and self._cacheable() and is_cached(network):
            sides = (False, True) if self.recipe.augment.flip else (False,)
            cached = [self._open_logits(network, self.images, flipped=flipped) for flipped in sides]
        if self._wants_logits and len(self._classifiers) > 1:
            unit = logits_variance(network, self.images, self._device)
        return Teacher(network, unit=unit, cached=cached)

    def _watchers(self, judges: Sequence[Classifier]) -> list[Watcher]:
        """Return what sees SR in validation; the figures of a single teacher have no label."""
        classes = self._classifiers[0].info.classes if self._classifiers else None
        watchers = []
        for network in (*self._classifiers, *judges):
            teaches = network not in judges
            seen_by = self._classifier if teaches and self._classifier is not None else network
            watchers.append(
                Watcher(
                    seen_by,
                    self._open_logits(network, self._val_images, flipped=False),
                    label="" if teaches and len(self._classifiers) == 1 else f":{network.id}",
                    teaches=teaches,
                    labelled=network.info.classes == classes,
                )
            )
        return watchers

    def _open_logits(self, network: Classifier, images: ImageSet, *, flipped: bool) -> HrLogits:
        if not is_cached(network):
            return FreshLogits(images, network, device=self._device)
        fabric = self._run.fabric
        logits = TeacherLogits(images, network, flipped=flipped, device=self._device)
        with track("teacher", self._share(images), show=self._run.shows) as advance:
            logits.fill(rank=fabric.global_rank, world=fabric.world_size, advance=advance)
        fabric.barrier()
        return logits

    def _share(self, images: ImageSet) -> int:
        """Return how many of these images fall to each rank."""
        return -(-len(images) // self._run.fabric.world_size)


def _identity(network: Classifier) -> dict[str, str]:
    return {"id": network.id, "sha256": network.info.weights_sha256}
