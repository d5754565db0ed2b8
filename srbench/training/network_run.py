"""Training of a network on what the data say, by the same loop as the methods.

Recipes are the TOML files in `srbench/training/recipes/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from srbench import weights
from srbench.compute.devices import on_device
from srbench.errors import SrbenchError, UsageError
from srbench.imaging.degrade import degrade, for_classifier
from srbench.imaging.resample import resize
from srbench.method import Batch
from srbench.networks.classifiers import NAMESPACE as CLASSIFIERS
from srbench.networks.classifiers import Classifier, ClassifierInfo
from srbench.networks.dense import fill_encoder
from srbench.networks.loading import create_network
from srbench.training.batch import blurred, to_images, training_degradation
from srbench.training.cautions import about_chance, about_outcome, about_train_mode, sample_images
from srbench.training.crops import RawBatch
from srbench.training.images import task_type_of
from srbench.training.norms import batch_norms, folded_norms
from srbench.training.prepare import PreparedRun, open_images
from srbench.training.recipe import Recipe, load_recipe
from srbench.training.result import TrainingResult, fit, save_weights, to_result
from srbench.training.trainee import Trainee
from srbench.training.validation import NetworkValidation, Sums, about_batches, batch_fields, validation_batch

IF_AVAILABLE = "if-available"
_OF_HEADS = frozenset({"num_classes", "in_chans"})  # arguments of a classifier that no encoder takes over
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def network_recipes() -> Mapping[str, Recipe]:
    """Return the recipes of networks by name."""
    folder = resources.files("srbench.training") / "recipes"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".toml"): load_recipe(str(entry), {}) for entry in files}


class NetworkRun(Trainee):
    """A network that is trained on HR."""

    def __init__(
        self,
        run: PreparedRun,
        library: str,
        architecture: str,
        in_chans: int,
        *,
        encoder: Classifier | None = None,
    ) -> None:
        """Decode the images and build the network.

        Args:
            run: The run.
            library: "timm", "torchvision" or "smp".
            architecture: Name of the architecture there.
            in_chans: Channels that the network takes, 1 or 3.
            encoder: A classifier whose weights a decoder's encoder starts from, or None.

        Raises:
            UsageError: If the data have no labels, or the library cannot build the network.
        """
        self.who, self.recipe = f"classifier {run.name}", run.recipe
        self._run, self._device = run, run.fabric.device
        self._task_type = task_type_of([*run.data, *run.val])
        self._classes = self._task_type.classes_of(run.data)
        self._pretrained = False
        self._notes: tuple[str, ...] = ()
        self._frozen_norms: list[_BatchNorm] = []
        self.images = open_images(run, run.data, self._indices, scored=False)
        self._val_images = open_images(run, run.val, self._indices, scored=True)
        for images in (self.images, self._val_images):
            if not images.labelled:
                raise UsageError(f"a classifier needs labelled data: {images.why_unlabelled}")
        torch.manual_seed(run.options.seed)
        self._started: weights.WeightsFile | None = None
        self._encoder = encoder
        self._classifier = self._build(library, architecture, in_chans)
        if self._started is not None or self._pretrained or encoder is not None:
            said = about_train_mode(
                self._classifier, sample_images(self.images), who=self.who, remedy="they stay frozen in this training"
            )
            self._frozen_norms = batch_norms(self._classifier) if said else folded_norms(self._classifier)
            self._notes += tuple(said)
        self._degradation = training_degradation(run.protocol)
        self._validation = NetworkValidation(
            network=self._classifier,
            images=self._val_images,
            protocol=run.protocol,
            batch_size=validation_batch(self._device),
            device=self._device,
            seed=run.options.seed,
        )

    def result(self) -> TrainingResult:
        """Train, save, and say how it went."""
        run, info = self._run, self._classifier.info
        outcome = fit(run, self)
        self._classifier.eval()
        extra = {
            "library": info.library,
            "name": info.name,
            "args": info.args,
            "mean": list(info.mean),
            "std": list(info.std),
            "kind": self._task_type.name,
            "classes": list(self._classes),
            "input_size": info.input_size,
            "in_chans": info.in_chans,
            "pretrained": self._pretrained,
            **batch_fields(self._validation.limits),
        }
        saved = save_weights(
            run,
            weights.Card(namespace=CLASSIFIERS, name=run.name, extra=extra),
            self._classifier.network.state_dict(),
            outcome,
            images=self.images,
            val_images=self._val_images,
            started=self._started,
        )
        notes = [
            *self._notes,
            *about_outcome(outcome.epoch, outcome.steps, outcome.criterion),
            *about_chance(outcome.metrics, self._val_images.labels, len(self._classes)),
            *about_batches(self._validation.limits),
        ]
        return to_result(run, outcome, saved=saved, network=self._classifier, notes=tuple(notes))

    # --- what the loop asks for

    def parts(self) -> Mapping[str, nn.Module]:
        """Return the classifier."""
        return {"classifier": self._classifier}

    def rates(self) -> Mapping[str, float]:
        """Return its learning rate."""
        return {"classifier": self.recipe.lr}

    def train_mode(self) -> None:
        """Put the classifier into train mode, but for batch norms whose statistics are not those of its features."""
        self._classifier.train()
        for norm in self._frozen_norms:
            norm.eval()  # what statistics of a batch would make of it is another network

    def make_batch(self, raw: RawBatch) -> Batch:
        """Return HR, LR and labels."""
        hr, lr = to_images(raw, self._device)
        return Batch(
            lr=degrade(hr, self._degradation) if lr is None else lr,
            hr=hr,
            label=on_device(self.images.targets(raw.positions, raw.placed), self._device),
            teacher_logits=None,
            sr_size=self._run.protocol.sr_size(hr.shape[-2], hr.shape[-1]),
            task_type=self._task_type.name,
        )

    def step(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return the one term that the task type names."""
        image = self._input(batch)
        assert batch.label is not None
        loss = self._task_type.loss(self._classifier(image), batch.label, smoothing=self.recipe.label_smoothing)
        return {self._task_type.loss_term: loss}

    def validate(self, rank: int, world: int) -> Sums:
        """Return this rank's share of the validation figures."""
        return self._validation(rank, world)

    def settings(self) -> Mapping[str, Any]:
        """Return what must be equal for a checkpoint to be resumed."""
        return {
            "classifier": f"{self._classifier.info.library}:{self._classifier.info.name}",
            "arguments": self._classifier.info.args,
            "protocol": self._run.protocol.fingerprint,
            "data": self.images.key,
            "validation data": self._val_images.key,
        }

    def _input(self, batch: Batch) -> Tensor:
        """Return what the classifier sees: HR, a blurred HR, or LR brought back by bilinear."""
        augment = self.recipe.augment
        image = blurred(batch.hr, augment.blur, augment.blur_probability)
        if not augment.degrade_probability:
            return image
        low = torch.rand(len(image)).to(self._device) < augment.degrade_probability
        back = for_classifier(resize(batch.lr, batch.sr_size, "bilinear"), self._run.protocol)
        if back.shape[-2:] != image.shape[-2:]:
            raise UsageError("augment.degrade_probability needs a protocol that brings SR back to HR size; set it to 0")
        return torch.where(low.view(-1, 1, 1, 1), back, image)

    # --- what is set up before the first step

    def _indices(self, classes: Sequence[str]) -> NDArray[np.int64]:
        unknown = sorted(set(classes) - set(self._classes))
        if unknown:
            raise UsageError(
                f"the validation data has the class {unknown[0]!r}, which the training data lacks;"
                " both must have the same classes"
            )
        return np.array([self._classes.index(name) for name in classes], dtype=np.int64)

    def _build(self, library: str, architecture: str, in_chans: int) -> Classifier:
        args = dict(self.recipe.parameters)
        wanted = args.pop("pretrained", False)
        if not isinstance(wanted, bool) and wanted != IF_AVAILABLE:
            raise UsageError(f"args.pretrained takes true, false or {IF_AVAILABLE}, got {wanted!r}")
        args["num_classes"] = len(self._classes)
        if in_chans != 3:
            if library == "torchvision":
                raise UsageError("--in-chans 1 is for architectures of timm; torchvision's take three channels")
            args["in_chans"] = in_chans
        if self._encoder is not None:  # what its layers are made of, such as how they pad
            of_encoder = {key: value for key, value in self._encoder.info.args.items() if key not in _OF_HEADS}
            args = {"encoder_args": of_encoder, **args} if self._task_type.answers == "boxes" else of_encoder | args
        network = self._network(library, architecture, args, wanted)
        config = getattr(network, "pretrained_cfg", None) or {}
        normalised: Mapping[str, Any] = config
        if self.recipe.init is not None:
            self._started = weights.load(weights.find(CLASSIFIERS, self.recipe.init))
            card = self._started.ref.card
            normalised = config | (card.extra if card is not None else {})
        mean: tuple[float, ...] = _MEAN
        std: tuple[float, ...] = _STD
        if self._pretrained or self._started is not None:  # its first layer was trained for them
            mean, std = tuple(normalised.get("mean", mean)), tuple(normalised.get("std", std))
        if self._encoder is not None:
            mean, std = self._encoder.info.mean, self._encoder.info.std
        if in_chans == 1:  # what the first layer, summed over its colours, saw of grey images
            mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        if self._started is not None:
            state = _with_own_head(self._started.state, network.state_dict(), len(self._classes))
            weights.fill_state(network, state, origin=self._started.ref.path.name, expected=architecture)
        elif self._encoder is not None:
            fill_encoder(network, self._encoder.network.state_dict(), origin=self._encoder.id)
        elif not self._pretrained:
            self._task_type.begin(network)
        info = ClassifierInfo(
            id=self._run.name,
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
            answers=self._task_type.answers,
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
        torch.manual_seed(self._run.options.seed)  # as if no other network had been begun
        network = create_network(library, architecture, args, pretrained=False)
        self._pretrained, self._notes = False, (f"{architecture} was trained from scratch: {reason}",)
        return network


def _with_own_head(given: Mapping[str, Tensor], own: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """Return the given weights; where they are for another number of classes, the network's own first values stay."""

    def of_head(key: str) -> bool:
        if key not in own or own[key].shape == given[key].shape:
            return False
        return tuple(own[key].shape) == (classes, *given[key].shape[1:])

    return {key: own[key] if of_head(key) else value for key, value in given.items()}


def _input_size(config: Mapping[str, Any], args: Mapping[str, Any]) -> int | None:
    """Return the side that the architecture insists on, or None if it takes any."""
    if not config.get("fixed_input_size") or args.get("dynamic_img_size"):
        return None
    side = args.get("img_size", config["input_size"][-1])
    return int(side if isinstance(side, int) else side[0])
