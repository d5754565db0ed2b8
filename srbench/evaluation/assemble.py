"""Builds the record of a cell from its samples, method, classifier and dataset."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.compute.numerics import Numerics
from srbench.data.hr_cache import HRStore
from srbench.data.source import Source
from srbench.evaluation.costs import Costs
from srbench.evaluation.loaded_methods import LoadedMethod, parameters_of
from srbench.evaluation.plan import ORACLE_VERSION, PlannedCell
from srbench.evaluation.sizes import sr_side
from srbench.metrics.catalogue import metric
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.records.schema import (
    MAX_UNREADABLE_NAMED,
    ORACLE,
    SCHEMA_VERSION,
    ClassifierPart,
    CodeState,
    DatasetPart,
    Environment,
    MethodPart,
    ProtocolPart,
    Record,
    RuntimePart,
    Status,
    TimingPart,
    WeightsPart,
)


@dataclass(frozen=True)
class Surroundings:
    """What the records of a task share.

    Attributes:
        source: The data.
        hr_store: The HR images.
        protocol: The protocol.
        partial: Whether `--limit` cut the samples.
        code: The code's version and commit.
        environment: Machine and libraries.
        numerics: Arithmetic of the run.
        decode_s: Seconds of decoding all images, whenever that was.
    """

    source: Source
    hr_store: HRStore
    protocol: Protocol
    partial: bool
    code: CodeState
    environment: Environment
    numerics: Numerics
    decode_s: float


@dataclass(frozen=True)
class Scored:
    """What was computed for a cell.

    Attributes:
        samples: Its values, one row a sample.
        sums: What was added up over the samples.
        costs: What restoring costs, where it was measured.
        timing: What the cell took.
        network_macs: Multiply-accumulates an image of the network that decides, where they were counted.
        runtime: The exported file that computed it, or None.
    """

    samples: pd.DataFrame
    sums: Mapping[str, NDArray[Any]]
    costs: Costs | None
    timing: TimingPart
    network_macs: int | None = None
    runtime: RuntimePart | None = None


def make_record(
    cell: PlannedCell,
    surroundings: Surroundings,
    status: Status,
    *,
    reason: str | None = None,
    traceback: str | None = None,
    scored: Scored | None = None,
) -> Record:
    """Return the record of a cell.

    Args:
        cell: The cell.
        surroundings: What it shares with the others of its task.
        status: "ok", "skipped" or "error".
        reason: Why it is not ok.
        traceback: Where in the code it failed.
        scored: What was computed, where it is ok.
    """
    source, protocol, network = surroundings.source, surroundings.protocol, cell.scored
    per_class, histograms = None, None
    if scored is not None:
        histograms = network.task_type.histograms(scored.sums)
        if network.outputs is not None:
            per_class = network.task_type.per_class(scored.samples, network.outputs, source.classes)
    record = Record(
        schema_version=SCHEMA_VERSION,
        cell=cell.key,
        status=status,
        reason=reason,
        partial=surroundings.partial,
        input_hash=cell.input_hash,
        protocol=protocol_part(protocol),
        code=surroundings.code,
        environment=surroundings.environment,
        numerics=surroundings.numerics,
        method=method_part(cell.loaded, scored.costs if scored is not None else None, trained_on=cell.trained_on[1]),
        classifier=classifier_part(
            network.classifier,
            cell.key.track,
            macs=scored.network_macs if scored is not None else None,
            trained_on=cell.trained_on[0],
        ),
        dataset=dataset_part(source, surroundings.hr_store, protocol, cell, decode_s=surroundings.decode_s),
        metrics={},
        per_class=per_class,
        score_histograms=histograms,
        timing=scored.timing if scored is not None else TimingPart(),
        training=training_part(cell.loaded),
        created=now(),
        traceback=traceback,
        runtime=scored.runtime if scored is not None else None,
    )
    return record if scored is None else with_metrics(record, scored.samples, cell, protocol)


def with_metrics(record: Record, samples: pd.DataFrame, cell: PlannedCell, protocol: Protocol) -> Record:
    """Return an ok record with its metrics, as the leaderboard computes them from the samples."""
    task_type = cell.scored.task_type
    missing = why_no_quality(cell, protocol) or "no image is large enough for it"
    values = task_type.values(task_type.samples_of(record, samples), why_no_image=missing)
    if cell.scored.outputs is None:
        values = {name: value for name, value in values.items() if metric(name).group == "image"}
    return dataclasses.replace(record, metrics=values)


def protocol_part(protocol: Protocol) -> ProtocolPart:
    """Return the protocol as a record holds it."""
    return ProtocolPart(protocol.name, protocol.fingerprint, protocol.fields)


def method_part(loaded: LoadedMethod | None, costs: Costs | None, *, trained_on: int = 0) -> MethodPart:
    """Return the method as a record holds it; None is the original."""
    if loaded is None:
        return MethodPart(
            ORACLE, "oracle", "oracle", ORACLE_VERSION, "any", {}, None, 0, 0.0, "HR itself, never degraded"
        )
    info = loaded.method.info if loaded.method is not None else loaded.cls.info
    weights = loaded.weights
    part = None
    if weights is not None:
        card = weights.ref.card.to_json() if weights.ref.card else {}
        card.get("extra", {}).pop("history", None)  # the training part of the record holds it
        part = WeightsPart(weights.ref.label, weights.ref.uri, weights.ref.sha256, card)
    return MethodPart(
        name=loaded.name,
        role=info.role,
        family=info.family,
        version=info.version,
        factor=info.factor if loaded.images is None else loaded.images.factor,
        parameters=_parameters(loaded),
        weights=part,
        n_parameters=parameters_of(loaded),
        macs=None if costs is None or costs.macs is None else float(costs.macs),
        citation=info.citation,
        trained_on=trained_on,
    )


def _parameters(loaded: LoadedMethod) -> dict[str, Any]:
    if loaded.images is not None:
        return {"images_sha256": loaded.images.sha256}
    return dict(loaded.weights.parameters) if loaded.weights else {}


def classifier_part(
    classifier: Classifier | None, track: Literal["frozen", "adapted"], *, macs: int | None, trained_on: int = 0
) -> ClassifierPart | None:
    """Return the classifier as a record holds it."""
    if classifier is None:
        return None
    info = classifier.info
    return ClassifierPart(
        id=info.id,
        library=info.library,
        name=info.name,
        weights_sha256=info.weights_sha256,
        input_size=info.input_size,
        mean=info.mean,
        std=info.std,
        n_classes=info.n_classes,
        track=track,
        macs=macs,
        trained_on=trained_on,
    )


def dataset_part(
    source: Source, hr_store: HRStore, protocol: Protocol, cell: PlannedCell, *, decode_s: float
) -> DatasetPart:
    """Return the samples as a record holds them."""
    return DatasetPart(
        name=source.name,
        spec=source.spec,
        split=source.split,
        unit=source.unit,
        note=source.note,
        sample_list_sha256=hr_store.samples_sha256,
        n=len(hr_store),
        n_unreadable=len(hr_store.unreadable),
        unreadable=tuple(name for name, _ in hr_store.unreadable[:MAX_UNREADABLE_NAMED]),
        n_not_degraded=not_degraded(hr_store, protocol),
        classes=source.classes if hr_store.labels is not None or source.has_targets else None,
        task_type=source.task_type,
        decode_s=decode_s,
        n_one_channel=int((hr_store.stored_channels == 1).sum()),
        n_turned=int(hr_store.turned.sum()),
        sr_side=cell.own_side or sr_side(hr_store, protocol),
    )


def not_degraded(hr_store: HRStore, protocol: Protocol) -> int:
    """Count the samples whose source was already at or below the LR size, so that degrading takes nothing away."""
    if protocol.lr.given or protocol.lr.none:
        return 0
    sizes, counts = np.unique(np.hstack([hr_store.shapes, hr_store.source_shapes]), axis=0, return_counts=True)
    return sum(
        int(count)
        for (hr_h, hr_w, source_h, source_w), count in zip(sizes.tolist(), counts, strict=True)
        if min(source_h, source_w) <= min(protocol.lr.lr_size(hr_h, hr_w))
    )


def enlarged_beyond_lr(hr_store: HRStore, protocol: Protocol) -> NDArray[np.int64]:
    """Return `(n, 2)`, shortest sides of LR and HR, of the images that were enlarged to HR and are smaller than LR."""
    if protocol.lr.given or protocol.lr.none:
        return np.empty((0, 2), dtype=np.int64)
    hr, source = hr_store.shapes.min(axis=1), hr_store.source_shapes.min(axis=1)
    lr = np.array([min(protocol.lr.lr_size(height, width)) for height, width in hr_store.shapes.tolist()])
    fake = (source < hr) & (source <= lr)
    return np.stack([lr[fake], hr[fake]], axis=1)


def why_no_quality(cell: PlannedCell, protocol: Protocol) -> str | None:
    """Return why a cell has no PSNR and SSIM, or None if it has."""
    loaded = cell.loaded
    if protocol.is_small:
        return "the images are small by nature, so there is no ground truth"
    if cell.key.input_size is not None:
        return "PSNR and SSIM belong to the protocol's own input size"
    if protocol.lr.none:
        return "the protocol has no LR, so there is no ground truth at SR size"
    if protocol.sr.side is not None and protocol.sr.side != protocol.hr.crop:
        return "SR does not stand at HR size, so it cannot be compared with HR pixel by pixel"
    info = loaded.method.info if loaded is not None and loaded.method is not None else None
    if info is not None and info.output == "lr":
        return "LR is not upscaled, so it cannot be compared with HR pixel by pixel"
    if info is not None and info.output == "own":
        return "the method chooses its own size, so SR cannot be compared with HR pixel by pixel"
    return None


def training_part(loaded: LoadedMethod | None) -> dict[str, Any] | None:
    """Return how the weights were trained, as their card tells it, or None."""
    card = loaded.weights.ref.card if loaded is not None and loaded.weights is not None else None
    if card is None:
        return None
    return {"recipe": card.recipe, "data": card.data, "history": card.extra.get("history"), "command": card.command}


def now() -> str:
    """Return the UTC time in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
