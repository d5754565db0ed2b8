"""`srbench choose`: the best row of a table that keeps within limits, and what the limits cost.

With a limit of bytes the table is that of `srbench rate`: a configuration is a side, a codec, a quality and a method.

Nothing is measured here: every number is one of the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srbench.errors import DataError, UsageError
from srbench.leaderboard.board import Leaderboard
from srbench.leaderboard.ranks import ranking_name, ranking_value
from srbench.leaderboard.rows import Row
from srbench.leaderboard.sendings import WHOLE, Sending, Sendings
from srbench.leaderboard.tables import task_type_of
from srbench.metrics.catalogue import metric
from srbench.metrics.stats import bootstrap_means, interval
from srbench.task_types import TaskType

_BYTES_A_PARAMETER = 4


@dataclass(frozen=True)
class Limits:
    """What a configuration has to keep within; None is no limit.

    Attributes:
        max_ms: Milliseconds that the method takes an image, as the record measured it.
        max_mb: Size of the method's parameters in float32, or of its part of an exported file, 10^6 bytes.
        max_bytes: Mean bytes of what is sent of an image; it makes `srbench rate`'s settings the table.
        at_least: Smallest value of what ranks the table, such as accuracy.
        margin: Largest loss against the best that still counts as no loss (non-inferiority), in the metric's units.
    """

    max_ms: float | None = None
    max_mb: float | None = None
    at_least: float | None = None
    margin: float = 0.01
    max_bytes: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that nothing can keep within.

        Raises:
            UsageError: Naming the option.
        """
        for option, value in (
            ("--max-ms", self.max_ms),
            ("--max-mb", self.max_mb),
            ("--max-bytes", self.max_bytes),
            ("--margin", self.margin),
        ):
            if value is not None and not value >= 0:
                raise UsageError(f"{option} takes a number of at least 0, got {value:g}")


