"""Does a better picture mean a better prediction? Rank correlation of PSNR and SSIM with accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from srbench.metrics.stats import bootstrap_means, interval, kendall, spearman
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks, canvas, counted, dress, finite, handle, legend_below, percent_axis

SECTION = Section("correlation", "Does PSNR tell?", order=70)

Floats = NDArray[np.float64]

MINIMUM_METHODS = 4
DRAWS = 500
SEED = 0
IMAGE_METHODS = 3
IMAGE_BINS = 10
MINIMUM_IN_BIN = 12
_Z = 1.959963984540054
_QUALITY = {"psnr": "PSNR, dB", "ssim": "SSIM"}


def draw(material: Material) -> Iterator[Drawn]:
    """Yield the figures of every task and classifier."""
    yield from material.each(_draw_scope)


def _draw_scope(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    """Yield the correlation over methods and that over images, for a task and classifier with labels."""
    if scope.score_name != "accuracy":
        return
    drawn = _methods(scope, looks)
    if drawn is not None:
        yield drawn
    gains = [(entry, data) for entry in _image_entries(scope) if (data := _image_data(scope, entry)) is not None]
    if gains:
        yield _images(scope, looks, gains)


# --- over methods ------------------------------------------------------------------------------------------------


def _correlated(x: Floats, y: Floats, draws: tuple[Floats, Floats] | None) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, measure in (("spearman", spearman), ("kendall", kendall)):
        low, high = (math.nan, math.nan) if draws is None else interval(measure(*draws))
        result[name] = {"value": finite(float(measure(x, y))), "low": finite(low), "high": finite(high)}
    return result


@drawing()
def _methods(scope: Scope, looks: Looks) -> Drawn | None:
    """Accuracy of the frozen track's methods against PSNR and SSIM; the intervals resample the samples."""
    compared = {
        quality: [
            entry
            for entry in scope.entries
            if entry.row.track == "frozen"
            and entry.row.role != "oracle"
            and entry.row["accuracy"] is not None
            and isinstance(finite(entry.row[quality]), float)
        ]
        for quality in _QUALITY
    }
    compared = {quality: shown for quality, shown in compared.items() if len(shown) >= MINIMUM_METHODS}
    if not compared:
        return None
    draws = _draws(scope, compared)
    panels = []
    for quality, shown in compared.items():
        x = np.array([entry.row[quality] for entry in shown])
        y = np.array([entry.row["accuracy"] for entry in shown], dtype=np.float64)
        panels.append((quality, shown, x, y, _correlated(x, y, draws.get(quality))))
    everyone = list({id(entry): entry for panel in panels for entry in panel[1]}.values())
    labels = [entry.label for entry in everyone]
    figure = canvas(0.2 + 2.3 * len(panels), legend=labels)
    grid = figure.subplots(len(panels), 1, squeeze=False)
    data: dict[str, Any] = {}
    words = []
    for axes, (quality, shown, x, y, coefficients) in zip(grid[:, 0], panels, strict=True):
        dress(axes, x=_QUALITY[quality], y="accuracy, %")
        points = []
        for entry, across, up in zip(shown, x.tolist(), y.tolist(), strict=True):
            look = looks.of(entry.row)
            axes.plot([across], [up], **look.points())
            points.append({"method": entry.row.method, "weights": entry.row.weights, "x": across, "accuracy": up})
        axes.xaxis.set_major_locator(MaxNLocator(5))
        percent_axis(axes.yaxis)
        data[quality] = {"points": points, "n_methods": len(points), **coefficients}
        words.append(
            f"{quality.upper()}: Spearman {_told(coefficients['spearman'])}, Kendall {_told(coefficients['kendall'])}"
        )
    legend_below(figure, [handle(**looks.of(entry.row).points()) for entry in everyone], labels)
    caption = (
        f"Rank correlation of image quality with accuracy over {len(everyone)} methods of the frozen track."
        f" {'; '.join(words)}. The 95 % intervals resample the {scope.over}, for these methods;"
        " 1 would mean that the method with the better picture is always the more accurate one."
    )
    return Drawn(
        f"correlation-methods-{scope.tag}",
        "correlation",
        scope.task,
        scope.classifier,
        "Image quality against accuracy, one point a method",
        caption,
        figure,
        data,
    )


