"""From a cell's samples and its surroundings to its record."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd

from srbench import metrics
from srbench.data.hr_cache import HRStore
from srbench.data.source import Source, sample_list_sha256
from srbench.evaluation.costs import Costs
from srbench.evaluation.loaded_methods import LoadedMethod, parameters_of
from srbench.evaluation.scoring import ScoredNetwork
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.records.schema import (
    MAX_UNREADABLE_NAMED,
    ORACLE,
    ClassifierPart,
    DatasetPart,
    MethodPart,
    Metric,
    ProtocolPart,
    WeightsPart,
)
from srbench.task_types import mean_metric

ORACLE_VERSION = "1"


def protocol_part(protocol: Protocol) -> ProtocolPart:
    """Return the protocol as a record holds it."""
    return ProtocolPart(protocol.name, protocol.fingerprint, protocol.fields)


def method_part(contender: LoadedMethod | None, costs: Costs | None) -> MethodPart:
    """Return the method as a record holds it; None is the oracle."""
    if contender is None:
        return MethodPart(
            ORACLE, "oracle", "oracle", ORACLE_VERSION, "any", {}, None, 0, 0.0, "HR itself, never degraded"
        )
    info = contender.method.info if contender.method is not None else contender.cls.info
    loaded = contender.weights
    part = None
    if loaded is not None:
        card = loaded.ref.card.to_json() if loaded.ref.card else {}
        card.get("extra", {}).pop("history", None)  # the training part of the record holds it
        part = WeightsPart(loaded.ref.label, loaded.ref.uri, loaded.ref.sha256, card)
    return MethodPart(
        name=contender.name,
        role=info.role,
        family=info.family,
        version=info.version,
        factor=info.factor,
        parameters=dict(loaded.parameters) if loaded else {},
        weights=part,
        n_parameters=parameters_of(contender),
        macs=None if costs is None or costs.macs is None else float(costs.macs),
        citation=info.citation,
    )


def classifier_part(classifier: Classifier | None, track: Literal["frozen", "adapted"]) -> ClassifierPart | None:
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
    )


def dataset_part(source: Source, hr_store: HRStore, protocol: Protocol) -> DatasetPart:
    """Return the samples as a record holds them."""
    return DatasetPart(
        name=source.name,
        spec=source.spec,
        split=source.split,
        unit=source.unit,
        note=source.note,
        sample_list_sha256=sample_list_sha256(hr_store.samples),
        n=len(hr_store),
        n_unreadable=len(hr_store.unreadable),
        unreadable=tuple(name for name, _ in hr_store.unreadable[:MAX_UNREADABLE_NAMED]),
        n_not_degraded=not_degraded(hr_store, protocol),
        classes=source.classes if hr_store.labels is not None else None,
        kind=source.task_type,
    )


def not_degraded(hr_store: HRStore, protocol: Protocol) -> int:
    """Count the samples whose source was already at or below the LR size, so that degrading takes nothing away."""
    if hr_store.lr_shapes is not None or protocol.lr.none:
        return 0
    sizes, counts = np.unique(np.hstack([hr_store.shapes, hr_store.source_shapes]), axis=0, return_counts=True)
    return sum(
        int(count)
        for (hr_h, hr_w, source_h, source_w), count in zip(sizes.tolist(), counts, strict=True)
        if min(source_h, source_w) <= min(protocol.lr.lr_size(hr_h, hr_w))
    )


def metrics_of(
    samples: pd.DataFrame,
    protocol: Protocol,
    scored: ScoredNetwork,
    *,
    why_no_quality: str | None,
    histograms: dict[str, Any] | None = None,
) -> dict[str, Metric]:
    """Return the metrics of a cell by name; what does not apply is None with its reason.

    Args:
        samples: What was found, one row a sample.
        protocol: The protocol.
        scored: The classifier.
        why_no_quality: Why there is no PSNR and SSIM, or None.
        histograms: Histograms of the scores, from `TaskType.histograms`.
    """
    quality = {"psnr": _psnr(samples, protocol, why_no_quality), "ssim": mean_metric(samples, "ssim", why_no_quality)}
    if scored.answers is None:
        return quality
    return quality | scored.kind.metrics(samples, scored.answers, histograms=histograms)


def why_no_quality(contender: LoadedMethod | None, protocol: Protocol) -> str | None:
    """Return why a cell has no PSNR and SSIM, or None if it has."""
    if protocol.lr.none:
        return "the protocol has no LR, so there is no ground truth at SR size"
    if protocol.sr.side is not None and protocol.sr.side != protocol.hr.crop:
        return "SR does not stand at HR size, so it cannot be compared with HR pixel by pixel"
    info = contender.method.info if contender is not None and contender.method is not None else None
    if info is not None and info.output == "lr":
        return "LR is not upscaled, so it cannot be compared with HR pixel by pixel"
    return None


def now() -> str:
    """Return the UTC time in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _psnr(samples: pd.DataFrame, protocol: Protocol, reason: str | None) -> Metric:
    if reason is not None or protocol.score.psnr_reduction == "image":
        return mean_metric(samples, "psnr", reason)
    pooled = metrics.psnr_pooled(samples["mse"].to_numpy(dtype=np.float64), protocol.score.psnr_batch)
    return Metric(pooled.value, pooled.n_images, n_infinite=pooled.n_infinite * protocol.score.psnr_batch)
