"""What training must do: terms that are finite and fall, helpers that learn, and a teacher left alone."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srbench.conformance.forward import same_after_saving
from srbench.conformance.subject import FailedError, Subject, require
from srbench.method import Batch, Method
from srbench.protocol import Restoration, load_protocol
from srbench.restore import restore
from srbench.task_types import task_type
from srbench.training.losses import UnitScaler, check_terms
from srbench.training.norms import estimating
from srbench.training.recipe import Recipe

CLASSES = 5
_STEP_SIZES = (1e-3, 1e-4, 1e-5)


def distinct(recipes: Mapping[str, Recipe]) -> list[tuple[str, Recipe]]:
    """Return one recipe for every combination of losses and track, named after all that share it.

    Recipes that are for data with boxes alone are left out: the classifier here finds none.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    classes = task_type("classification")
    for name, recipe in recipes.items():
        if isinstance(recipe, Recipe) and recipe.losses and not check_terms(recipe.losses, classes):
            groups.setdefault((tuple(sorted(recipe.losses)), recipe.track), []).append(name)
    return [(", ".join(names), recipes[names[0]]) for names in groups.values()]


def without_losses(recipes: Mapping[str, Recipe]) -> list[tuple[str, Recipe]]:
    """Return one of the recipes that take no optimiser step, named after all of them; none where there are none."""
    names = [name for name, recipe in recipes.items() if isinstance(recipe, Recipe) and not recipe.losses]
    return [(", ".join(names), recipes[names[0]])] if names else []


