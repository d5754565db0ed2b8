"""Classifiers by name or by card: images in [0, 1] go in, logits come out; each owns its mean, std and input size."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srbench import weights
from srbench.errors import DataError, SrbenchError, UnknownNameError, UsageError, WeightsError
from srbench.imaging.colour import to_channels
from srbench.imaging.resample import resize

OWNER = "classifiers"
IMAGENET = "imagenet-1k"
_LIBRARIES = ("timm", "torchvision")
_DOWNLOADERS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3"}
_CARD_KEYS = {
    "library",
    "name",
    "args",
    "weights",
    "sha256",
    "mean",
    "std",
    "classes",
    "input_size",
    "in_chans",
}


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

    @property
    def sha256(self) -> str:
        """Hash of everything that moves its logits."""
        # field by field: asdict would copy a thousand class names each time
        moving = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in {"id", "classes"}}
        return hashlib.sha256(json.dumps(moving, sort_keys=True).encode()).hexdigest()


class Classifier(nn.Module):
    """A network with its own normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, info: ClassifierInfo, network: nn.Module) -> None:
        """Wrap a network; it is put into eval mode.

        Args:
            info: What identifies it.
            network: Maps normalised `(N, in_chans, H, W)` to `(N, n_classes)`.
        """
        super().__init__()
        self.info = info
        self.network = network
        shape = (1, len(info.mean), 1, 1)
        self.register_buffer("mean", torch.tensor(info.mean, dtype=torch.float32).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(info.std, dtype=torch.float32).view(shape), persistent=False)
        self.eval()

    @property
    def id(self) -> str:
        """Name in tables and folders."""
        return self.info.id

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `(N, n_classes)` of images `(N, 3, H, W)`, RGB, or `(N, 1, H, W)`, float, [0, 1]."""
        return self.network(self.normalise(image))

    def normalise(self, image: Tensor) -> Tensor:
        """Return what the network takes: `(N, in_chans, H', W')` at its own size, mean and std."""
        side = self.info.input_size
        if side is not None and tuple(image.shape[-2:]) != (side, side):
            image = resize(image, (side, side), "bicubic").clamp(0, 1)
        return (to_channels(image, self.info.in_chans) - self.mean) / self.std


def load_classifier(spec: str) -> Classifier:
    """Build a classifier from a SPEC: a trained name, `timm:NAME`, `torchvision:NAME`, a TOML card or a weights file.

    Raises:
        UnknownNameError: If no classifier of that name exists.
        UsageError: If a card is missing, incomplete, or names an architecture that its library does not have.
        WeightsError: If the weights do not fit the architecture.
    """
    if spec.endswith(".toml"):
        return _from_card(Path(spec))
    library, _, name = spec.partition(":")
    if name and library in {"timm", "torchvision"}:
        return _from_library(spec, library, name)
    if name:
        raise UsageError(f"--classifier {spec}: the library must be timm or torchvision, got {library!r}")
    if not spec.endswith(weights.SUFFIX) and spec not in weights.names(OWNER):
        raise UnknownNameError("classifier", spec, classifier_names())
    return _from_trained(spec)


def classifier_names() -> list[str]:
    """Return the classifiers that ship or were trained here, and the forms of the others."""
    return [*weights.names(OWNER), "timm:NAME", "torchvision:NAME", "CARD.toml"]


def demo_classifiers() -> list[str]:
    """Return the names of the classifiers whose card offers them for the demo task."""
    return [ref.label for ref in weights.local(OWNER) if ref.card and "demo" in ref.card.tasks]


def create_network(library: str, name: str, args: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """Build a network by its library's name.

    Raises:
        UsageError: If the library has no such architecture or refuses the arguments.
    """
    if library not in _LIBRARIES:
        raise UsageError(f"a classifier's library must be 'timm' or 'torchvision', got {library!r}")
    try:
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=pretrained, **args)
        from torchvision.models import get_model

        return get_model(name, weights="IMAGENET1K_V1" if pretrained else None, **args)
    except Exception as error:
        # The hub's errors are of many types, some of them ValueErrors as well: those of the network come first.
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in _DOWNLOADERS:
            raise SrbenchError(
                f"the weights of {library}:{name} could not be fetched ({type(error).__name__});"
                " download them yourself and describe them in a TOML card"
            ) from None
        if isinstance(error, RuntimeError | ValueError | TypeError | KeyError | AttributeError | AssertionError):
            raise UsageError(
                f"{library} cannot build {name!r}: {error}; look the name up in {library}'s model list"
            ) from None
        raise


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
        return np.arange(len(classes))
    index = {name: position for position, name in enumerate(info.classes)}
    missing = [name for name in classes if name not in index]
    if missing:
        kind = (
            "ImageNet wnids such as n01440764"
            if info.classes == imagenet_wnids()
            else f"names such as {info.classes[0]!r}"
        )
        raise DataError(
            f"{len(missing)} of the data's {len(classes)} classes are unknown to classifier {info.id}, such as"
            f" {missing[0]!r}; its classes are {kind}: rename the folders or use another classifier"
        )
    return np.array([index[name] for name in classes], dtype=np.int64)


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the wnids of ImageNet-1k in class order."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _from_trained(spec: str) -> Classifier:
    ref = weights.find(OWNER, spec)
    if ref.card is None or "library" not in ref.card.extra:
        raise WeightsError(f"{ref.path.name} holds no classifier card; describe the classifier in a TOML card instead")
    extra = ref.card.extra
    network = create_network(extra["library"], extra["name"], extra["args"])
    weights.fill_state(network, weights.load(ref).state, origin=ref.path.name, expected=extra["name"])
    info = ClassifierInfo(
        id=ref.label,
        library=extra["library"],
        name=extra["name"],
        args=dict(extra["args"]),
        weights_sha256=ref.sha256,
        mean=tuple(extra["mean"]),
        std=tuple(extra["std"]),
        input_size=extra.get("input_size"),
        in_chans=extra.get("in_chans", 3),
        classes=tuple(extra["classes"]) if extra.get("classes") else None,
        n_classes=_outputs(network, extra.get("in_chans", 3), extra.get("input_size"), origin=ref.path.name),
    )
    return Classifier(info, network)


def _from_library(spec: str, library: str, name: str) -> Classifier:
    network = create_network(library, name, {}, pretrained=True)
    if library == "timm":
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        mean, std = config["mean"], config["std"]
        side = config["input_size"][-1] if config.get("fixed_input_size") else None
        tagged = f"{config['architecture']}.{config['tag']}" if config.get("tag") else name
    else:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        side = getattr(network, "image_size", None)
        tagged = f"{name}.IMAGENET1K_V1"
    outputs = _outputs(network, 3, side, origin=f"--classifier {spec}")
    info = ClassifierInfo(
        id=spec,
        library=library,
        name=tagged,
        args={},
        weights_sha256=weights.state_sha256(network.state_dict()),
        mean=tuple(mean),
        std=tuple(std),
        input_size=side,
        in_chans=3,
        classes=imagenet_wnids() if outputs == 1000 else None,
        n_classes=outputs,
    )
    return Classifier(info, network)


def _from_card(path: Path) -> Classifier:
    card = _read_card(path)
    args, in_chans = card.get("args", {}), card.get("in_chans", 3)
    if in_chans != 3 and card["library"] == "timm":
        args = {"in_chans": in_chans} | args
    ref = _card_weights(card, path)
    network = create_network(card["library"], card["name"], args)
    weights.fill_state(
        network, weights.load(ref).state, origin=ref.path.name, expected=f"{card['library']}:{card['name']}"
    )
    side = card.get("input_size")
    info = ClassifierInfo(
        id=path.stem,
        library=card["library"],
        name=card["name"],
        args=args,
        weights_sha256=ref.sha256,
        mean=tuple(float(value) for value in card["mean"]),
        std=tuple(float(value) for value in card["std"]),
        input_size=side,
        in_chans=in_chans,
        classes=_card_classes(card, path),
        n_classes=_outputs(network, in_chans, side, origin=f"classifier card {path.name}"),
    )
    if info.classes is not None and len(info.classes) != info.n_classes:
        raise UsageError(
            f"card {path.name}: {len(info.classes)} class names for {info.n_classes} outputs; they must be as many"
        )
    return Classifier(info, network)


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"there is no classifier card {path}; give the path of a .toml file")
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"classifier card {path.name} is not valid TOML: {error}") from None
    missing = [key for key in ("library", "name", "weights", "mean", "std") if key not in card]
    unknown = sorted(set(card) - _CARD_KEYS)
    if missing or unknown:
        problem = f"lacks {missing[0]!r}" if missing else f"has an unknown key {unknown[0]!r}"
        raise UsageError(f"classifier card {path.name} {problem}; a card's keys are {sorted(_CARD_KEYS)}")
    for key in ("library", "name", "weights", "sha256"):
        if key in card and not isinstance(card[key], str):
            raise UsageError(f"classifier card {path.name}: {key} must be text, got {card[key]!r}")
    if not isinstance(card.get("args", {}), dict):
        raise UsageError(f"classifier card {path.name}: args must be a table of arguments, got {card['args']!r}")
    channels, side = card.get("in_chans", 3), card.get("input_size")
    if channels not in (1, 3):
        raise UsageError(f"classifier card {path.name}: in_chans must be 1 or 3, got {channels!r}")
    if side is not None and (not isinstance(side, int) or isinstance(side, bool) or side < 1):
        raise UsageError(f"classifier card {path.name}: input_size must be a side in pixels, got {side!r}")
    for key in ("mean", "std"):
        values = card[key]
        if (
            not isinstance(values, list)
            or len(values) != channels
            or not all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        ):
            raise UsageError(f"classifier card {path.name}: {key} must be a list of {channels} numbers, got {values!r}")
    if any(value <= 0 for value in card["std"]):
        raise UsageError(f"classifier card {path.name}: every std must be above 0, got {card['std']!r}")
    return card


def _card_weights(card: Mapping[str, Any], path: Path) -> weights.WeightsRef:
    location = str(card["weights"])
    if "://" in location:
        if "sha256" not in card:
            raise UsageError(f"classifier card {path.name}: weights from an address need their sha256")
        declared = weights.NamedWeights(uri=location, sha256=card["sha256"].lower(), licence="")
        return weights.find(OWNER, path.stem, {path.stem: declared})
    file = path.parent / location
    if not file.is_file():
        raise WeightsError(
            f"classifier card {path.name} names the weights {location!r}, but there is no such file beside it"
        )
    ref = weights.find(OWNER, str(file))
    if "sha256" in card and not ref.sha256.startswith(card["sha256"].lower()):
        raise WeightsError(
            f"{file.name} has sha256 {ref.sha256[:12]}..., card {path.name} expects {card['sha256'][:12]}..."
        )
    return ref


def _card_classes(card: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    named = card.get("classes")
    if named is None:
        return None
    if named == IMAGENET:
        return imagenet_wnids()
    file = path.parent / str(named)
    if not file.is_file():
        raise UsageError(
            f"classifier card {path.name}: classes must be {IMAGENET!r} or a file with one name a line, got {named!r}"
        )
    try:
        names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise UsageError(
            f"classifier card {path.name}: the class names {named!r} are not UTF-8 text: {error}"
        ) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"classifier card {path.name}: {named} names the class {twice[0]!r} more than once")
    return names


@torch.inference_mode()
def _outputs(network: nn.Module, in_chans: int, input_size: int | None, *, origin: str) -> int:
    """Run the network once on an image of its own size, or of some that most architectures take."""
    reason: Exception | None = None
    for side in (input_size,) if input_size is not None else (64, 224, 299):
        try:
            out = network.eval()(torch.zeros(1, in_chans, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = error
            continue
        if isinstance(out, Tensor) and out.ndim == 2:
            return int(out.shape[1])
        raise UsageError(f"{origin}: the network returns no logits of shape (N, classes); is it a classifier?")
    raise UsageError(
        f"{origin}: the network does not run on images of {in_chans} channels and {input_size or 'the usual'} pixels"
        f" ({str(reason).splitlines()[0]}); give its input_size and in_chans"
    )
