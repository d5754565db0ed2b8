"""Training curves: losses, cross-entropy, PSNR and accuracy an epoch, the selected one marked (DarioNet, figure 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from srbench.leaderboard import newest_cells
from srbench.records.schema import Record
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import MARKERS, PALETTE, canvas, dress, log_axis, percent_axis, plain, slug

SECTION = Section("training", "Training", order=30)

_LOG_FROM = 20.0
_AGREEMENT = "val_agreement:"  # then the name of one of several networks that see SR
_MAXIMUM_MARKED = 25


@dataclass(frozen=True)
class _Curve:
    """A column of the history; `line` is matplotlib's, `ink` draws it in ink instead of a series colour."""

    column: str
    label: str
    line: str = "-"
    ink: bool = False


@dataclass(frozen=True)
class _Panel:
    """One pair of axes."""

    title: str
    curves: tuple[_Curve, ...]
    share: bool = False
    logarithmic: bool = False


_SCORES = (
    _Panel(
        "cross-entropy, nats",
        (
            _Curve("val_ce", "restored"),
            _Curve("val_ce_hr", "original", ":", True),
            _Curve("val_ce_difference", "difference", "--"),
        ),
    ),
    _Panel("PSNR, dB", (_Curve("val_psnr", "restored"),)),
    _Panel(
        "accuracy, %",
        (_Curve("val_accuracy", "restored"), _Curve("val_accuracy_hr", "original", ":", True)),
        share=True,
    ),
    _Panel(
        "earth mover's distance",
        (
            _Curve("val_emd", "restored"),
            _Curve("val_emd_hr", "original", ":", True),
            _Curve("val_emd_bilinear", "bilinear", "--"),
        ),
    ),
)


def draw(material: Material) -> Iterator[Drawn]:
    """Yield one figure a set of weights whose card tells its history."""
    seen: set[tuple[str, str]] = set()
    kept = [cell for cell in newest_cells(material.cells)[0] if cell.record.cell.input_size is None]
    for record in sorted((cell.record for cell in kept), key=lambda each: (each.method.name, each.cell.weights or "")):
        weights = record.method.weights
        if weights is None or (record.method.name, weights.sha256) in seen:
            continue
        seen.add((record.method.name, weights.sha256))
        history = history_of(record)
        panels = _panels(history)
        if panels and len(history["epoch"]) > 1:  # one epoch is no curve
            yield _draw(record, history, panels)


def history_of(record: Record) -> dict[str, list[float | None]]:
    """Return the columns of a record's training history, one value an epoch; empty where there is none.

    A history may be kept as columns or as rows.
    """
    raw = (record.training or {}).get("history")
    if isinstance(raw, Mapping):
        columns = {name: list(values) for name, values in raw.items() if isinstance(values, list | tuple)}
    elif isinstance(raw, list | tuple) and all(isinstance(row, Mapping) for row in raw):
        names = dict.fromkeys(name for row in raw for name in row)
        columns = {name: [row.get(name) for row in raw] for name in names}
    else:
        return {}
    clean = {name: [_number(value) for value in values] for name, values in columns.items()}
    epochs = clean.get("epoch")
    if not epochs or None in epochs:
        return {}
    return {name: values for name, values in clean.items() if len(values) == len(epochs)}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def selected_epoch(record: Record) -> tuple[float | None, str | None]:
    """Return the epoch whose weights were kept and what chose it, as the card tells, or (None, None)."""
    weights = record.method.weights
    extra = weights.card.get("extra") if weights is not None else None
    if not isinstance(extra, Mapping):
        return None, None
    by = extra.get("selected_by")
    return _number(extra.get("selected_epoch")), by if isinstance(by, str) and by else None


def _panels(history: Mapping[str, Sequence[float | None]]) -> list[_Panel]:
    def known(curve: _Curve) -> bool:
        return any(value is not None for value in history.get(curve.column, ()))

    terms = [name for name in history if name.startswith("loss_")]
    losses = [_Curve(name, name.removeprefix("loss_").replace("_", " ")) for name in sorted(terms)]
    if "loss" in history and len(terms) != 1:
        losses.insert(0, _Curve("loss", "weighted sum", "-", True))
    losses.append(_Curve("val_logits", "logits, validation", "--"))
    watched = [name for name in history if name.startswith(_AGREEMENT)]
    agreements = [_Curve(name, name.removeprefix(_AGREEMENT)) for name in sorted(watched)]
    panels = []
    for panel in (
        _Panel("loss", tuple(losses)),
        *_SCORES,
        _Panel("same class as HR, %", tuple(agreements), share=True),
    ):
        curves = tuple(curve for curve in panel.curves if known(curve))
        if curves and not all(curve.ink for curve in curves):
            values = [value for curve in curves for value in history[curve.column] if value is not None]
            # Terms differ by orders of magnitude.
            wide = panel.title == "loss" and min(values) > 0 and max(values) / min(values) > _LOG_FROM
            panels.append(_Panel(panel.title, curves, panel.share, wide))
    return panels


@drawing()
def _draw(record: Record, history: Mapping[str, list[float | None]], panels: Sequence[_Panel]) -> Drawn:
    epochs = [value for value in history["epoch"] if value is not None]
    selected, by = selected_epoch(record)
    figure = canvas(0.45 + 1.55 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw_panel(axes, panel, epochs, history, selected)
    grid[-1, 0].set_xlabel("epoch")
    grid[-1, 0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    label = record.cell.weights or "none"
    assert record.method.weights is not None
    caption = (
        f"Training of {record.method.name} ({label}): loss terms over each epoch's training batches,"
        " the other panels on the validation images; epoch 0 is before training."
    )
    if selected is not None:
        why = f", selected by {by.replace('_', ' ')}" if by and by != "none" else ""
        caption += f" The vertical line marks the epoch whose weights were kept ({selected:g}{why})."
    columns = {curve.column for panel in panels for curve in panel.curves}
    data = {
        "method": record.method.name,
        "weights": label,
        "sha256": record.method.weights.sha256,
        "selected_epoch": selected,
        "selected_by": by,
        "history": {name: values for name, values in history.items() if name == "epoch" or name in columns},
    }
    return Drawn(
        f"training-{slug(record.method.name)}-{slug(label)}",
        "training",
        None,
        None,
        f"Training of {record.method.name} ({label})",
        caption,
        figure,
        data,
    )


def _draw_panel(
    axes: Axes,
    panel: _Panel,
    epochs: Sequence[float],
    history: Mapping[str, Sequence[float | None]],
    selected: float | None,
) -> None:
    dress(axes, y=panel.title)
    used = 0
    everything: list[float] = []
    for curve in panel.curves:
        pairs = [(x, y) for x, y in zip(epochs, history[curve.column], strict=True) if y is not None]
        everything += [y for _, y in pairs]
        colour = INK if curve.ink else PALETTE[used % len(PALETTE)]
        marker = MARKERS[used % len(MARKERS)] if not curve.ink and len(epochs) <= _MAXIMUM_MARKED else ""
        used += not curve.ink
        axes.plot(
            [x for x, _ in pairs],
            [y for _, y in pairs],
            color=colour,
            linestyle=curve.line,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            label=plain(curve.label, 24),
        )
    if panel.logarithmic:
        log_axis(axes, everything, prefix=False, axis="y")
    if panel.share:
        percent_axis(axes.yaxis)
    if not panel.logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if selected is not None:
        axes.axvline(selected, color=INK, linewidth=1.0, alpha=0.6)
    if len(panel.curves) > 1:
        # Beside the curves, where it can cover none of them.
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.04), handlelength=1.8, labelspacing=0.25)
