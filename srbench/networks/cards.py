"""A card describes a classifier of one's own: a TOML file beside its weights."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from srbench import weights
from srbench.errors import UsageError, WeightsError
from srbench.files.regular import read_regular
from srbench.files.strict import read_toml
from srbench.files.validate import PlainJson, Positive, validated
from srbench.networks.classifiers import NAMESPACE, imagenet_wnids

IMAGENET = "imagenet-1k"


@dataclass(frozen=True)
class ClassifierCard:
    """What a card says; docs/data.md explains every key.

    Attributes:
        library: "timm", "torchvision", or "smp" for segmentation-models-pytorch.
        name: The library's own name of the architecture.
        weights: File relative to the card, or an address.
        mean: Mean that is subtracted, one number a channel.
        std: Standard deviation that is divided by, one number a channel.
        args: Further arguments of the library's constructor.
        sha256: Digest of the weights or its first digits, at least eight; None leaves it unchecked.
        classes: "imagenet-1k", or a file with one name a line; None where they are unknown.
        input_size: Side the architecture insists on, pixels; None if it takes any.
        in_chans: Channels it takes: 3 or 1.
    """

    library: Literal["timm", "torchvision", "smp"]
    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    args: Annotated[dict[str, Any], PlainJson()] = field(default_factory=dict)
    sha256: str | None = None
    classes: str | None = None
    input_size: Positive | None = None
    in_chans: Literal[1, 3] = 3


def read_card(path: Path) -> ClassifierCard:
    """Read a card.

    Raises:
        UsageError: If there is no such file, it is no TOML, or a field is missing, unknown or not as it must be.
    """
    if not path.is_file():
        raise UsageError(f"there is no classifier card {path}; give the path of a .toml file")
    origin = f"classifier card {path.name}"
    raw = read_toml(path, what=origin, error=UsageError)
    card = validated(ClassifierCard, raw, origin=origin, error=UsageError, syntax="toml")
    for name, values in (("mean", card.mean), ("std", card.std)):
        if len(values) != card.in_chans:
            raise UsageError(f"{origin}: {name} must be a list of {card.in_chans} numbers, got {list(values)}")
    if any(value <= 0 for value in card.std):
        raise UsageError(f"{origin}: every std must be above 0, got {list(card.std)}")
    if card.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", card.sha256):
        raise UsageError(f"{origin}: sha256 must be at least 8 hexadecimal digits, got {card.sha256!r}")
    return card


def card_weights(card: ClassifierCard, path: Path) -> weights.WeightsRef:
    """Find the weights that the card at `path` names.

    Raises:
        UsageError: If an address is not https or lacks its sha256.
        WeightsError: If there is no such file, or it has another sha256.
    """
    location = card.weights
    if "://" in location:
        if card.sha256 is None or not location.startswith("https://"):
            raise UsageError(f"classifier card {path.name}: weights from an address need https:// and their sha256")
        declared = weights.NamedWeights(uri=location, sha256=card.sha256.lower(), licence="")
        return weights.find(NAMESPACE, path.stem, {path.stem: declared})
    file = path.parent / location
    if not file.is_file():
        raise WeightsError(
            f"classifier card {path.name} names the weights {location!r}, but there is no such file beside it"
        )
    ref = weights.find(NAMESPACE, str(file))
    if card.sha256 is not None and not ref.sha256.startswith(card.sha256.lower()):
        raise WeightsError(
            f"{file.name} has sha256 {ref.sha256[:12]}..., card {path.name} expects {card.sha256[:12]}..."
        )
    return ref


def card_classes(card: ClassifierCard, path: Path) -> tuple[str, ...] | None:
    """Return the class names that the card at `path` names, in the order of the outputs; None where it names none.

    Raises:
        UsageError: If the file is missing, no text, or names a class twice.
    """
    named = card.classes
    if named is None:
        return None
    if named == IMAGENET:
        return imagenet_wnids()
    file = path.parent / named
    if not file.is_file():
        raise UsageError(
            f"classifier card {path.name}: classes must be {IMAGENET!r} or a file with one name a line, got {named!r}"
        )
    try:
        lines = unicodedata.normalize("NFC", read_regular(file).decode("utf-8-sig")).splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
    except UnicodeDecodeError as error:
        raise UsageError(
            f"classifier card {path.name}: the class names {named!r} are not UTF-8 text: {error}"
        ) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"classifier card {path.name}: {named} names the class {twice[0]!r} more than once")
    return names