@dataclass(frozen=True)
class Trial:
    """All that a training step needs, small.

    Attributes:
        recipe: The recipe in force.
        method: The smallest network, in train mode.
        teacher: A frozen classifier.
        classifier: The classifier that is trained along, or None.
        batch: Four images of 32 x 32 pixels.
    """

    recipe: Recipe
    method: Method
    teacher: nn.Module
    classifier: nn.Module | None
    batch: Batch

    @classmethod
    def of(cls, subject: Subject, recipe: Recipe, *, norm: bool = False) -> Trial:
        """Build it reproducibly, on the CPU; with `norm` the classifiers have a batch norm."""
        method = subject.build().train()
        method.recipe = recipe
        method.prepare(load_protocol("clean"))
        teacher = toy_classifier(subject.cls.info.channels, norm=norm).eval().requires_grad_(False)
        classifier: nn.Module | None = None
        if recipe.track == "adapted":
            in_turn = bool(recipe.classifier_losses)  # then the loop freezes it while the method is stepped
            classifier = copy.deepcopy(teacher).requires_grad_(not in_turn)
            method.adapt(classifier)
            classifier.train(not in_turn)
        hr = subject.images(32, 32, n=4, seed=1)
        lr = torch.nn.functional.interpolate(hr, size=(10, 10), mode="bilinear", antialias=True)
        with torch.no_grad():
            batch = Batch(lr, hr, torch.arange(4) % CLASSES, teacher(hr), (32, 32))
        return cls(recipe, method, teacher, classifier, batch)

    def to(self, device: str) -> Trial:
        """Move the networks, in place, and return the trial with its batch on the device."""
        for module in (self.method, self.teacher, self.classifier, *self.method.helpers().values()):
            if module is not None:
                module.to(device)
        batch = self.batch
        assert batch.label is not None and batch.teacher_logits is not None
        moved = dataclasses.replace(
            batch,
            lr=batch.lr.to(device),
            hr=batch.hr.to(device),
            label=batch.label.to(device),
            teacher_logits=batch.teacher_logits.to(device),
        )
        return dataclasses.replace(self, batch=moved)

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained.

        Raises:
            FailedError: If that is nothing.
        """
        trained = [
            parameter
            for module in (self.method, self.classifier)
            if module is not None
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        require(bool(trained), "neither the method nor a classifier has parameters; train something")
        return trained

    def terms(self) -> dict[str, Tensor]:
        """Return the terms that the recipe weighs, each a scalar.

        Raises:
            FailedError: If one is missing or has another shape.
        """
        terms = self.method.training_step(self.batch, self.teacher, self.classifier)
        missing = sorted(set(self.recipe.losses) - set(terms))
        require(not missing, f"training_step did not return {missing}, which the recipe weighs")
        for name, value in terms.items():
            require(value.ndim == 0, f"the loss term {name!r} has shape {tuple(value.shape)}, expected a scalar")
        return {name: terms[name] for name in self.recipe.losses}

    def helper_losses(self) -> Iterator[tuple[str, nn.Module, Tensor]]:
        """Yield each helper with its name and its loss, a scalar.

        Raises:
            FailedError: If a loss has another shape.
        """
        for name, helper in self.method.helpers().items():
            batch = self.batch
            with torch.no_grad():
                sr = restore(self.method, batch.lr, batch.sr_size, restoration=Restoration(), numerics=None)
            loss = self.method.helper_step(name, batch, sr.detach())
            require(loss.ndim == 0, f"helper_step({name!r}) gave shape {tuple(loss.shape)}, expected a scalar")
            yield name, helper, loss


def lowers_the_losses(recipe: Recipe) -> Callable[[Subject], str]:
    """Return the check that two steps on one batch lower the losses of a recipe."""

    def run(subject: Subject) -> str:
        falls = []
        for step_size in _STEP_SIZES:
            before, after = _two_steps(subject, recipe, step_size)
            if after < before:
                return f"two steps of {step_size:g}: {before:.6g} -> {after:.6g}; saved and loaded, same SR"
            falls.append(f"{before:.6g} -> {after:.6g} at step size {step_size:g}")
        raise FailedError(
            f"two Adam steps on one repeated batch do not lower the losses: {'; '.join(falls)};"
            " check that SR depends on the parameters and that no loss is negated or detached"
        )

    return run


def estimates_statistics(recipe: Recipe) -> Callable[[Subject], str]:
    """Return the check that a recipe without losses moves batch-norm statistics, and nothing else."""

    def run(subject: Subject) -> str:
        trial = Trial.of(subject, recipe, norm=True)
        trained = trial.classifier if trial.classifier is not None else trial.method
        before = {key: value.clone() for key, value in trained.state_dict().items()}
        with estimating(trained), torch.no_grad():
            terms = trial.method.training_step(trial.batch, trial.teacher, trial.classifier)
        require(not terms, f"training_step returned {sorted(terms)} where the recipe has no losses; return {{}}")
        moved = {
            key.rpartition(".")[2] for key, value in trained.state_dict().items() if not torch.equal(value, before[key])
        }
        require(
            {"running_mean", "running_var"} <= moved,
            "training_step leaves the statistics of batch norms as they are; show the network its images",
        )
        others = sorted(moved - {"running_mean", "running_var", "num_batches_tracked"})
        require(not others, f"training_step changed {others}; estimate statistics alone")
        return "statistics of batch norms move, and nothing else"

    return run


def require_finite(name: str, value: Tensor) -> None:
    """Require that a term is finite."""
    require(bool(torch.isfinite(value)), f"the loss term {name!r} is {value.item()}; keep it finite")


def _two_steps(subject: Subject, recipe: Recipe, step_size: float) -> tuple[float, float]:
    """Return the sum of the non-adversarial terms before and after two steps on one batch."""
    trial = Trial.of(subject, recipe)
    taught = {key: value.clone() for key, value in trial.teacher.state_dict().items()}
    optimizer = torch.optim.Adam(trial.parameters(), lr=step_size)
    scaler = UnitScaler()

    def objective() -> Tensor:
        terms = trial.terms()
        for name, value in terms.items():
            require_finite(name, value)
        plain = {name: value for name, value in terms.items() if name != "adversarial"}
        if recipe.scales_terms:
            scaler.measure({name: float(value.detach()) for name, value in plain.items()})
            plain = {name: scaler(name, value) for name, value in plain.items()}
        return torch.stack([recipe.losses[name] * value for name, value in plain.items()]).sum()

    values = []
    for _ in range(2):
        _step_helpers(trial, step_size)
        loss = objective()
        values.append(float(loss.detach()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        values.append(float(objective()))
    moved = [key for key, value in trial.teacher.state_dict().items() if not torch.equal(value, taught[key])]
    require(not moved, f"training changed the frozen teacher ({moved[0] if moved else ''}); leave it alone")
    same_after_saving(subject, trial.method.eval(), trial.classifier)
    return values[0], values[-1]


def _step_helpers(trial: Trial, step_size: float) -> None:
    for name, helper, loss in trial.helper_losses():
        require(bool(torch.isfinite(loss)), f"helper_step({name!r}) gave {loss}; keep it finite")
        gradients = torch.autograd.grad(loss, list(helper.parameters()), allow_unused=True)
        require(
            any(gradient is not None and bool(gradient.any()) for gradient in gradients),
            f"the loss of helper {name!r} does not depend on its parameters; return it undetached",
        )
        with torch.no_grad():
            for parameter, gradient in zip(helper.parameters(), gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(step_size * gradient)


def toy_classifier(channels: int, *, norm: bool = False) -> nn.Module:
    """Return a small classifier of `(N, channels, H, W)`, reproducibly."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )
