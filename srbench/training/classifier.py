"""`srbench train classifier ARCH`: a classifier on the classes of the data, by the same loop as the methods.

Recipes are the TOML files in `srbench/training/recipes/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.data.catalogue import default_task_type
from srbench.errors import SrbenchError, UsageError
from srbench.imaging.degrade import degrade, for_classifier
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.networks.classifiers import NAMESPACE as CLASSIFIERS
from srbench.networks.classifiers import Classifier, ClassifierInfo
from srbench.networks.loading import create_network
from srbench.protocol import Protocol
from srbench.task_types import task_type
from srbench.training.api import (
    Setting,
    TrainingResult,
    adjusted,
    blurred,
    choose_protocol,
    choose_recipe,
    open_images,
    prepare_setting,
    run_job,
    save_weights,
    to_images,
    training_degradation,
    validation_batch,
)
from srbench.training.data import RawBatch, kind_of
from srbench.training.loop import Trainee
from srbench.training.recipe import Recipe, load_recipe
from srbench.training.validation import ClassifierValidation
from srbench.weights import WeightsFile, fill_state, find, load

IF_AVAILABLE = "if-available"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def classifier_recipes() -> Mapping[str, Recipe]:
    """Return the recipes of classifiers by name."""
    folder = resources.files("srbench.training") / "recipes"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".toml"): load_recipe(str(entry), {}) for entry in files}


def train_classifier(
    arch: str,
    *,
    data: Sequence[str],
    in_chans: int = 3,
    val: str | None = None,
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
    progress: bool = True,
    command: str = "",
) -> TrainingResult:
    """Train a classifier on the classes of the data; it can then be named with --classifier.

    Args:
        arch: Architecture of timm, or "torchvision:NAME".
        data: SPECs of labelled data.
        in_chans: Channels that the network takes, 1 or 3.
        val: SPEC of the validation data; None holds a part of `data` out, "test" takes its test split.
        protocol: HR geometry, and the degradation of the recipe's `augment.degrade_probability`.
        scale: LR side / HR side, instead of the protocol's.
        recipe: A recipe, a name of `classifier_recipes`, or a TOML file; None is the one for the data.
        overrides: "key=value" settings; "args.KEY=value" goes to the architecture's constructor, and
            "args.pretrained=true" starts from the library's weights, "args.pretrained=if-available" from scratch where
            these cannot be had.
        epochs: Instead of the recipe's.
        out: Folder of the run; None is out/train/<arch>.
        name: Name of the classifier; None is made of the architecture and the data.
        init_from: A trained classifier of the same architecture and classes to start from.
        licence: Licence of the weights, for their card; None is that of `init_from`, where it is known.
        resume: Go on from the checkpoint in `out`.
        force: Start over where `out` holds a checkpoint.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "fp32" or "bf16".
        seed: Seed of everything that is drawn.
        limit: Images of each source at most.
        progress: Show progress bars on a terminal.
        command: Command line, for the card.

    Returns:
        The weights, the history and what selected the epoch.

    Raises:
        UsageError: If the call is wrong; nothing has been trained then.
        TrainingError: If training cannot go on; the last checkpoint is named.
    """
    if in_chans not in {1, 3}:
        raise UsageError(f"--in-chans takes 1 or 3, got {in_chans}")
    library, colon, architecture = arch.partition(":")
    library, architecture = (library, architecture) if colon else ("timm", arch)
    demo = set(data) == {"demo"}
    asked = default_task_type(data)
    chosen, recipe_name = choose_recipe(recipe, classifier_recipes(), demo=demo, device=device, kind=asked)
    chosen = adjusted(chosen, overrides, epochs=epochs, init_from=init_from)
    term = task_type(asked).loss_term
    if set(chosen.losses) != {term}:
        raise UsageError(
            f"a classifier is trained by the loss term {term!r} alone on such data, got {sorted(chosen.losses)}"
        )
    setting = prepare_setting(
        recipe=chosen,
        recipe_name=recipe_name,
        protocol=choose_protocol(protocol, scale, data=data),
        data=data,
        val=val,
        out=Path(out) if out is not None else Path("out") / "train" / architecture,
        name=name or f"{architecture}-{data[0].partition(':')[0]}",
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
    return _Run(setting, library, architecture, in_chans).result()


class _Run:
    """Training of a classifier."""

    def __init__(self, setting: Setting, library: str, architecture: str, in_chans: int) -> None:
        self._setting, self._device = setting, setting.fabric.device
        self._kind = kind_of([*setting.data, *setting.val])
        self._classes = self._kind.classes_of(setting.data)
        self._pretrained = False
        self._notes: tuple[str, ...] = ()
        self._images = open_images(setting, setting.data, self._indices, scored=False)
        self._val_images = open_images(setting, setting.val, self._indices, scored=True)
        for images in (self._images, self._val_images):
            if images.labels is None:
                raise UsageError(f"a classifier needs labelled data: {images.why_unlabelled}")
        torch.manual_seed(setting.seed)
        self._started: WeightsFile | None = None
        self._classifier = self._build(library, architecture, in_chans)
        self._degradation = training_degradation(setting.protocol)

    def result(self) -> TrainingResult:
        """Train, save, and say how it went."""
        setting, info = self._setting, self._classifier.info
        outcome = run_job(setting, self._job())
        self._classifier.eval()
        ref = save_weights(
            setting,
            CLASSIFIERS,
            self._classifier.network.state_dict(),
            outcome,
            images=self._images,
            val_images=self._val_images,
            started=self._started,
            extra={
                "library": info.library,
                "name": info.name,
                "args": info.args,
                "mean": list(info.mean),
                "std": list(info.std),
                "kind": self._kind.name,
                "classes": list(self._classes),
                "input_size": info.input_size,
                "in_chans": info.in_chans,
                "pretrained": self._pretrained,
            },
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
            network=self._classifier,
            notes=self._notes,
        )

    def _indices(self, classes: Sequence[str]) -> NDArray[np.int64]:
        unknown = sorted(set(classes) - set(self._classes))
        if unknown:
            raise UsageError(
                f"the validation data has the class {unknown[0]!r}, which the training data lacks;"
                " both must have the same classes"
            )
        return np.array([self._classes.index(name) for name in classes], dtype=np.int64)

    def _build(self, library: str, architecture: str, in_chans: int) -> Classifier:
        recipe = self._setting.recipe
        args = dict(recipe.parameters)
        wanted = args.pop("pretrained", False)
        if not isinstance(wanted, bool) and wanted != IF_AVAILABLE:
            raise UsageError(f"args.pretrained takes true, false or {IF_AVAILABLE}, got {wanted!r}")
        args["num_classes"] = len(self._classes)
        if in_chans != 3:
            if library != "timm":
                raise UsageError("--in-chans 1 is for architectures of timm; torchvision's take three channels")
            args["in_chans"] = in_chans
        network = self._network(library, architecture, args, wanted)
        config = getattr(network, "pretrained_cfg", None) or {}
        mean: tuple[float, ...] = _MEAN
        std: tuple[float, ...] = _STD
        if self._pretrained:
            mean, std = tuple(config.get("mean", mean)), tuple(config.get("std", std))
        if in_chans == 1:  # what the first layer, summed over its colours, saw of grey images
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        if recipe.init is not None:
            self._started = load(find(CLASSIFIERS, recipe.init))
            state = _with_own_head(self._started.state, network.state_dict(), len(self._classes))
            fill_state(network, state, origin=self._started.ref.path.name, expected=architecture)
        elif not self._pretrained:
            self._kind.begin(network)
        info = ClassifierInfo(
            id=self._setting.name,
            library=library,
            name=architecture,
            args=args,
            weights_sha256="",
            mean=mean,
            std=std,
            input_size=_input_size(config, args),
            in_chans=in_chans,
            classes=self._classes,
            n_classes=len(self._classes),
        )
        return Classifier(info, network)

    def _network(self, library: str, architecture: str, args: Mapping[str, Any], wanted: bool | str) -> nn.Module:
        """Build the network, with the library's weights as far as they are wanted and can be had."""
        self._pretrained, self._notes = bool(wanted), ()
        try:
            return create_network(library, architecture, args, pretrained=bool(wanted))
        except SrbenchError as error:
            if wanted != IF_AVAILABLE:
                raise
            reason = str(error).partition(";")[0]
        torch.manual_seed(self._setting.seed)  # as if no other network had been begun
        network = create_network(library, architecture, args, pretrained=False)
        self._pretrained, self._notes = False, (f"{architecture} was trained from scratch: {reason}",)
        return network

    def _job(self) -> Trainee:
        setting = self._setting
        return Trainee(
            who=f"classifier {setting.name}",
            recipe=setting.recipe,
            parts={"classifier": self._classifier},
            rates={"classifier": setting.recipe.lr},
            train_mode=self._train_mode,
            step=self._step,
            images=self._images,
            make_batch=self._make_batch,
            validator=ClassifierValidation(
                classifier=self._classifier,
                images=self._val_images,
                protocol=setting.protocol,
                batch_size=validation_batch(self._device),
                device=self._device,
                seed=setting.seed,
            ),
            settings={
                "classifier": f"{self._classifier.info.library}:{self._classifier.info.name}",
                "arguments": self._classifier.info.args,
                "protocol": setting.protocol.fingerprint,
                "data": self._images.key,
                "validation data": self._val_images.key,
            },
        )

    def _train_mode(self) -> None:
        self._classifier.train()

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        recipe = self._setting.recipe
        image = self._seen(batch)
        assert batch.label is not None
        loss = self._kind.loss(self._classifier(image), batch.label, smoothing=recipe.label_smoothing)
        return {self._kind.loss_term: loss}

    def _seen(self, batch: Batch) -> Tensor:
        """Return what the classifier is shown: HR, a blurred HR, or LR brought back by bilinear."""
        augment = self._setting.recipe.augment
        image = blurred(batch.hr, augment.blur, augment.blur_probability)
        if not augment.degrade_probability:
            return image
        low = torch.rand(len(image)).to(self._device) < augment.degrade_probability
        back = for_classifier(resize(batch.lr, batch.sr_size, "bilinear"), self._setting.protocol)
        if back.shape[-2:] != image.shape[-2:]:
            raise UsageError("augment.degrade_probability needs a protocol that brings SR back to HR size; set it to 0")
        return torch.where(low.view(-1, 1, 1, 1), back, image)

    def _make_batch(self, raw: RawBatch) -> Batch:
        hr, lr = to_images(raw, self._device)
        assert self._images.labels is not None
        return Batch(
            lr=degrade(hr, self._degradation) if lr is None else lr,
            hr=hr,
            label=torch.from_numpy(self._images.labels[raw.positions]).to(self._device),
            teacher_logits=None,
            sr_size=self._setting.protocol.sr_size(hr.shape[-2], hr.shape[-1]),
            kind=self._kind.name,
        )


def _with_own_head(given: Mapping[str, Tensor], own: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """Return the weights that were given; what they have for another number of classes stays as the network began."""

    def of_scores(key: str) -> bool:
        if key not in own or own[key].shape == given[key].shape:
            return False
        return tuple(own[key].shape) == (classes, *given[key].shape[1:])

    return {key: own[key] if of_scores(key) else value for key, value in given.items()}


def _input_size(config: Mapping[str, Any], args: Mapping[str, Any]) -> int | None:
    """Return the side that the architecture insists on, or None if it takes any."""
    if not config.get("fixed_input_size") or args.get("dynamic_img_size"):
        return None
    side = args.get("img_size", config["input_size"][-1])
    return int(side if isinstance(side, int) else side[0])