@dataclass(frozen=True)
class Candidate:
    """A row, or a way of sending images to it, as something to ship.

    Attributes:
        row: The row; None where images are sent whole, so that no method runs.
        value: Of what ranks the table.
        ms: Milliseconds an image of the method, or None where no record says.
        mb: Size of its parameters in float32, or of its part of the exported file, 10^6 bytes, or None.
        sending: What is sent; None where the records say nothing of bytes.
    """

    row: Row | None
    value: float
    ms: float | None
    mb: float | None
    sending: Sending | None = None

    @property
    def label(self) -> str:
        """What a person reads."""
        if self.sending is not None:
            return self.sending.label
        assert self.row is not None
        return self.row.label

    @property
    def bytes(self) -> float | None:
        """Mean bytes of what is sent of an image, or None where that is not asked."""
        return None if self.sending is None else self.sending.mean_bytes

    def ci(self, name: str) -> tuple[float, float] | None:
        """Return the interval of 95 % of its value, the metric of this name."""
        if self.sending is not None:
            return self.sending.ci
        return None if self.row is None else self.row.ci.get(name)

    def misses(self, limits: Limits) -> list[tuple[str, float]]:
        """Return what it lacks, each as a clause and as a share of the limit; nothing where it keeps within all."""
        lacking = []
        costs = (
            ("latency", self.ms, limits.max_ms, "ms"),
            ("size", self.mb, limits.max_mb, "MB"),
            ("bytes", self.bytes, limits.max_bytes, "bytes"),
        )
        for name, mine, most, unit in costs:
            if most is not None and (mine is None or mine > most):
                shown = f"no record says its {name}" if mine is None else f"{mine:.4g} {unit}, allowed are {most:g}"
                lacking.append((shown, np.inf if mine is None or most == 0 else mine / most - 1))
        if limits.at_least is not None and self.value < limits.at_least:
            share = (limits.at_least - self.value) / limits.at_least
            lacking.append((f"{self.value:.4g}, wanted are at least {limits.at_least:g}", share))
        return lacking


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        metric: What ranks the table.
        chosen: The best candidate within the limits, or None.
        nearest: Where there is none: the one that misses least.
        best: The best candidate without limits.
        frontier: Candidates that no other beats in the metric, latency and size at once, the best first.
        difference: Chosen minus best, with its paired interval of 95 %; None without a choice or without samples.
        limits: What was asked for.
    """

    metric: str
    chosen: Candidate | None
    nearest: Candidate
    best: Candidate
    frontier: tuple[Candidate, ...]
    difference: tuple[float, float, float] | None
    limits: Limits

    @property
    def non_inferior(self) -> bool | None:
        """Whether it loses less than the margin against the best, or None where that cannot be told."""
        return None if self.difference is None else self.difference[1] > -self.limits.margin

    @property
    def header(self) -> tuple[str, ...]:
        """Headers of `frontier_rows`."""
        return ("frontier", self.metric, "ms / image", "MB", *(["bytes"] if self.best.sending is not None else []))

    def frontier_rows(self) -> list[tuple[str, ...]]:
        """Return the frontier as a table: name, value, latency, size, bytes where known; the chosen one is marked."""
        rows = []
        for each in self.frontier:
            mark = " <- chosen" if each is self.chosen else ""
            ms, mb = ("-" if cost is None else f"{cost:.4g}" for cost in (each.ms, each.mb))
            sent = [] if each.bytes is None else [f"{each.bytes:,.0f}"]
            rows.append((f"{each.label}{mark}", f"{each.value:.4f}", ms, mb, *sent))
        return rows

    def lines(self, board: Leaderboard) -> list[str]:
        """Return sentences for a person."""
        if self.chosen is None:
            missing = "; ".join(clause for clause, _ in self.nearest.misses(self.limits))
            return [f"nothing in the records keeps within the limits; nearest is {self.nearest.label}: {missing}"]
        ci = self.chosen.ci(self.metric)
        shown = "" if ci is None else f" ({ci[0]:.4f} to {ci[1]:.4f})"
        track = "" if self.chosen.row is None else f", {self.chosen.row.track}"
        lines = [f"{self.chosen.label}{track}: {self.metric} {self.chosen.value:.4f}{shown}, {_costs(self.chosen)}"]
        if self.chosen is self.best:
            lines.append("it is the best of the table; the limits cost nothing")
        elif self.difference is not None:
            loss, low, high = self.difference
            verdict = "is not inferior" if self.non_inferior else "may be inferior"
            lines.append(
                f"the best without limits is {self.best.label}, {self.metric} {self.best.value:.4f},"
                f" {_costs(self.best)}; the limits cost {-loss:.4f} ({-high:.4f} to {-low:.4f}, paired): it {verdict}"
                f" at a margin of {self.limits.margin:g}"
            )
        lines.append(ship(self.chosen, board))
        return lines


def choose(
    board: Leaderboard,
    limits: Limits,
    *,
    task: str | None = None,
    network: str | None = None,
    sendings: Sendings | None = None,
) -> Choice:
    """Return the best row of one table that keeps within limits; with `sendings` the best way of sending images.

    Rows that nobody can ship are left out: the original, images restored elsewhere, partial and failed rows. Of equal
    values the faster one is taken, then the smaller one.

    Args:
        board: The leaderboard.
        limits: What to keep within.
        task: Id of the task, where the board has several.
        network: Id of the network behind, where the task has several.
        sendings: What `srbench rate` found, where bytes are limited.

    Raises:
        UsageError: If several tables could be meant, or `sendings` are of another network.
        DataError: If the table holds nothing that could ship, or what ranks it is better when it is less.
    """
    rows = [row for row in board.rows if _ships(row)]
    rows = _of("--task", rows, [row.task for row in rows], task)
    if sendings is not None and network is None:
        network = sendings.network
    if sendings is not None and network != sendings.network:
        raise UsageError(f"what was sent was measured with {sendings.network}, not with {network}; name that network")
    rows = _of("--network", rows, [row.classifier or "none" for row in rows], network)
    candidates = candidates_of(board, rows)
    if sendings is not None:
        candidates = sorted(_sent(sendings, candidates), key=_order)
    if not candidates:
        raise DataError("the records hold no whole row that could be shipped; run `srbench eval` without --limit")
    first = candidates[0].row
    ranked = first is not None and sendings is None
    name = ranking_name(first, task_type_of(board, first.task)) if first is not None and ranked else "accuracy"
    if name is None or not metric(name).higher_is_better:
        raise DataError(f"this table is ranked by {name}, of which less is better; choose knows what more is better of")
    within = [candidate for candidate in candidates if not candidate.misses(limits)]
    chosen = within[0] if within else None
    nearest = min(candidates, key=lambda each: (sum(share for _, share in each.misses(limits)), _order(each)))
    return Choice(
        metric=name,
        chosen=chosen,
        nearest=nearest,
        best=candidates[0],
        frontier=frontier_of(candidates),
        difference=None if chosen is None else _difference(board, chosen, candidates[0], name),
        limits=limits,
    )


def candidates_of(board: Leaderboard, rows: Sequence[Row]) -> list[Candidate]:
    """Return those of one table's rows that could be shipped, the best first."""
    asked = [(row, task_type_of(board, row.task)) for row in rows if _ships(row)]
    found = [candidate for row, kind in asked if (candidate := _candidate(row, kind)) is not None]
    return sorted(found, key=_order)


