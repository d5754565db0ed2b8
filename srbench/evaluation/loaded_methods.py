"""Chooses the weights of each method and loads the methods of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from srbench import weights
from srbench.compute.timing import count_parameters
from srbench.data.catalogue import is_demo
from srbench.errors import UsageError
from srbench.imaging.lossless import RestoredFolder
from srbench.leaderboard import BASELINE
from srbench.method import Method, TaskInfo
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.records.schema import NO_WEIGHTS, named
from srbench.registry import Registry


@dataclass(frozen=True)
class LoadedMethod:
    """A method as it takes part: one row of the table for each classifier.

    Attributes:
        name: Registry name.
        method: The network, in eval mode, or None where only a reason stands in its place.
        weights: The weights it was filled with, or None.
        track: "adapted" if the weights hold a classifier too.
        skip: Why the whole method is skipped, or None.
        cls: Its class, for what it says about itself.
        images: SR that was made elsewhere, in place of a method that makes it.
        runtime: What runs it, together with the classifier, as one exported file; None is torch. See
            `srbench.evaluation.runtimes`.
    """

    name: str
    cls: type[Method]
    method: Method | None
    weights: weights.WeightsFile | None
    track: Literal["frozen", "adapted"] = "frozen"
    skip: str | None = None
    images: RestoredFolder | None = None
    runtime: str | None = None

    @property
    def label(self) -> str | None:
        """Label of the weights, or None."""
        return self.weights.ref.label if self.weights else None

    @property
    def title(self) -> str:
        """Name with runtime and weights, such as "bilinear[onnx]" or "esrgan@psnr"."""
        name = named(self.name, self.runtime)
        return f"{name}@{self.label}" if self.label else name

    def skip_reason(self, task: TaskInfo) -> str | None:
        """Return why the method does not apply to a task and classifier, or None if it does."""
        if self.skip is not None or self.method is None:
            return self.skip
        if self.track == "adapted":
            base = _teacher(self.weights)
            if task.classifier is None:
                return "these weights hold a classifier of their own, so they need a classifier to stand in for"
            if base and base.get("sha256") != task.classifier_sha256:
                return f"weights {self.label!r} were adapted together with classifier {base.get('id')}"
        channels = self.method.info.channels
        if channels not in (3, task.channels):  # a method of three sees grey repeated, and its result is averaged
            return f"it takes {channels}-channel images, the data has {task.channels}"
        return self.method.skip(task)

    def adapted_network(self, base: Classifier) -> nn.Module:
        """Return a copy of `base` holding the classifier that was trained along with the method."""
        assert self.weights is not None and self.weights.classifier_state is not None
        assert self.method is not None
        adapted = copy.deepcopy(base)
        self.method.adapt(adapted)
        weights.fill_changed(
            adapted.network, self.weights.classifier_state, origin=self.weights.ref.path.name, expected=base.id
        )
        return adapted.eval()


def needs_weights(name: str, cls: type[Method]) -> bool:
    """Say whether a method is empty without weights: it can be trained, or declares weights by name."""
    return bool(cls.recipes or cls.weights or weights.names(name))


def choose(
    names: Sequence[str] | None,
    registry: Registry,
    *,
    given: Mapping[str, Sequence[str]],
    classifiers: Sequence[Classifier],
    protocol: Protocol,
    dataset: str,
) -> list[LoadedMethod]:
    """Return the methods that take part, in a fixed order: baseline, controls, then methods by name.

    Args:
        names: Methods that were asked for, or None for all of them.
        registry: Where methods come from.
        given: Weights by method, each a name or a file.
        classifiers: The run's classifiers; weights fit if one of them was a teacher.
        protocol: The protocol; weights trained for another scale do not fit.
        dataset: Name of the dataset; weights that are offered on others only do not fit.

    Raises:
        UnknownNameError: If a method does not exist.
        UsageError: If a method asked for by name has no weights that fit, or weights are given for one that is not run.
    """
    available = registry.working()
    wanted = list(available) if names is None else list(dict.fromkeys(names))
    _check_names(wanted, given, registry)
    always = [name for name, cls in available.items() if cls.info.role == "control" or name == BASELINE]
    order = [BASELINE, *(name for name in always if name != BASELINE)]
    order += [name for name in sorted(wanted) if name not in order]
    asked = set() if names is None else set(names)
    return [
        loaded
        for name in order
        for loaded in _load_all(
            name,
            registry.get(name),
            given=given.get(name, ()),
            asked=name in asked,
            classifiers=classifiers,
            protocol=protocol,
            dataset=dataset,
        )
    ]


def _load_all(
    name: str,
    cls: type[Method],
    *,
    given: Sequence[str],
    asked: bool,
    classifiers: Sequence[Classifier],
    protocol: Protocol,
    dataset: str,
) -> list[LoadedMethod]:
    if not needs_weights(name, cls):
        _refuse_weights(name, given)
        return [load_method(name, cls, None, protocol)]
    if given:
        refs = _distinct(name, [weights.find(name, spec, cls.weights) for spec in given])
    else:
        local = weights.local(name, cls.weights)
        refs = [ref for ref in local if _misfit(ref, classifiers, protocol, dataset) is None]
        if not refs:
            reason = _no_weights(name, cls, local, classifiers, protocol, dataset)
            if asked:
                raise UsageError(f"method {name!r} cannot run: {reason}")
            return [LoadedMethod(name, cls, None, None, track=_usual_track(cls), skip=reason)]
    return [load_method(name, cls, ref, protocol) for ref in refs]


def _distinct(name: str, refs: Sequence[weights.WeightsRef]) -> list[weights.WeightsRef]:
    """Return the weights without repetitions; two of one label would share one row and one folder."""
    by_label: dict[str, weights.WeightsRef] = {}
    for ref in refs:
        if by_label.setdefault(ref.label, ref).sha256 != ref.sha256:
            raise UsageError(
                f"--weights {name}: {by_label[ref.label].path} and {ref.path} would both be called {ref.label!r} in the"
                " table; rename one of the files"
            )
    return list(by_label.values())


def choose_for_timing(
    names: Sequence[str] | None, registry: Registry, *, given: Mapping[str, Sequence[str]], protocol: Protocol
) -> list[LoadedMethod]:
    """Return the methods of a benchmark, in the order in which they are named.

    How long a network takes does not depend on the values of its weights, so no task is asked for: the weights that are
    given take part, else all that are here, else the network as its constructor builds it. The word "untrained" asks
    for that network by name; constructor arguments may follow it, as in `untrained?blocks=8&features=64`.

    Args:
        names: Methods, or None for all that can be imported.
        registry: Where methods come from.
        given: Weights by method, each a name, a file, or "untrained".
        protocol: The protocol that methods are prepared for.

    Raises:
        UnknownNameError: If a method or its weights do not exist.
        UsageError: If weights are given for a method that is not timed or takes none.
    """
    wanted = list(registry.working()) if names is None else list(dict.fromkeys(names))
    _check_names(wanted, given, registry)
    chosen = []
    for name in wanted:
        cls, specs = registry.get(name), given.get(name, ())
        if not needs_weights(name, cls):
            _refuse_weights(name, specs)
            chosen.append(load_method(name, cls, None, protocol))
            continue
        specs = specs or [ref.label for ref in weights.local(name, cls.weights)] or [weights.UNTRAINED]
        untrained = [spec for spec in specs if spec.partition("?")[0] == weights.UNTRAINED]
        refs = _distinct(name, [weights.find(name, spec, cls.weights) for spec in specs if spec not in untrained])
        chosen += [load_method(name, cls, ref, protocol) for ref in refs]
        for spec in dict.fromkeys(untrained):
            loaded = weights.untrained(spec.partition("?")[2])
            chosen.append(LoadedMethod(name, cls, _ready(weights.build(cls, loaded), protocol), loaded))
    return chosen


def _check_names(wanted: Sequence[str], given: Mapping[str, Sequence[str]], registry: Registry) -> None:
    for name in [*wanted, *given]:
        registry.get(name)
    for name in given:
        if name not in wanted:
            raise UsageError(f"--weights {name}=... is given, but {name!r} is not run; add it to the methods")


def _refuse_weights(name: str, given: Sequence[str]) -> None:
    if given:
        raise UsageError(f"method {name!r} takes no weights, so --weights {name}={given[0]} cannot apply")


def load_method(name: str, cls: type[Method], ref: weights.WeightsRef | None, protocol: Protocol) -> LoadedMethod:
    """Return a method in eval mode, prepared for a protocol and filled with weights where it has some.

    Raises:
        WeightsError: If the weights cannot be read or do not fit the method.
    """
    if ref is None:
        return LoadedMethod(name, cls, _ready(cls(), protocol), None)
    loaded = weights.load(ref)
    method = _ready(cls.from_weights(loaded), protocol)
    track: Literal["frozen", "adapted"] = "adapted" if loaded.classifier_state is not None else "frozen"
    return LoadedMethod(name, cls, method, loaded, track=track)


def _ready(method: Method, protocol: Protocol) -> Method:
    method.eval()
    for parameter in method.parameters():
        parameter.requires_grad_(False)
    method.prepare(protocol)
    return method


def _misfit(ref: weights.WeightsRef, classifiers: Sequence[Classifier], protocol: Protocol, dataset: str) -> str | None:
    card = ref.card
    if is_demo(dataset) and (card is None or dataset not in card.tasks):
        return f"are not {dataset} weights"
    if card is None:
        return None
    if card.tasks and dataset not in card.tasks:
        return f"are for {', '.join(card.tasks)}"
    scale = protocol.effective_scale
    if card.scale is not None and scale is not None and abs(card.scale - scale) > 1e-3:
        return f"were trained for scale {card.scale:g}"
    if card.teachers and not any(card.taught_by(classifier.info.weights_sha256) for classifier in classifiers):
        if len(card.teachers) == 1:
            return f"were trained against classifier {card.teachers[0]['id']}, which is not in this run"
        names = " and ".join(teacher["id"] for teacher in card.teachers)
        return f"were trained against classifiers {names}, none of which is in this run"
    return None


def _no_weights(
    name: str,
    cls: type[Method],
    local: Sequence[weights.WeightsRef],
    classifiers: Sequence[Classifier],
    protocol: Protocol,
    dataset: str,
) -> str:
    parts = [f"{ref.label} {_misfit(ref, classifiers, protocol, dataset)}" for ref in local]
    known = f"; {'; '.join(parts)}" if parts else ""
    declared = f" or fetch one of {', '.join(cls.weights)} by --weights {name}=NAME" if cls.weights else ""
    train = f"srbench train {name}" if cls.recipes else "a file"
    return f"{NO_WEIGHTS}{known}; give --weights {name}=FILE, make them with {train}{declared}"


def _usual_track(cls: type[Method]) -> Literal["frozen", "adapted"]:
    tracks = {getattr(recipe, "track", "frozen") for recipe in cls.recipes.values()}
    return "adapted" if tracks == {"adapted"} else "frozen"


def _teacher(loaded: weights.WeightsFile | None) -> dict[str, str] | None:
    return loaded.ref.card.teacher if loaded and loaded.ref.card else None


def parameters_of(loaded: LoadedMethod) -> int | None:
    """Return how many parameters the method has, or None where it is not there."""
    return count_parameters(loaded.method) if loaded.method is not None else None
