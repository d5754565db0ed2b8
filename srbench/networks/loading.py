"""Classifiers by SPEC: those that ship or were trained here, names of timm and torchvision, and cards."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srbench import weights
from srbench.errors import SrbenchError, UnknownNameError, UsageError, WeightsError
from srbench.files.paths import user_path
from srbench.networks.cards import IMAGENET, card_classes, card_weights, read_card
from srbench.networks.classifiers import NAMESPACE, Classifier, ClassifierInfo, imagenet_wnids
from srbench.networks.dense import create_dense
from srbench.networks.detectors import Detector, create_detector, is_detector
from srbench.networks.outputs import Answers, form_of, outputs_of
from srbench.networks.pretrained import fixed_side, own_weights

_LIBRARIES = ("timm", "torchvision", "smp")
_DOWNLOADERS = {"huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3"}


def load_classifier(spec: str) -> Classifier:
    """Build a classifier from a SPEC: a trained name, `timm:NAME`, `torchvision:NAME`, a TOML card or a weights file.

    Raises:
        UnknownNameError: If no classifier of that name exists.
        UsageError: If a card is missing, incomplete, or names an architecture that its library does not have.
        WeightsError: If the weights do not fit the architecture.
    """
    if spec.endswith(".toml"):
        return _from_card(user_path(spec))
    library, _, name = spec.partition(":")
    if name and library == "smp":
        raise UsageError(
            f"--classifier {spec}: networks of segmentation-models-pytorch come without weights for any classes; train"
            ' one with `srbench train network`, or describe its weights in a TOML card (library = "smp")'
        )
    if name and library in _LIBRARIES:
        return _from_library(spec, library, name)
    if name:
        raise UsageError(f"--classifier {spec}: the library must be timm or torchvision, got {library!r}")
    if not spec.endswith(weights.SUFFIX) and spec not in weights.names(NAMESPACE):
        raise UnknownNameError("classifier", spec, classifier_names())
    return _from_trained(spec)


def classifier_names() -> list[str]:
    """Return the classifiers that ship or were trained here, and the forms of the others."""
    return [*weights.names(NAMESPACE), "timm:NAME", "torchvision:NAME", "CARD.toml"]


def demo_classifiers(dataset: str = "demo") -> list[str]:
    """Return the names of the networks whose card offers them for a dataset that ships."""
    return [ref.label for ref in weights.local(NAMESPACE) if ref.card and dataset in ref.card.tasks]


def create_network(library: str, name: str, args: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    """Build a network by its library's name.

    Raises:
        UsageError: If the library has no such architecture or refuses the arguments.
    """
    if library not in _LIBRARIES:
        raise UsageError(f"a network's library must be 'timm', 'torchvision' or 'smp', got {library!r}")
    try:
        if library == "timm":
            import timm

            return timm.create_model(name, pretrained=pretrained, **args)
        if library == "smp":
            return create_dense(name, args)
        return _of_torchvision(name, args, pretrained=pretrained)
    except UsageError:
        raise
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


def _of_torchvision(name: str, args: Mapping[str, Any], *, pretrained: bool) -> nn.Module:
    from torchvision.models import get_model, get_model_builder

    if is_detector(name):
        return create_detector(name, args, pretrained=pretrained)
    if not pretrained:
        dense = "weights_backbone" in inspect.signature(get_model_builder(name)).parameters
        return get_model(name, weights=None, **({"weights_backbone": None} if dense else {}) | dict(args))
    own = own_weights(name)
    # the backbone of a segmentation network would be fetched by itself
    backbone = {"weights_backbone": None} if own.dense else {}
    return get_model(own.architecture, weights=own.name, **backbone, **args)


def _from_trained(spec: str) -> Classifier:
    ref = weights.find(NAMESPACE, spec)
    if ref.card is None or "library" not in ref.card.extra:
        raise WeightsError(f"{ref.path.name} holds no classifier card; describe the classifier in a TOML card instead")
    extra = ref.card.extra
    network = create_network(extra["library"], extra["name"], extra["args"])
    weights.fill_state(network, weights.load(ref).state, origin=ref.path.name, expected=extra["name"])
    outputs = _outputs(network, extra.get("in_chans", 3), extra.get("input_size"), origin=ref.path.name)
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
        n_classes=outputs.n_classes,
        answers=outputs.answers,
    )
    return Classifier(info, network, ref.card)


def _from_library(spec: str, library: str, name: str) -> Classifier:
    network = create_network(library, name, {}, pretrained=True)
    if library == "timm":
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        mean, std = config["mean"], config["std"]
        side = config["input_size"][-1] if config.get("fixed_input_size") else None
        tagged = f"{config['architecture']}.{config['tag']}" if config.get("tag") else name
    else:
        own = own_weights(name)
        mean, std, tagged = own.mean, own.std, f"{own.architecture}.{own.name}"
        side = getattr(network, "image_size", None) if own.dense else fixed_side(network, own.crop)
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
        classes=_library_classes(library, name, outputs),
        n_classes=outputs.n_classes,
        answers=outputs.answers,
    )
    return Classifier(info, network)


def _from_card(path: Path) -> Classifier:
    card = read_card(path)
    args = dict(card.args)
    if card.in_chans != 3 and card.library != "torchvision":
        args = {"in_chans": card.in_chans} | args
    ref = card_weights(card, path)
    network = create_network(card.library, card.name, args)
    if card.library == "torchvision" and hasattr(network, "transform_input") and "transform_input" not in args:
        # torchvision sets it whenever it loads weights of its own, and the weights do not hold it
        if card.classes != IMAGENET:
            raise UsageError(
                f"classifier card {path.name}: torchvision's {card.name} may rescale its input, which weights do not"
                " say; give args = { transform_input = true } if they began as torchvision's own, else false"
            )
        setattr(network, "transform_input", True)  # noqa: B010 the attribute is none of Module's
        args = args | {"transform_input": True}
    weights.fill_state(network, weights.load(ref).state, origin=ref.path.name, expected=f"{card.library}:{card.name}")
    outputs = _outputs(network, card.in_chans, card.input_size, origin=f"classifier card {path.name}")
    info = ClassifierInfo(
        id=path.stem,
        library=card.library,
        name=card.name,
        args=args,
        weights_sha256=ref.sha256,
        mean=card.mean,
        std=card.std,
        input_size=card.input_size,
        in_chans=card.in_chans,
        classes=card_classes(card, path),
        n_classes=outputs.n_classes,
        answers=outputs.answers,
    )
    if info.classes is not None and len(info.classes) != info.n_classes:
        raise UsageError(
            f"card {path.name}: {len(info.classes)} class names for {info.n_classes} outputs; they must be as many"
        )
    return Classifier(info, network)


def _library_classes(library: str, name: str, outputs: Outputs) -> tuple[str, ...] | None:
    """Return the class names of a library's own weights, as far as they are known."""
    if outputs.answers == "scores":
        return imagenet_wnids() if outputs.n_classes == 1000 else None
    from torchvision.models import get_model_weights

    names = (
        get_model_weights(name.partition(".")[0]).DEFAULT.meta.get("categories") if library == "torchvision" else None
    )
    if names is not None and outputs.answers == "boxes":
        names = names[len(names) - outputs.n_classes :]  # a detector that has a background does not count it
    return None if names is None or len(names) != outputs.n_classes else tuple(str(each) for each in names)


@dataclass(frozen=True)
class Outputs:
    """What a network returns: how many outputs, and in which form."""

    n_classes: int
    answers: Answers


@torch.inference_mode()
def _outputs(network: nn.Module, in_chans: int, input_size: int | None, *, origin: str) -> Outputs:
    """Run the network once on an image of its own size, or of some that most architectures take."""
    reason: Exception | None = None
    for side in (input_size,) if input_size is not None else (64, 224, 299):
        try:
            out = network.eval()(torch.zeros(1, in_chans, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = error
            continue
        answers = form_of(out)
        if answers is None:
            raise UsageError(
                f"{origin}: the network returns neither logits of shape (N, classes), nor a map of them"
                " (N, classes, h, w), nor boxes; is it a classifier, a segmentation network or a detector?"
            )
        return Outputs(network.n_classes if isinstance(network, Detector) else outputs_of(out), answers)
    raise UsageError(
        f"{origin}: the network does not run on images of {in_chans} channels and {input_size or 'the usual'} pixels"
        f" ({str(reason).splitlines()[0]}); give its input_size and in_chans"
    )
