"""One sample of a gallery: the original, LR and every method, with what the classifier decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from srbench.leaderboard import BASELINE, ORACLE, Row
from srbench.report.galleries.model import (
    DIRECT,
    NetworkImages,
    Picture,
    Pixels,
    SampleStrip,
    TaskImages,
    Thumbnail,
    Verdict,
)
from srbench.report.galleries.patches import error_map, heat_map
from srbench.report.galleries.text import decibels, mark, whole
from srbench.task_types.classification import class_name


def sample_strip(
    task: TaskImages,
    network: NetworkImages,
    rows: Sequence[Row],
    at: int,
    embed: Callable[[Pixels], Picture],
    *,
    heat: bool,
) -> SampleStrip:
    """Return one sample with its original, its LR and every row; `embed` turns pixels into pictures of the page."""
    hr = task.hr[at]
    oracle = next((frame for key, frame in network.samples.items() if key[1] == ORACLE), None)
    any_frame = next(frame for frame in network.samples.values() if at in frame.index)
    label = whole(any_frame.at[at, "label"])
    thumbnails = [Thumbnail(ORACLE, "HR", embed(hr), _verdict(oracle, at, network), None)]
    if at in network.truths:
        thumbnails.append(Thumbnail("labels", "", embed(network.truths[at]), None, None, remark="what the data say"))
    found = next((each[at] for key, each in network.overlays.items() if key[1] == ORACLE and at in each), None)
    if found is not None:
        thumbnails.append(Thumbnail(ORACLE, "HR", embed(found), None, None, remark="as the network sees it"))
    if at in task.lr:
        height, width = task.lr[at].shape[:2]
        control = next((frame for key, frame in network.samples.items() if key[1] == DIRECT), None)
        direct = _verdict(control, at, network)
        remark = f"{width} × {height}, pixels enlarged" + (", straight to the classifier" if direct else "")
        thumbnails.append(Thumbnail("LR", "", embed(task.lr[at]), direct, None, remark=remark))
    for row in rows:
        if at not in network.sr[row.key]:
            continue
        sr, frame = network.sr[row.key][at], network.samples[row.key]
        same = sr.shape == hr.shape
        thumbnails.append(
            Thumbnail(
                row.label,
                mark(row),
                embed(network.overlays.get(row.key, {}).get(at, sr)),
                _verdict(frame, at, network),
                decibels(frame.at[at, "psnr"]),
                heat=embed(heat_map(sr, hr)) if heat and same else None,
                error=float(error_map(sr, hr).mean()) if same else None,
            )
        )
    decided = [
        thumbnail.verdict.right
        for thumbnail in thumbnails[1:]
        if thumbnail.verdict is not None and thumbnail.verdict.right is not None
    ]
    return SampleStrip(
        sample_id=str(any_frame.at[at, "sample_id"]),
        label=None if label is None else class_name(label, network.names),
        right=(sum(decided), len(decided)) if decided else None,
        remarks=tuple(_class_remarks(network, label)),
        thumbnails=tuple(thumbnails),
    )


def _verdict(frame: pd.DataFrame | None, at: int, network: NetworkImages) -> Verdict | None:
    """The decision on one sample: right by its label, or, without one, the same as on the original."""
    if network.classifier is None or frame is None or at not in frame.index:
        return None
    pred, label, hr_pred = (whole(frame.at[at, name]) for name in ("pred", "label", "hr_pred"))
    if pred is None:
        return None
    sure: Any = frame.at[at, "confidence"]
    confidence = float(sure)
    truth = hr_pred if label is None else label
    right = None if truth is None else pred == truth
    return Verdict(class_name(pred, network.names), confidence if math.isfinite(confidence) else None, right)


def _class_remarks(network: NetworkImages, label: int | None) -> Iterator[str]:
    """How F1 of the sample's class changed: what bilinear loses, what the best ranked method wins back."""
    if label is None:
        return
    best = next((row for row in network.rows if row.rank == 1 and row.track == "frozen"), None)
    for method, weights, other in (
        (BASELINE, None, ORACLE),
        *([(best.method, best.weights, BASELINE)] if best else []),
    ):
        table = network.classes[
            (network.classes["method"] == method)
            & (network.classes["track"] == "frozen")
            & (network.classes["class_index"] == label)
        ]
        if weights is not None:
            table = table[table["weights"] == weights]
        if table.empty or method == other:
            continue
        value, low, high = (float(table[f"f1_delta_to_{other}{end}"].to_numpy()[0]) for end in ("", "_low", "_high"))
        if math.isfinite(value):
            ends = f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else ""
            name = f"{method} ({weights})" if weights else method
            yield f"{name} {value:+.2f}{ends} against {other}"


def is_labelled(network: NetworkImages) -> bool:
    """Say whether any sample has a label."""
    return any(frame["label"].notna().any() for frame in network.samples.values())