def _draws(scope: Scope, compared: Mapping[str, Sequence[Entry]]) -> dict[str, tuple[Floats, Floats]]:
    """Return resampled means of each quality and of accuracy, (draws, methods) each, paired.

    A PSNR that is pooled over batches is no mean over the samples, so it has none.
    """
    pooled = scope.record.protocol.fields.get("score", {}).get("psnr_reduction") == "batch"
    columns_by_key: dict[tuple[str, int], Floats] = {}
    for quality, shown in compared.items():
        for entry in shown:
            columns = scope.samples(entry, [*_QUALITY, "label", "pred"])
            columns_by_key["accuracy", id(entry)] = (columns["label"] == columns["pred"]).astype(np.float64)
            columns_by_key[quality, id(entry)] = columns[quality]
    means = bootstrap_means(np.column_stack(list(columns_by_key.values())), draws=DRAWS, seed=SEED)
    place = {key: at for at, key in enumerate(columns_by_key)}
    draws = {}
    for quality, shown in compared.items():
        pair = [means[:, [place[name, id(entry)] for entry in shown]] for name in (quality, "accuracy")]
        kept = np.isfinite(pair[0]).all(axis=1)
        if kept.any() and not (quality == "psnr" and pooled):
            draws[quality] = pair[0][kept], pair[1][kept]
    return draws


def _told(coefficient: Mapping[str, Any]) -> str:
    if coefficient["value"] is None:
        return "undefined (no differences)"
    text = f"{coefficient['value']:.2f}"
    return text if coefficient["low"] is None else f"{text} [{coefficient['low']:.2f}, {coefficient['high']:.2f}]"


# --- over images -------------------------------------------------------------------------------------------------


def _image_entries(scope: Scope) -> list[Entry]:
    if scope.reference is None:
        return []
    return scope.chosen(frozen=IMAGE_METHODS, oracle=False, reference=False)


def _image_data(scope: Scope, entry: Entry) -> dict[str, Any] | None:
    """Return what a gain in quality over bilinear goes along with, sample by sample."""
    reference = scope.reference
    assert reference is not None
    names = ["psnr", "ssim", "label", "pred", "cross_entropy"]
    own, base = scope.samples(entry, names), scope.samples(reference, names)
    right = (own["label"] == own["pred"]).astype(np.float64) - (base["label"] == base["pred"])
    sure = np.exp(-own["cross_entropy"]) - np.exp(-base["cross_entropy"])
    with np.errstate(invalid="ignore"):
        gains = {name: own[name] - base[name] for name in ("psnr", "ssim")}
    kept = np.isfinite(gains["psnr"]) & np.isfinite(sure)
    bins = _bins(gains["psnr"][kept], right[kept], sure[kept])
    if bins is None:
        return None
    return {
        **entry.named,
        "n": int(kept.sum()),
        "bins": bins,
        "correlation": {
            quality: {
                outcome: _over_images(gain[both], values[both])
                for outcome, values in (("right", right), ("probability", sure))
                for both in (np.isfinite(gain) & np.isfinite(values),)
            }
            for quality, gain in gains.items()
        },
    }


def _bins(gain: Floats, right: Floats, sure: Floats) -> list[dict[str, Any]] | None:
    """Return means with 95 % intervals in up to ten equally filled bins of the gain, None where too few fill."""
    count = min(IMAGE_BINS, len(gain) // MINIMUM_IN_BIN)
    edges = np.unique(np.quantile(gain, np.linspace(0.0, 1.0, count + 1))) if count >= 3 else np.array([])
    if len(edges) < 4:
        return None
    which = np.clip(np.searchsorted(edges, gain, side="right") - 1, 0, len(edges) - 2)
    entries = []
    for at in range(len(edges) - 1):
        inside = which == at
        n = int(inside.sum())
        if n < 2:
            continue
        entry: dict[str, Any] = {"n": n}
        for name, values in (("psnr_gain", gain[inside]), ("right", right[inside]), ("probability", sure[inside])):
            mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(n))
            entry[name] = {"value": mean, "low": mean - _Z * error, "high": mean + _Z * error}
        entries.append(entry)
    return entries


