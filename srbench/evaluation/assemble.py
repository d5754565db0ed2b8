"""From a cell's samples and its surroundings to its record."""

from __future__ import annotations

import datetime
import math
from typing import Any, Literal

import numpy as np
import pandas as pd

from srbench import metrics
from srbench.classifiers import Classifier
from srbench.data.cache import HRStore
from srbench.data.source import Source, sample_list_sha256
from srbench.evaluation.contenders import Contender, parameters_of
from srbench.evaluation.costs import Costs
from srbench.evaluation.scoring import HISTOGRAM_BINS, HISTOGRAM_DECADES, ScoredClassifier
from srbench.leaderboard import ORACLE
from srbench.protocol import Protocol
from srbench.records import (
    MAX_UNREADABLE_NAMED,
    ClassifierPart,
    ClassPart,
    DatasetPart,
    MethodPart,
    Metric,
    ProtocolPart,
    WeightsPart,
)
from srbench.store import score_columns

ORACLE_VERSION = "1"


def protocol_part(protocol: Protocol) -> ProtocolPart:
    """Return the protocol as a record holds it."""
    return ProtocolPart(protocol.name, protocol.fingerprint, protocol.fields)


def method_part(contender: Contender | None, costs: Costs | None) -> MethodPart:
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
        kind=info.kind,
        family=info.family,
        version=info.version,
        factor=info.factor,
        parameters=dict(loaded.parameters) if loaded else {},
        weights=part,
        n_parameters=parameters_of(contender),
        macs=None if costs is None or costs.macs is None else float(costs.macs),
        reference=info.reference,
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
    scored: ScoredClassifier,
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
        histograms: Histograms of the scores of a classifier of many classes, from `histograms_of`.
    """
    n = len(samples)
    result = {"psnr": _psnr(samples, protocol, why_no_quality), "ssim": _mean(samples, "ssim", why_no_quality)}
    if scored.classifier is None:
        return result
    no_labels = None if samples["label"].notna().all() else "the data has no labels"
    pred = samples["pred"].to_numpy(dtype=np.int64)
    result["agreement"] = Metric(float((pred == samples["hr_pred"].to_numpy(dtype=np.int64)).mean()), n)
    result["logit_mse_to_hr"] = _mean(samples, "logit_mse_to_hr", None)
    result["kl_to_hr"] = _mean(samples, "kl_to_hr", None)
    if no_labels:
        names = ("accuracy", "top5", "cross_entropy", "ece", "f1_macro", "auc")
        return result | {name: Metric(None, 0, reason=no_labels) for name in names}
    correct = pred == samples["label"].to_numpy(dtype=np.int64)
    table = _class_table(samples, scored)
    result["accuracy"] = Metric(float(correct.mean()), n)
    result["top5"] = Metric(float(samples["top5_hit"].to_numpy(dtype=bool).mean()), n)
    result["cross_entropy"] = _mean(samples, "cross_entropy", None)
    confidence = samples["confidence"].to_numpy(dtype=np.float64)
    result["ece"] = Metric(metrics.expected_calibration_error(confidence, correct), n)
    result["f1_macro"] = Metric(metrics.f1_macro(table), n)
    result["auc"] = _auc(samples, scored, histograms)
    return result


def per_class_of(samples: pd.DataFrame, scored: ScoredClassifier, source: Source) -> tuple[ClassPart, ...] | None:
    """Return precision, recall and F1 of every class present, or None without labels or classifier."""
    if scored.classifier is None or scored.outputs is None or source.classes is None:
        return None
    names = dict(zip(scored.outputs.tolist(), source.classes, strict=True))
    return tuple(
        ClassPart(
            index=int(row["class_index"]),
            name=names[int(row["class_index"])],
            support=int(row["support"]),
            precision=float(row["precision"]),
            recall=float(row["recall"]),
            f1=float(row["f1"]),
        )
        for row in _class_table(samples, scored).to_dict("records")
    )


def histograms_of(sums: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """Return the pooled one-vs-rest score histograms of a classifier of many classes, or None for one of few."""
    if "score_positives" not in sums:
        return None
    return {
        "of": "softmax scores, one class against the rest, pooled over classes",
        "axis": f"log10(score), {HISTOGRAM_BINS} equal bins from -{HISTOGRAM_DECADES} to 0",
        "positives": sums["score_positives"].tolist(),
        "negatives": sums["score_negatives"].tolist(),
    }


def why_no_quality(contender: Contender | None, protocol: Protocol) -> str | None:
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


def _auc(samples: pd.DataFrame, scored: ScoredClassifier, histograms: dict[str, Any] | None) -> Metric:
    """Return the micro-average AUC from the scores, or from their histograms, exact to about a bin."""
    names = score_columns(samples.columns)
    if len(names) >= 2:
        label = samples["label"].to_numpy(dtype=np.int64)
        places = label if scored.present is None else np.searchsorted(scored.present, label)
        return Metric(metrics.roc_auc_micro(samples[names].to_numpy(dtype=np.float64), places), len(samples))
    if histograms is None:
        return Metric(None, 0, reason="a single class competes")
    positives, negatives = (np.array([0, *histograms[name][::-1]]).cumsum() for name in ("positives", "negatives"))
    area = np.trapezoid(positives / positives[-1], negatives / negatives[-1])
    return Metric(float(area), len(samples))


def _class_table(samples: pd.DataFrame, scored: ScoredClassifier) -> pd.DataFrame:
    assert scored.classifier is not None
    names = [str(index) for index in range(scored.classifier.info.n_classes)]
    return metrics.per_class_table(
        samples["label"].to_numpy(dtype=np.int64), samples["pred"].to_numpy(dtype=np.int64), names
    )


def _mean(samples: pd.DataFrame, column: str, reason: str | None) -> Metric:
    values = samples[column].to_numpy(dtype=np.float64)
    kept = values[~np.isnan(values)]
    if not len(kept):
        return Metric(None, 0, reason=reason or "no image is large enough for it")
    finite = kept[np.isfinite(kept)]
    value = float(finite.mean()) if len(finite) else math.inf
    return Metric(value, len(kept), n_infinite=len(kept) - len(finite))


def _psnr(samples: pd.DataFrame, protocol: Protocol, reason: str | None) -> Metric:
    if reason is not None or protocol.score.psnr_reduction == "image":
        return _mean(samples, "psnr", reason)
    pooled = metrics.psnr_pooled(samples["mse"].to_numpy(dtype=np.float64), protocol.score.psnr_batch)
    return Metric(pooled.value, pooled.n_images, n_infinite=pooled.n_infinite * protocol.score.psnr_batch)