def frontier_of(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other beats in value, latency, size and bytes at once, in their order."""
    return tuple(each for each in candidates if not any(_beats(other, each) for other in candidates))


def _ships(row: Row) -> bool:
    return row.status == "ok" and not row.partial and row.role not in ("oracle", "precomputed")


def _sent(sendings: Sendings, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the settings of a rate.json with what the records say that their methods cost."""
    by_label = {each.label: each for each in candidates if each.row is not None and each.row.runtime is None}
    found = []
    for each in sendings.settings:
        cost = by_label.get(each.method)
        if each.method == WHOLE:
            found.append(Candidate(None, each.accuracy, 0.0, 0.0, each))
        else:
            known = (None, None, None) if cost is None else (cost.row, cost.ms, cost.mb)
            found.append(Candidate(known[0], each.accuracy, *known[1:], each))
    return found


def ship(candidate: Candidate, board: Leaderboard) -> str:
    """Return how a candidate is shipped: the export command, or in words where there is nothing to export."""
    sending = candidate.sending
    if sending is None:
        assert candidate.row is not None
        return export_command(candidate.row, board)
    size = max(sending.best_input_sizes, key=sending.best_input_sizes.count)
    if sending.method == WHOLE:
        return f"images are sent whole, so no method runs; the network sees them at {size} pixels"
    if candidate.row is None:
        return f"the records hold no row of {sending.method}, which restores it; run srbench eval for its costs"
    return export_command(candidate.row, board, lr_size=sending.side, input_size=size)


def export_command(row: Row, board: Leaderboard, *, lr_size: int | None = None, input_size: int | None = None) -> str:
    """Return the command that writes a row as a file.

    Args:
        row: The row.
        board: Its board.
        lr_size: Shortest side of LR, pixels; None is the protocol's, where that fixes it.
        input_size: What the network sees, pixels; None is the row's best, or the protocol's own.
    """
    about = board.tasks[row.task]
    fields = about["protocol"]["fields"]
    crop, scale, side = fields["hr"].get("crop"), fields["lr"].get("scale"), fields["lr"].get("lr_side")
    lr = lr_size or side or (int(scale * crop + 1e-9) if scale and crop else "N")
    parts = [f"srbench export {plain_name(row)}"]
    parts += [f"--weights {row.representative or row.weights}"] if row.weights else []
    parts += [f"--classifier {row.classifier}"] if row.classifier else []
    parts += [f"--lr-size {lr}", f"--protocol {about['protocol']['name']}"]
    if row.best_input_sizes or input_size is not None:
        parts += [f"--input-size {input_size or max(row.best_input_sizes, key=row.best_input_sizes.count)}"]
    if row.calibration is not None:
        split = row.calibration["split"]
        parts += [f"--data {about['dataset']['spec']}", "--precision int8", f"--calibrate {row.calibration['spec']}"]
        parts += [f"--calibrate-split {split}"] if split else []
        parts += [f"--calibrate-images {row.calibration['images']}"]
    return " ".join([*parts, "--out m.onnx"])


def plain_name(row: Row) -> str:
    """Return the registry name of a row's method, without the runtime."""
    return row.method if row.runtime is None else row.method.removesuffix(f"[{row.runtime}]")


def _of(option: str, rows: list[Row], names: Sequence[str], wanted: str | None) -> list[Row]:
    known = sorted(set(names))
    if wanted is None:
        if len(known) > 1:
            raise UsageError(f"the records hold several tables; choose one with {option}: {', '.join(known)}")
        return rows
    if wanted not in known:
        raise UsageError(f"{option} {wanted} is not in the records; they hold {', '.join(known) or 'nothing'}")
    return [row for row, name in zip(rows, names, strict=True) if name == wanted]


def _candidate(row: Row, task_type: TaskType) -> Candidate | None:
    value, parameters = ranking_value(row, task_type), row["parameters"]
    if value is None:
        return None
    mb = None if parameters is None else parameters * _BYTES_A_PARAMETER / 1e6
    if row.runtime is not None:
        mb = row.restoring_mb
    return Candidate(row, value, row["latency_ms"], mb)


def _order(candidate: Candidate) -> tuple[float, float, float, float, str]:
    """Return what sorts candidates: by value, of equal ones by fewer bytes, then the faster, then the smaller."""
    ms, mb = (np.inf if cost is None else cost for cost in (candidate.ms, candidate.mb))
    return -candidate.value, candidate.bytes or 0.0, ms, mb, candidate.label


def _beats(other: Candidate, each: Candidate) -> bool:
    mine, its = _order(other)[:-1], _order(each)[:-1]
    return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


def _difference(board: Leaderboard, chosen: Candidate, best: Candidate, name: str) -> tuple[float, float, float] | None:
    if chosen.sending is not None and best.sending is not None:
        lost = np.subtract(chosen.sending.right, best.sending.right).astype(np.float64)
        low, high = interval(bootstrap_means(lost[:, None], seed=0)[:, 0])
        return chosen.value - best.value, low, high
    draws = [
        None if candidate.row is None else board.draws.get(candidate.row.key, {}).get(name)
        for candidate in (chosen, best)
    ]
    if draws[0] is None or draws[1] is None:
        return None
    low, high = interval(draws[0] - draws[1])
    return chosen.value - best.value, low, high


def _costs(candidate: Candidate) -> str:
    ms = "unknown latency" if candidate.ms is None else f"{candidate.ms:.4g} ms an image"
    exported = candidate.row is not None and candidate.row.runtime is not None
    mb = (
        ""
        if candidate.mb is None
        else f", {candidate.mb:.4g} MB of {'the exported file' if exported else 'parameters'}"
    )
    sent = "" if candidate.bytes is None else f", {candidate.bytes:,.0f} bytes an image"
    return f"{ms}{mb}{sent}"
