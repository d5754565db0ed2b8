"""What the classifier says: confusion matrix, ROC curves with micro-average AUC, reliability diagram (DeepLense)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.metrics import expected_calibration_error, roc_auc_micro
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.scope import Entry, Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import (
    WIDE,
    WIDTH,
    Looks,
    canvas,
    dress,
    handle,
    legend_below,
    matrix,
    names_axis,
    percent_axis,
    plain,
)
from srbench.task_types.classification import class_name, class_names

SECTION = Section("scores", "Decisions and their confidence", order=50)

Floats = NDArray[np.float64]

MATRIX_CLASSES = 30
CONFUSIONS = 15
CALIBRATION_BINS = 15
JOINED_FROM = 5
ROC_POINTS = 200
_TEXT_CLASSES = 12


def draw(material: Material) -> Iterator[Drawn]:
    """Yield the figures of every task and classifier."""
    yield from material.each(_draw_scope)


def _draw_scope(scope: Scope, looks: Looks) -> Iterator[Drawn]:
    """Yield the figures of a task and classifier with labels."""
    labelled = [entry for entry in scope.chosen() if entry.row["accuracy"] is not None]
    for entry in labelled:
        if entry is scope.oracle:
            continue
        drawn = _confusion(scope, entry)
        if drawn is not None:
            yield drawn
    curves = [(entry, curve) for entry in labelled if (curve := _curve(scope, entry)) is not None]
    if curves:
        yield _roc(scope, looks, curves)
    bins = [(entry, calibration) for entry in labelled if (calibration := _calibration(scope, entry)) is not None]
    if bins:
        yield _reliability(scope, looks, bins)


# --- confusion ---------------------------------------------------------------------------------------------------


def _confusion(scope: Scope, entry: Entry) -> Drawn | None:
    columns = scope.samples(entry, ["label", "pred"])
    truth, guess = columns["label"].astype(np.int64), columns["pred"].astype(np.int64)
    spelled = class_names(entry.record for entry in scope.entries)
    classes = np.unique(truth).tolist()
    if len(classes) < 2:
        return None
    if len(classes) <= MATRIX_CLASSES:
        return _matrix(scope, entry, truth, guess, classes, spelled)
    return _pairs(scope, entry, truth, guess, spelled) if (truth != guess).any() else None


@drawing()
def _matrix(
    scope: Scope,
    entry: Entry,
    truth: NDArray[np.int64],
    guess: NDArray[np.int64],
    classes: list[int],
    spelled: dict[int, str],
) -> Drawn:
    """Every class against every class, in shares of the true class's samples."""
    from sklearn.metrics import confusion_matrix

    outside = ~np.isin(guess, classes)
    other = -1
    indices = [*classes, other] if outside.any() else classes
    counts = confusion_matrix(truth, np.where(outside, other, guess), labels=indices)[: len(classes)]
    names = [class_name(index, spelled) for index in classes]
    columns = [*names, "another class"] if outside.any() else names
    shares = counts / counts.sum(axis=1, keepdims=True)
    few = len(classes) <= _TEXT_CLASSES
    side = 2.0 + (0.30 if few else 0.19) * len(classes)
    figure = canvas(min(max(side - 0.4, 2.6), 7.0), width=WIDTH if few else min(max(side, WIDTH), WIDE))
    axes = figure.subplots()
    dress(axes, x="predicted", y="true", grid="")
    texts = [[f"{100 * share:.0f}" if share > 0 else "" for share in row] for row in shares] if few else None
    diagonal = [(at, at) for at in range(len(classes))]
    matrix(axes, shares.tolist(), texts=texts, outlined=diagonal if few else ())
    names_axis(axes.xaxis, columns, limit=18)
    names_axis(axes.yaxis, names, limit=18)
    axes.tick_params(axis="x", labelrotation=90)
    caption = (
        f"{entry.row.label}: of each true class's samples, the share{' in %' if few else ''} that is predicted as each"
        f" class, over {scope.over}; the diagonal is right. The deeper, the more."
    )
    data = {
        **entry.named,
        "classes": names,
        "class_index": classes,
        "predicted": columns,
        "counts": counts.tolist(),
    }
    return Drawn(
        f"scores-confusion-{entry.tag}-{scope.tag}",
        "scores",
        scope.task,
        scope.classifier,
        f"Confusion matrix: {entry.row.label}",
        caption,
        figure,
        data,
    )


