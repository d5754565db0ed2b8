"""What `srbench choose` chooses from: rows that no other beats in accuracy, latency and size at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from srbench.leaderboard.choose import Candidate, candidates_of, frontier_of
from srbench.metrics.catalogue import metric
from srbench.report.drawn import INK, Drawn, drawing
from srbench.report.figures.scope import Scope
from srbench.report.figures.section import Material, Section
from srbench.report.figures.style import Looks, canvas, dress, handle, legend_below, log_axis, percent_axis

SECTION = Section("frontier", "Which row to ship", order=12)

_AREA = 9.0  # points of a marker's side at the largest size among the candidates
_LEAST = 4.0  # and at no size at all


def draw(material: Material) -> Iterator[Drawn]:
    """Yield one figure for every task and network whose rows `choose` can choose among."""
    for scope in material.scopes:
        if not metric(scope.score_name).higher_is_better:
            continue
        candidates = candidates_of(material.board, scope.rows)
        if sum(bool(each.ms) for each in candidates) > 1:
            yield _draw(scope, material.looks, candidates)


@drawing()
def _draw(scope: Scope, looks: Looks, candidates: Sequence[Candidate]) -> Drawn:
    everyone = frontier_of(candidates)
    timed = [(each, each.row, each.ms) for each in candidates if each.ms is not None and each.row is not None]
    front = [(each, row, ms) for each, row, ms in timed if each in everyone]
    labels = [_label(each, scope.score_name) for each, _, _ in front]
    figure = canvas(3.4, legend=[*labels, "beaten"])
    axes = figure.subplots()
    dress(axes, x="latency of restoring one image, ms", y=metric(scope.score_name).axis)
    log_axis(axes, [ms for _, _, ms in timed if ms > 0], prefix=False)
    largest = max((each.mb or 0.0 for each in candidates), default=0.0) or 1.0
    for each, row, ms in timed:
        on_front = each in everyone
        side = _LEAST + (_AREA - _LEAST) * ((each.mb or 0.0) / largest) ** 0.5
        look = looks.of(row)
        ci = row.ci.get(scope.score_name)
        if on_front and ci is not None:
            axes.plot([ms, ms], list(ci), color=look.colour, linewidth=1.0, alpha=0.75)
        axes.plot([ms], [each.value], **(look.points(markersize=side) | {"alpha": 1.0 if on_front else 0.25}))
    if metric(scope.score_name).share:
        percent_axis(axes.yaxis)
    handles = [handle(**looks.of(row).points()) for _, row, _ in front]
    if len(front) < len(timed):
        labels.append("beaten")
        handles.append(handle(color=INK, linestyle="", marker="o", alpha=0.25))
    legend_below(figure, handles, labels)
    word = metric(scope.score_name).word
    data = {
        "metric": scope.score_name,
        "candidates": [_numbers(each, on_front=each in everyone) for each in candidates],
    }
    return Drawn(
        f"frontier-{scope.tag}",
        SECTION.name,
        scope.task,
        scope.classifier,
        f"{word[0].upper()}{word[1:]}, latency and size of what could ship",
        _caption(scope, [each.label for each in candidates if each.ms is None]),
        figure,
        data,
    )


def _label(candidate: Candidate, name: str) -> str:
    value = f"{100 * candidate.value:.1f} %" if metric(name).share else f"{candidate.value:.4g}"
    mb = "" if candidate.mb is None else f", {candidate.mb:.3g} MB"
    return f"{candidate.label}: {value}, {candidate.ms:.3g} ms{mb}"


def _numbers(candidate: Candidate, *, on_front: bool) -> dict[str, Any]:
    row = candidate.row
    return {
        "method": None if row is None else row.method,
        "weights": None if row is None else row.weights,
        "track": None if row is None else row.track,
        "value": candidate.value,
        "ms": candidate.ms,
        "mb": candidate.mb,
        "on_front": on_front,
    }


def _caption(scope: Scope, left_out: Sequence[str]) -> str:
    word = metric(scope.score_name).word
    text = (
        f"What `srbench choose` chooses from, over {scope.over}: every row that could ship, by {word} and its method's"
        " latency. The larger a marker, the larger are the method's parameters in float32, or its part of an exported"
        f" file. Full markers are rows that no other beats in {word}, latency and size at once, with intervals of 95 %;"
        " pale ones are beaten. With limits (`--max-ms`, `--max-mb`, `--at-least`) it takes the best row that keeps"
        " within them."
    )
    return f"{text} Not timed, so not shown: {', '.join(left_out)}." if left_out else text
