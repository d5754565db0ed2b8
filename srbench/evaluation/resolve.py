"""Turns the options of a call into opened data, protocols, classifiers, methods and a device."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srbench.compute.numerics import Numerics
from srbench.data.catalogue import default_protocol, open_source
from srbench.data.metadata import Metadata, check_ids, read_metadata
from srbench.data.source import Source
from srbench.errors import UnknownNameError, UsageError
from srbench.evaluation import runtimes
from srbench.evaluation.distributed import Ranks
from srbench.evaluation.loaded_methods import LoadedMethod, choose
from srbench.evaluation.options import SWEEP, EvalOptions, PassSettings
from srbench.evaluation.overlap import held_out, trained_ids
from srbench.evaluation.precomputed import open_precomputed
from srbench.files.atomic import check_out_dir
from srbench.files.paths import user_path
from srbench.networks.classifiers import Classifier
from srbench.networks.loading import demo_classifiers, load_classifier
from srbench.protocol import Protocol, load_protocol, shift_names
from srbench.records.sample_columns import OWN_COLUMNS
from srbench.registry import Registry, listed
from srbench.task_types import task_type


@dataclass(frozen=True)
class Evaluation:
    """A call of `evaluate`, resolved: everything that can be wrong with it has been looked at.

    Attributes:
        options: The options that were given.
        source: The data.
        protocols: One a task.
        classifiers: The classifiers, on the device.
        shifted: Fingerprints of those of the protocols that `--shift` adds; their cells are not timed.
        metadata: What `--meta` says of the samples, or None.
        methods: The methods of each protocol, by its fingerprint, on the device.
        out: Folder of the results.
        settings: How the pass computes.
        ranks: This process among the others.
        warnings: Sentences that stand below the leaderboard.
        runtime_inputs: What the values of a runtime's files depend on beyond method and network, by its name.
    """

    options: EvalOptions
    source: Source
    protocols: Sequence[Protocol]
    shifted: frozenset[str]
    metadata: Metadata | None
    classifiers: Sequence[Classifier]
    methods: Mapping[str, Sequence[LoadedMethod]]
    out: Path
    settings: PassSettings
    ranks: Ranks
    warnings: tuple[str, ...]
    runtime_inputs: Mapping[str, Mapping[str, object]]

    def measures(self, protocol: Protocol) -> bool:
        """Say whether the cells of a protocol are timed: a further degradation costs no method anything."""
        return self.options.measure and protocol.fingerprint not in self.shifted


def resolve(options: EvalOptions, device: torch.device, ranks: Ranks) -> Evaluation:
    """Load what the options name; seed the generators that methods may draw from.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
    """
    numerics = Numerics.of(device, options.precision)
    registry = Registry(options.plugins)
    names = None if options.methods == "all" else listed(options.methods)
    for name in names or ():
        registry.get(name)
    weights = {name: listed(specs) for name, specs in (options.weights or {}).items()}
    base = load_protocol(options.protocol) if isinstance(options.protocol, str) else options.protocol
    _seed(options.seed)
    source = open_source(options.data, options.split)
    if base is None:
        base = load_protocol(default_protocol([options.data]))
    if source.factor is not None:
        base = base.of_pairs(source.factor)
    if source.small:
        base = base.of_small()
    scales = listed(options.scales)
    protocols = [base.at_scale(scale) for scale in dict.fromkeys(scales)] if scales else [base]
    shifts = {protocol.fingerprint: _shifts(protocol, options.shifts) for protocol in protocols}
    out = user_path(options.out) if options.out is not None else Path("out") / source.name
    check_out_dir(out)
    classifiers = _classifiers(listed(options.classifiers), source)
    for classifier in classifiers:
        # channels_last: the same sums in another order (1e-5 in the logits), 1.1 to 1.6 x as fast on a CPU
        classifier.to(device).to(memory_format=torch.channels_last)
        task_type(source.task_type).map_outputs(classifier.info, source)
    said = [line for classifier in classifiers for line in _matched_by_position(classifier, source)]
    trained = {each.id: trained_ids(each.card, source, options.data) for each in classifiers}
    if options.split is None and (tested := held_out(source, options.data, trained.values())) is not None:
        learned = ", ".join(name for name, ids in trained.items() if ids)
        said.append(
            f"{learned} was trained on a part of {source.spec}, so its test split is scored;"
            f" --split all scores all {len(source.samples)} images"
        )
        source = tested
    metadata, unmatched = _metadata(options, source)
    if source.small and source.labelled and not listed(options.input_sizes):
        options = dataclasses.replace(options, input_sizes=SWEEP)  # no size is given by the data
    _check_input_sizes(options, classifiers, source)
    elsewhere = options.precomputed or {}
    if elsewhere and len(protocols) > 1:
        raise UsageError("--precomputed holds images of one scale; give one --scale, and another call for each further")
    runtimes.check(options, device, numerics, has_network=bool(classifiers))
    restored = open_precomputed(elsewhere, source, registry, limit=options.limit)
    methods = {
        protocol.fingerprint: [
            *runtimes.with_files(
                choose(
                    names,
                    registry,
                    given=weights,
                    classifiers=classifiers,
                    protocol=protocol,
                    dataset=source.name,
                ),
                listed(options.runtimes),
                asked=names,
            ),
            *restored,
        ]
        for protocol in protocols
    }
    for group in methods.values():
        for loaded in group:
            if loaded.method is not None:
                loaded.method.to(device).to(memory_format=torch.channels_last)
    for fingerprint, shifted in shifts.items():  # the methods are the same; images from elsewhere had another LR
        for protocol in shifted:
            methods[protocol.fingerprint] = [
                each for each in methods[fingerprint] if each.images is None and each.runtime is None
            ]
    added = [protocol for group in shifts.values() for protocol in group]
    return Evaluation(
        options=options,
        source=source,
        protocols=[*protocols, *added],
        shifted=frozenset(protocol.fingerprint for protocol in added),
        metadata=metadata,
        classifiers=classifiers,
        methods=methods,
        out=out,
        settings=PassSettings(
            device=device,
            numerics=numerics,
            batch_size=options.batch_size,
            seed=options.seed,
            channels=source.channels,
            answers=task_type(source.task_type).answers,
        ),
        ranks=ranks,
        warnings=(*said, *unmatched, *(f"left out: {problem}" for problem in registry.problems.values())),
        runtime_inputs=runtimes.inputs(options),
    )


def _matched_by_position(classifier: Classifier, source: Source) -> list[str]:
    """Say that labels were matched by their position, where a classifier does not name its outputs."""
    if classifier.info.classes is not None or source.classes is None:
        return []
    first, last = source.classes[0], source.classes[-1]
    return [
        f"classifier {classifier.id} does not name its outputs: the data's {len(source.classes)} classes were matched"
        f" by position, {first} with output 0 to {last} with output {len(source.classes) - 1}; a card can name them"
    ]


def _metadata(options: EvalOptions, source: Source) -> tuple[Metadata | None, list[str]]:
    """Return what `--meta` says, with sentences on what fits no sample; refuse names of columns that do not exist."""
    metadata = None if options.meta is None else read_metadata(user_path(options.meta), reserved=OWN_COLUMNS)
    known = [*OWN_COLUMNS, *(metadata.columns if metadata is not None else ())]
    for name in listed(options.slices):
        if name not in known:
            raise UnknownNameError("column to slice by", name, known)
    if metadata is None:
        return None, []
    return metadata, check_ids(metadata, [sample.id for sample in source.samples], spec=source.spec)


def _shifts(protocol: Protocol, specs: str | Sequence[str]) -> list[Protocol]:
    """Return a protocol under each degradation that is named.

    Raises:
        UsageError: If one changes nothing, or two have one name.
    """
    named = [each for spec in listed(specs) for each in (shift_names() if spec == "all" else [spec])]
    shifted: dict[str, Protocol] = {}
    for spec in dict.fromkeys(named):
        added = protocol.shifted(load_protocol(spec))
        if added.fingerprint == protocol.fingerprint:
            raise UsageError(
                f"--shift {spec} adds no blur, noise or codec to protocol {protocol.name!r};"
                f" choose among {', '.join(shift_names())}, or a TOML file with a degradation of your own"
            )
        if added.name in shifted:
            raise UsageError(f"two degradations of --shift have the name {added.name!r}; rename one of the files")
        shifted[added.name] = added
    return list(shifted.values())


def _check_input_sizes(options: EvalOptions, classifiers: Sequence[Classifier], source: Source) -> None:
    """Refuse further input sizes where nothing looks at them, or nothing says which of them is best.

    Raises:
        UsageError: If there is no classifier, or the task type does not choose among input sizes.
    """
    if not listed(options.input_sizes):
        return
    if not classifiers:
        raise UsageError(
            "--input-size is the size of what a classifier receives, and this call has none; give --classifier SPEC,"
            " or leave --input-size out"
        )
    if not task_type(source.task_type).chooses_input_size:
        raise UsageError(
            f"--input-size is for networks that say which class an image shows; {source.spec!r} asks"
            f" {task_type(source.task_type).question!r}: leave --input-size out"
        )


def _seed(seed: int) -> None:
    """Seed the global generators: methods of third parties may draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def _classifiers(specs: Sequence[str], source: Source) -> list[Classifier]:
    if not specs:
        if offered := demo_classifiers(source.name):
            specs = offered
        elif source.small:
            raise UsageError(
                f"{source.spec!r} holds images that are small by nature, so there is nothing to compare pixels with:"
                " only a classifier can tell methods apart; give --classifier SPEC (a name of `srbench list"
                " classifiers`, or a TOML card)"
            )
        elif source.labelled and not source.paired:  # pairs have their image metrics in any case
            raise UsageError(
                f"the data {source.spec!r} is labelled, so a classifier is needed to score it;"
                " give --classifier SPEC (a name of `srbench list classifiers`, or a TOML card),"
                " or read the images without labels as images:PATH"
            )
    loaded = [load_classifier(spec) for spec in dict.fromkeys(specs)]
    ids = [classifier.id for classifier in loaded]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    if twice:
        raise UsageError(f"two classifiers have the id {twice[0]!r}; rename one of the cards")
    return loaded