def _over_images(x: Floats, y: Floats) -> dict[str, Any]:
    """Return Spearman's and Kendall's correlation of many samples, with intervals by Fisher's transform.

    The variances are those of Bonett and Wright (2000) and of Fieller, Hartley and Pearson (1957).
    """
    n = len(x)
    if n < 10 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {name: {"value": None, "low": None, "high": None} for name in ("spearman", "kendall")} | {"n": n}
    rho, tau = float(spearman(x, y)), float(kendall(x, y))
    errors = math.sqrt((1 + rho * rho / 2) / (n - 3)), math.sqrt(0.437 / (n - 4))
    result: dict[str, Any] = {"n": n}
    for name, value, error in (("spearman", rho, errors[0]), ("kendall", tau, errors[1])):
        z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
        result[name] = {"value": value, "low": math.tanh(z - _Z * error), "high": math.tanh(z + _Z * error)}
    return result


@drawing()
def _images(scope: Scope, looks: Looks, gains: Sequence[tuple[Entry, dict[str, Any]]]) -> Drawn:
    labels = [entry.label for entry, _ in gains]
    unit = scope.record.dataset.unit
    figure = canvas(5.2, legend=labels)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    _image_panel(top, looks, gains, "psnr_gain", "PSNR minus\nbilinear's, dB")
    _image_panel(middle, looks, gains, "right", "accuracy minus\nbilinear's, points")
    _image_panel(bottom, looks, gains, "probability", "true class's proba-\nbility minus\nbilinear's, points")
    bottom.set_xlabel(f"{counted(2, unit)[2:]} in order of their PSNR minus bilinear's, %")
    bottom.set_xlim(0.0, 1.0)
    percent_axis(bottom.xaxis)
    legend_below(figure, [handle(**looks.of(entry.row).both(markersize=5)) for entry, _ in gains], labels)
    words = [
        f"{entry.label} {_told(data['correlation']['psnr']['right']['spearman'])} for PSNR and"
        f" {_told(data['correlation']['ssim']['right']['spearman'])} for SSIM"
        for entry, data in gains
    ]
    caption = (
        f"Does the {unit} that gains PSNR over bilinear become right? Each marker is one of up to {IMAGE_BINS} equally"
        f" filled bins of that gain, from the greatest loss on the left, with the 95 % interval of its mean, over"
        f" {scope.over}."
        f" Spearman's correlation of gain and change (1 became right, -1 became wrong): {'; '.join(words)}."
    )
    return Drawn(
        f"correlation-images-{scope.tag}",
        "correlation",
        scope.task,
        scope.classifier,
        f"Image quality against the prediction, {unit} by {unit}",
        caption,
        figure,
        {"methods": [data for _, data in gains]},
    )


def _image_panel(
    axes: Axes, looks: Looks, gains: Sequence[tuple[Entry, dict[str, Any]]], outcome: str, title: str
) -> None:
    dress(axes, y=title)
    axes.axhline(0.0, color=INK, linewidth=0.9, alpha=0.6)
    for place, (entry, data) in enumerate(gains):
        look = looks.of(entry.row)
        counts = np.array([each["n"] for each in data["bins"]])
        # Side by side, so that the intervals of several methods can be told apart.
        aside = 0.012 * (place - (len(gains) - 1) / 2)
        x = ((np.cumsum(counts) - counts / 2) / counts.sum() + aside).tolist()
        axes.plot(x, [each[outcome]["value"] for each in data["bins"]], **look.both(markersize=5, linewidth=1.3))
        for at, each in zip(x, data["bins"], strict=True):
            axes.plot(
                [at, at], [each[outcome]["low"], each[outcome]["high"]], color=look.colour, linewidth=1.0, alpha=0.75
            )
    if outcome != "psnr_gain":
        percent_axis(axes.yaxis)