@drawing()
def _pairs(
    scope: Scope, entry: Entry, truth: NDArray[np.int64], guess: NDArray[np.int64], spelled: dict[int, str]
) -> Drawn:
    """The most frequent confusions, where a matrix would be too large to read."""
    wrong = truth != guess
    pairs, counts = np.unique(np.column_stack([truth[wrong], guess[wrong]]), axis=0, return_counts=True)
    # Among equally frequent ones the order of the classes decides, so that it is the same everywhere.
    top = np.lexsort((pairs[:, 1], pairs[:, 0], -counts))[:CONFUSIONS]
    support = np.bincount(truth)
    frequent: list[dict[str, Any]] = [
        {
            "true": class_name(int(a), spelled),
            "predicted": class_name(int(b), spelled),
            "true_index": int(a),
            "predicted_index": int(b),
            "count": int(count),
            "support": int(support[a]),
        }
        for (a, b), count in zip(pairs[top], counts[top], strict=True)
    ]
    figure = canvas(0.6 + 0.25 * len(frequent), width=WIDE)
    axes = figure.subplots()
    dress(axes, x="samples of the true class, %", grid="x")
    shares = [pair["count"] / pair["support"] for pair in frequent]
    axes.barh(range(len(frequent)), shares, height=0.62, color=INK, alpha=0.25, linewidth=0)
    for at, (pair, share) in enumerate(zip(frequent, shares, strict=True)):
        axes.text(share, at, f" {pair['count']} of {pair['support']}", va="center", color=INK, fontsize=9)
    names_axis(axes.yaxis, ["" for _ in frequent])
    axes.yaxis.set_ticklabels([f"{plain(p['true'], 22)} → {plain(p['predicted'], 22)}" for p in frequent])
    axes.set_ylim(len(frequent) - 0.5, -0.5)
    axes.set_xlim(0.0, 1.18 * max(shares))
    percent_axis(axes.xaxis)
    caption = (
        f"{entry.row.label}: the {len(frequent)} most frequent of {len(pairs)} confusions (true → predicted) over"
        f" {scope.over}, {int(wrong.sum())} of which are wrong."
    )
    data = {**entry.named, "wrong": int(wrong.sum()), "pairs": frequent}
    return Drawn(
        f"scores-confusion-{entry.tag}-{scope.tag}",
        "scores",
        scope.task,
        scope.classifier,
        f"Most frequent confusions: {entry.row.label}",
        caption,
        figure,
        data,
    )


# --- ROC ---------------------------------------------------------------------------------------------------------


def _curve(scope: Scope, entry: Entry) -> dict[str, Any] | None:
    """Return the micro-averaged ROC curve of one class against the rest, or None where there are no scores."""
    names = entry.cell.score_columns()
    if len(names) >= 2:
        from sklearn.metrics import roc_curve

        truth = scope.samples(entry, ["label"])["label"].astype(np.int64)
        columns = scope.samples(entry, names)
        scores = np.column_stack([columns[name] for name in names])
        places = _score_places(scope, truth, len(names))
        if places is None or not np.isfinite(scores).all():
            return None
        positive = places[:, None] == np.arange(len(names))
        false, true, _ = roc_curve(positive.ravel(), scores.ravel())
        return {"of": "scores", "auc": roc_auc_micro(scores, places)} | _thinned(false, true)
    histograms = entry.record.score_histograms
    if not histograms:
        return None
    positives = np.asarray(histograms.get("positives", []), dtype=np.float64)
    negatives = np.asarray(histograms.get("negatives", []), dtype=np.float64)
    if positives.shape != negatives.shape or not positives.sum() or not negatives.sum():
        return None
    true = np.concatenate([[0.0], np.cumsum(positives[::-1]) / positives.sum()])
    false = np.concatenate([[0.0], np.cumsum(negatives[::-1]) / negatives.sum()])
    return {"of": "histograms", "auc": float(np.trapezoid(true, false))} | _thinned(false, true)


def _score_places(scope: Scope, truth: NDArray[np.int64], count: int) -> NDArray[np.int64] | None:
    """Return which score belongs to each label; where only the data's classes compete, scores are theirs alone."""
    if scope.record.protocol.fields.get("score", {}).get("logits") == "present":
        present = np.unique(truth)
        return np.searchsorted(present, truth) if len(present) == count else None
    return truth if truth.max() < count else None


