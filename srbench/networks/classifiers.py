"""A network behind SR: images in [0, 1] go in, its answer comes out; it owns its mean, std and input size."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import DataError
from srbench.imaging.colour import to_channels
from srbench.imaging.resample import resize
from srbench.networks.dense import padding_of
from srbench.networks.outputs import Answers, as_answer
from srbench.weights import Card

USUAL_SIDE = 224  # pixels, of most networks trained on ImageNet
NAMESPACE = "classifiers"  # of their weights; methods have their own names as theirs


@dataclass(frozen=True)
class ClassifierInfo:
    """What identifies a classifier.

    Attributes:
        id: Name in tables and folders: the spec of a shipped or library classifier, or the stem of a card.
        library: "timm" or "torchvision".
        name: The library's own name, tag included.
        args: Further arguments of the library's constructor.
        weights_sha256: Hash of the weights file, or of the parameters where the library fetched them.
        mean: Mean that is subtracted, one number a channel.
        std: Standard deviation that is divided by, one number a channel.
        input_size: Side the architecture insists on, pixels; None if it takes any.
        in_chans: Channels it takes: 3, or 1 (then the mean over RGB goes in).
        classes: Class names by output index, or None if they are unknown. ImageNet's are wnids.
        n_classes: Number of outputs.
        answers: The form of its outputs: "scores" of the whole image, a "map" of scores, or "boxes".
    """

    id: str
    library: str
    name: str
    args: dict[str, Any]
    weights_sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int | None
    in_chans: int
    classes: tuple[str, ...] | None
    n_classes: int
    answers: Answers = "scores"

    @property
    def sha256(self) -> str:
        """Hash of everything that moves its logits."""
        # field by field: asdict would copy a thousand class names each time
        fixed = {"id", "classes", "answers"}  # the form follows from the architecture
        moving = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in fixed}
        return hashlib.sha256(json.dumps(moving, sort_keys=True).encode()).hexdigest()


class Classifier(nn.Module):
    """A network with its own normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, info: ClassifierInfo, network: nn.Module, card: Card | None = None) -> None:
        """Wrap a network; it is put into eval mode.

        Args:
            info: What identifies it.
            network: Maps normalised `(N, in_chans, H, W)` to outputs of one of the forms of `srbench.networks.outputs`.
            card: What is known of its training, where it was trained by srbench.
        """
        super().__init__()
        self.info, self.card = info, card
        self.network = network
        shape = (1, len(info.mean), 1, 1)
        self.register_buffer("mean", torch.tensor(info.mean, dtype=torch.float32).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(info.std, dtype=torch.float32).view(shape), persistent=False)
        self.eval()

    @property
    def id(self) -> str:
        """Name in tables and folders."""
        return self.info.id

    @property
    def usual_side(self) -> int:
        """Side that it was made for, pixels: what it insists on, what timm says of it, else 224."""
        if self.info.input_size is not None:
            return self.info.input_size
        said = getattr(self.network, "pretrained_cfg", None) or {}
        size = said.get("test_input_size") or said.get("input_size")
        return int(min(size[-2:])) if size else USUAL_SIDE

    def forward(self, image: Tensor) -> Tensor:
        """Return the answer on images `(N, 3, H, W)`, RGB, or `(N, 1, H, W)`, float, [0, 1].

        Scores before the softmax are `(N, n_classes)`, a map of them `(N, n_classes, H, W)`.
        """
        seen = self.normalise(image)
        rows, columns = seen.shape[-2:]
        beside = padding_of(self.network, (rows, columns))
        if any(beside):
            seen = F.pad(seen, (0, beside[1], 0, beside[0]), mode="replicate")
        output = as_answer(self.network(seen), (seen.shape[-2], seen.shape[-1]))
        if any(beside) and isinstance(output, Tensor) and output.ndim == 4:
            output = output[..., :rows, :columns]
        return as_answer(output, (image.shape[-2], image.shape[-1]))

    def normalise(self, image: Tensor) -> Tensor:
        """Return what the network takes: `(N, in_chans, H', W')` at its own size, mean and std."""
        side = self.info.input_size
        if side is not None and tuple(image.shape[-2:]) != (side, side):
            image = resize(image, (side, side), "bicubic").clamp(0, 1)
        return (to_channels(image, self.info.in_chans) - self.mean) / self.std


def label_map(info: ClassifierInfo, classes: Sequence[str]) -> np.ndarray:
    """Return, for every class of a dataset, the index of the classifier's output, `(len(classes),)` int64.

    Raises:
        DataError: If some class is not among the classifier's.
    """
    if info.classes is None:
        if len(classes) != info.n_classes:
            raise DataError(
                f"the data has {len(classes)} classes and classifier {info.id} has {info.n_classes} unnamed outputs;"
                " give its class names in a card (classes = a file with one name a line)"
            )
        if list(classes) == sorted(classes) and not _same_order(classes):
            raise DataError(
                f"classifier {info.id} has unnamed outputs, so the data's {len(classes)} classes are matched by their"
                " order; sorted by letters, by numbers (2 before 10) and without regard to case they come in different"
                " orders: give the names in the order of the outputs in a card (classes = a file with one name a line)"
            )
        return np.arange(len(classes))
    # File systems differ in whether an accent is a part of its letter, which nobody can see.
    index = {_composed(name): position for position, name in enumerate(info.classes)}
    missing = [name for name in classes if _composed(name) not in index]
    if missing:
        kind = (
            "ImageNet wnids such as n01440764"
            if info.classes == imagenet_wnids()
            else f"names such as {info.classes[0]!r}"
        )
        remedy = (
            "rename the folders or use another classifier"
            if info.answers == "scores"
            else "give the data's classes these names, or use another network"
        )
        raise DataError(
            f"{len(missing)} of the data's {len(classes)} classes are unknown to classifier {info.id}, such as"
            f" {missing[0]!r}; its classes are {kind}: {remedy}"
        )
    return np.array([index[_composed(name)] for name in classes], dtype=np.int64)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Return what sorts names as people count: 2 before 10, and without regard to case."""
    parts, digits = [], ""
    for letter in f"{name.casefold()}\0":
        if letter.isdecimal():
            digits += letter
            continue
        if digits:
            parts.append((False, int(digits), ""))
            digits = ""
        parts.append((True, 0, letter))
    return parts


def _same_order(names: Sequence[str]) -> bool:
    """Whether names are in one order however they are sorted: plainly, without regard to case, or by their numbers."""
    plain = sorted(names)
    return plain == sorted(names, key=str.casefold) == sorted(names, key=_natural_key)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the wnids of ImageNet-1k in class order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
