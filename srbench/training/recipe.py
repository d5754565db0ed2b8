"""Recipes: every setting of a training run, as data, from a name, a TOML file and `key=value` overrides."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from srbench.errors import UnknownNameError, UsageError
from srbench.files.paths import user_path
from srbench.files.strict import read_toml
from srbench.files.validate import Above0, Count, NotNegative, PlainJson, Positive, Share, check, validated
from srbench.task_types import task_type, task_type_names

TERMS = (
    "logits",
    "features",
    "stages",
    "l1",
    "l2",
    "psnr",
    "ce",
    "perceptual",
    "adversarial",
    "emd",
    "boxes",
    "imitation",
    "kl",
)
CLASSIFIER_TERMS = ("ce_sr", "ce_hr", "ce_mix")
_CRITERIA = ("ce_difference", "logits", "psnr", "none")  # whatever the task type

BelowOne = Annotated[float, Interval(ge=0, lt=1)]
OptimizerName = Literal["adam", "adamw", "sgd", "soap"]


@dataclass(frozen=True)
class Augment:
    """What is drawn anew for every image of every step.

    Attributes:
        flip: Mirror left to right with probability 1/2.
        rotate: Turn by 0, 90, 180 or 270 degrees with equal probability, by 0 or 180 where a crop is not square. With
            `flip` these are all eight ways to lay down a square.
        shift: Crop up to this many pixels off the border on each side, at random, so that the content moves.
        blur: Largest standard deviation of a Gaussian blur, pixels; drawn uniformly from 0.
        blur_probability: Share of the images that are blurred, where `blur` is above 0.
        degrade_probability: Share of the images that a classifier sees as their LR, brought back by bilinear; makes
            a teacher that does not collapse on mild blur. Only `train classifier` uses it.
    """

    flip: bool = False
    rotate: bool = False
    shift: Count = 0
    blur: NotNegative = 0.0
    blur_probability: Share = 0.5
    degrade_probability: Share = 0.0


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    Attributes:
        losses: Weight of every named loss term; the sum is what is minimised. The usual names are in `TERMS`, but a
            method's `training_step` may return others. Without any, no optimiser step is taken: batch-norm statistics
            alone are estimated, on `norm_steps` batches.
        epochs: Passes; an epoch is `steps_per_epoch` optimiser steps.
        steps_per_epoch: Optimiser steps an epoch, or None for one pass over the data.
        batch_size: Images a forward pass, on each rank.
        accumulate: Forward passes an optimiser step.
        optimizer: "adam", "adamw", "sgd" or "soap" (Vyas et al., ICLR 2025: Adam in the eigenbasis of the mean of the
            gradient's outer products).
        lr: Learning rate of the method's network.
        momentum: Momentum of SGD without Nesterov; Adam and AdamW have betas 0.9 and 0.999, SOAP 0.95 and 0.95.
        weight_decay: L2 for sgd and adam, decoupled for adamw and soap.
        schedule: "constant", "cosine" to zero over the whole run, or "step": times `gamma` every `decay_every` epochs.
        gamma: Factor of the step schedule.
        decay_every: Epochs between two steps of it.
        warmup_steps: Optimiser steps over which the learning rates rise linearly from zero.
        unit_scale: Divide every term by its size on the first batch; None does so where there are two terms or more.
        label_smoothing: Label smoothing of the cross-entropy term.
        patch: Train on random HR patches of this side, pixels, cut at native size; None takes the protocol's HR.
        patches_per_image: Patches that are cut from an image each time it is drawn; with `batch_size` of them a batch
            comes from one image. One pass over the data shows so many patches of each image.
        min_detail: A patch with less detail than this is drawn again from the same image, at most seven times; then the
            one with the most detail is taken. Detail is the larger of the mean standard deviations along the columns
            and along the rows of the patch, in units of [0, 1]; 0 takes every patch.
        augment: What is drawn anew for every image.
        input_sizes: Shortest sides at which the classifier sees SR, pixels. One is drawn for each batch, and what is
            named twice is drawn twice as often. Without any it is the size of HR.
        ema: Decay of the moving average of the weights that is validated and saved; 0 is none.
        average_epochs: The last epoch validates and keeps the mean, tensor by tensor, of the weights at the ends of so
            many epochs, the last ones; 1 is the last alone.
        clip_norm: Largest norm of the gradient, or None.
        helper_lr: Learning rate of the helper networks (a discriminator), or None for `lr`.
        classifier_lr: Learning rate of the classifier in the adapted track, or None for `lr`.
        classifier_train_mode: Whether batch norm and dropout of the classifier are in train mode in the adapted track.
        classifier_losses: Weight of every term of a step of the classifier's own; then each training step is two:
            the method's by `losses`, the classifier standing still, and the classifier's, SR standing still. The
            terms are in `CLASSIFIER_TERMS`. Without any, the adapted track trains both at once by `losses`.
        classifier_optimizer: Optimiser of that second step, or None for `optimizer`.
        track: "frozen" leaves the classifier alone, "adapted" trains it along.
        parameters: Constructor arguments of the network.
        init: Weights (a name or a file) to start from, or None for a fresh network.
        imitates: METHOD:WEIGHTS of a frozen method whose SR the term "imitation" compares with, such as
            "esrgan:df2k-psnr-x4", or None.
        select: Which epoch is kept: the best by one of `criteria`, such as the lowest "ce_difference" or the highest
            "psnr", or "none" for the last. Without labels or a classifier the best criterion that there is takes its
            place.
        validate_every: Epochs between validations; the last epoch is always validated.
        checkpoint_every: Optimiser steps between checkpoints inside an epoch; 0 is at the epochs' ends only.
        norm_steps: Batches over which batch-norm statistics are estimated anew before each validation; 0 is none.
        store_fp16: Store the weights in 16 bits.
    """

    losses: Mapping[str, Above0] = field(default_factory=dict)
    epochs: Positive = 10
    steps_per_epoch: Positive | None = None
    batch_size: Positive = 16
    accumulate: Positive = 1
    optimizer: OptimizerName = "adam"
    lr: Above0 = 1e-4
    momentum: BelowOne = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    gamma: Annotated[float, Interval(gt=0, le=1)] = 0.5
    decay_every: Positive = 1
    warmup_steps: Count = 0
    unit_scale: bool | None = None
    label_smoothing: BelowOne = 0.0
    patch: Positive | None = None
    patches_per_image: Positive = 1
    min_detail: BelowOne = 0.0
    augment: Augment = field(default_factory=Augment)
    input_sizes: tuple[Positive, ...] = ()
    ema: BelowOne = 0.0
    average_epochs: Positive = 1
    clip_norm: Above0 | None = None
    helper_lr: Above0 | None = None
    classifier_lr: Above0 | None = None
    classifier_train_mode: bool = True
    classifier_losses: Mapping[str, Above0] = field(default_factory=dict)
    classifier_optimizer: OptimizerName | None = None
    track: Literal["frozen", "adapted"] = "frozen"
    parameters: Annotated[Mapping[str, Any], PlainJson()] = field(default_factory=dict)
    init: str | None = None
    imitates: str | None = None
    select: str = "ce_difference"
    validate_every: Positive = 1
    checkpoint_every: Count = 0
    norm_steps: Count = 0
    store_fp16: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises:
            UsageError: Naming the setting.
        """
        if isinstance(self.input_sizes, list):  # as JSON and TOML give it
            object.__setattr__(self, "input_sizes", tuple(self.input_sizes))
        check(self, origin="recipe", error=UsageError)
        if self.select not in criteria():
            raise UnknownNameError("criterion of select", self.select, criteria())
        for term in self.classifier_losses:
            if term not in CLASSIFIER_TERMS:
                raise UnknownNameError("term of classifier_losses", term, CLASSIFIER_TERMS)

    @property
    def scales_terms(self) -> bool:
        """Whether every term is divided by its size on the first batch."""
        return len(self.losses) > 1 if self.unit_scale is None else self.unit_scale

    def to_json(self) -> dict[str, Any]:
        """Return every setting as plain JSON types."""
        raw = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return raw | {
            "losses": dict(self.losses),
            "classifier_losses": dict(self.classifier_losses),
            "parameters": dict(self.parameters),
            "augment": dataclasses.asdict(self.augment),
            "input_sizes": list(self.input_sizes),
        }


def criteria() -> tuple[str, ...]:
    """Return what may select an epoch: what any data have, and the criterion of every task type."""
    return (*_CRITERIA, *(task_type(name).criterion for name in task_type_names()))


def load_recipe(spec: str, recipes: Mapping[str, Recipe]) -> Recipe:
    """Return the recipe of that name, or that of a TOML file.

    A file has a recipe's fields as keys and the tables [losses], [parameters] and [augment]; `base = "NAME"` starts
    from one of `recipes`, and the file changes single settings of it.

    Raises:
        UnknownNameError: If there is no recipe of that name.
        UsageError: If the file is missing, is no TOML, or has a setting that is unknown, of another type or out of
            range.
    """
    if not spec.endswith(".toml"):
        if spec not in recipes:
            raise UnknownNameError("recipe", spec, recipes)
        return recipes[spec]
    path = user_path(spec)
    if not path.is_file():
        raise UsageError(f"there is no recipe file {spec}; give a path to a .toml file or one of {sorted(recipes)}")
    raw = read_toml(path, what=f"recipe {path.name}", error=UsageError)
    base = raw.pop("base", None)
    if base is not None and (not isinstance(base, str) or base not in recipes):
        raise UnknownNameError("recipe", str(base), recipes)
    return _changed(recipes[base] if base is not None else Recipe(), raw, f"recipe {path.name}")


def apply_overrides(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """Change single settings by "key=value", such as "lr=1e-4", "losses.l1=0.5" or "parameters.blocks=2".

    A loss weight of 0 takes the term out; "none" unsets what may be unset; "args." stands for "parameters.".

    Raises:
        UsageError: If an override is no key=value, or its key is unknown, or its value is of another type or out of
            range.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set takes key=value, such as lr=1e-4 or losses.l1=0.5, got {override!r}")
        outer, dot, inner = key.partition(".")
        outer = "parameters" if outer == "args" else outer
        value = _parse(text.strip())
        recipe = _changed(recipe, {outer: {inner: value}} if dot else {outer: value}, "--set")
    return recipe


def _parse(text: str) -> Any:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


RENAMED = {"flatness": "min_detail", "half": "store_fp16"}  # a setting as recipes of 0.1.0 call it, and its name

_WEIGHTS = ("losses", "classifier_losses")
_TABLES = (*_WEIGHTS, "parameters", "augment")


def _changed(recipe: Recipe, raw: Mapping[str, Any], origin: str) -> Recipe:
    settings = recipe.to_json()
    for given, value in raw.items():
        key = RENAMED.get(given, given)
        if key in _TABLES:
            if not isinstance(value, Mapping):
                raise UsageError(
                    f"{origin}: {key} holds settings of its own; write {key}.NAME={value!r} for one of them"
                )
            value = settings[key] | value
            if key in _WEIGHTS:  # a weight of zero takes the term out
                value = {term: weight for term, weight in value.items() if isinstance(weight, bool) or weight != 0}
        elif key == "select" and value is None:
            value = "none"  # a word of its own, not the absence of one
        settings[key] = value
    return validated(Recipe, settings, origin=origin, error=UsageError, syntax="toml")