def _thinned(false: Floats, true: Floats) -> dict[str, list[float]]:
    """Keep the points of a curve that are drawn, evenly along its length."""
    if len(false) > ROC_POINTS:
        length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(false), np.diff(true)))])
        places = np.searchsorted(length, np.linspace(0.0, length[-1], ROC_POINTS))
        keep = np.unique(np.concatenate([[0], np.minimum(places, len(false) - 1), [len(false) - 1]]))
        false, true = false[keep], true[keep]
    return {"false_positive_rate": false.tolist(), "true_positive_rate": true.tolist()}


@drawing()
def _roc(scope: Scope, looks: Looks, curves: Sequence[tuple[Entry, dict[str, Any]]]) -> Drawn:
    labels = [f"{entry.label}: AUC {curve['auc']:.4f}" for entry, curve in curves]
    figure = canvas(3.4, legend=labels)
    axes = figure.subplots()
    dress(axes, x="false positive rate, %", y="true positive rate, %")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
    for entry, curve in curves:
        look = looks.of(entry.row)
        axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], **look.curve())
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.01)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend_below(figure, [handle(**looks.of(entry.row).curve()) for entry, _ in curves], labels)
    binned = any(curve["of"] == "histograms" for _, curve in curves)
    caption = (
        f"ROC curves of one class against the rest, micro-averaged over the classes, over {scope.over}, with the area"
        " under each (1 is perfect, 0.5 is chance)."
        + (" From histograms of the scores, so that an area is exact to about their bins." if binned else "")
    )
    return Drawn(
        f"scores-roc-{scope.tag}",
        "scores",
        scope.task,
        scope.classifier,
        "ROC curves, micro-average",
        caption,
        figure,
        {"curves": [{**entry.named, **curve} for entry, curve in curves]},
    )


# --- calibration -------------------------------------------------------------------------------------------------


def _calibration(scope: Scope, entry: Entry) -> dict[str, Any] | None:
    """Return accuracy and confidence in each bin of confidence, or None where there is none."""
    columns = scope.samples(entry, ["confidence", "label", "pred"])
    confidence = columns["confidence"]
    if np.isnan(confidence).any():
        return None
    correct = columns["label"] == columns["pred"]
    # Open on the left, as in the expected calibration error.
    which = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(which, minlength=CALIBRATION_BINS)
    kept = counts > 0
    return {
        "bin": np.flatnonzero(kept).tolist(),
        "count": counts[kept].tolist(),
        "confidence": (np.bincount(which, confidence, CALIBRATION_BINS)[kept] / counts[kept]).tolist(),
        "accuracy": (np.bincount(which, correct, CALIBRATION_BINS)[kept] / counts[kept]).tolist(),
        "ece": expected_calibration_error(confidence, correct, bins=CALIBRATION_BINS),
    }


@drawing()
def _reliability(scope: Scope, looks: Looks, calibrations: Sequence[tuple[Entry, dict[str, Any]]]) -> Drawn:
    labels = [f"{entry.label}: ECE {100 * bins['ece']:.1f} %" for entry, bins in calibrations]
    figure = canvas(3.4, legend=labels)
    axes = figure.subplots()
    dress(axes, x="confidence, %", y="accuracy, %")
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
    for entry, bins in calibrations:
        look = looks.of(entry.row)
        joined = [at for at, count in enumerate(bins["count"]) if count >= JOINED_FROM]
        x, y = ([bins[name][at] for at in joined] for name in ("confidence", "accuracy"))
        axes.plot(x, y, **look.curve(linewidth=1.2, alpha=0.7))
        sizes = 10 + 110 * np.asarray(bins["count"]) / sum(bins["count"])
        axes.scatter(
            bins["confidence"],
            bins["accuracy"],
            s=sizes,
            marker=look.marker,
            facecolors="none" if look.hollow else look.colour,
            edgecolors=look.colour,
            clip_on=False,
            zorder=2.5,
        )
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    legend_below(figure, [handle(**looks.of(entry.row).both(markersize=5)) for entry, _ in calibrations], labels)
    caption = (
        f"Accuracy against confidence in {CALIBRATION_BINS} bins of equal width, over {scope.over}; larger markers hold"
        f" more of them, those of fewer than {JOINED_FROM} are not joined. On the diagonal the classifier is as often"
        " right as it is sure; below it is overconfident. ECE: expected calibration error, the mean distance to the"
        " diagonal."
    )
    return Drawn(
        f"scores-reliability-{scope.tag}",
        "scores",
        scope.task,
        scope.classifier,
        "Reliability diagram",
        caption,
        figure,
        {"bins": CALIBRATION_BINS, "methods": [{**entry.named, **bins} for entry, bins in calibrations]},
    )
