"""`srbench compare`: what changed between two leaderboards, and whether a change breaks a rule (the CI gate)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from srbench import protocol
from srbench.errors import IncomparableError, UnknownNameError, UsageError
from srbench.files.paths import user_path
from srbench.leaderboard import Leaderboard, Row, build, read_leaderboard
from srbench.metrics.catalogue import all_metrics, metric, metric_names
from srbench.metrics.info import MetricInfo
from srbench.metrics.stats import LEVEL
from srbench.records.cells import find_records
from srbench.task_types import Interval, put_interval

# A change of exactly the bound, computed in binary, must not fire.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Rule:
    """A bound on the change of a metric, from OLD to NEW.

    Attributes:
        text: As it was given.
        metric: Name of the metric.
        sign: -1 fires on a fall beyond the bound, +1 on a rise.
        bound: Size of the change that is still allowed, in the metric's unit, or a share of the old value.
        relative: Whether `bound` is a share of the old value.
    """

    text: str
    metric: str
    sign: int
    bound: float
    relative: bool

    def allowed(self, old: float) -> float:
        """Return the size of the change from `old` that is still allowed, in the metric's unit."""
        cap = metric(self.metric).cap
        return self.bound * abs(old if cap is None else min(old, cap)) if self.relative else self.bound

    def breaks(self, old: float, new: float) -> bool:
        """Say whether the change from `old` to `new` goes beyond the bound.

        Where every image is exact, the infinite PSNR counts as its cap, as each image does in a mean.
        """
        cap = metric(self.metric).cap
        if cap is not None:
            old, new = min(old, cap), min(new, cap)
        if old == new:
            return False
        return self.sign * (new - old) > self.allowed(old) + _TOLERANCE

    def may_break(self, old: float, interval: Interval) -> bool:
        """Say whether an interval of the change from `old` reaches beyond the bound."""
        worst = interval[1] if self.sign > 0 else interval[0]
        return self.sign * worst > self.allowed(old) + _TOLERANCE


@dataclass(frozen=True)
class Change:
    """A row of either leaderboard beside its partner.

    Attributes:
        old: The row of OLD, None where it is new.
        new: The row of NEW, None where it is gone.
        state: "new", "missing", "failed" (ok in OLD, not in NEW), or "".
        values: Metric -> (old value, new value), of rows that are ok in both.
        ci: Metric -> 95 % interval of new minus old on the same samples; only where these were asked for.
    """

    old: Row | None
    new: Row | None
    state: str
    values: Mapping[str, tuple[float | None, float | None]]
    ci: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def row(self) -> Row:
        """The row of NEW, or of OLD where it is gone."""
        row = self.new or self.old
        assert row is not None
        return row


@dataclass(frozen=True)
class BoardComparison:
    """The outcome of a comparison.

    Attributes:
        metrics: Metrics that are shown.
        changes: One entry a row of either leaderboard, in OLD's order, new ones last.
        fired: One sentence for each broken rule and each lost row; without rules nothing fires.
    """

    metrics: tuple[str, ...]
    changes: tuple[Change, ...]
    fired: tuple[str, ...]


def parse_rule(text: str) -> Rule:
    """Read a rule such as "accuracy -0.3pp", "psnr -0.1dB", "latency_ms +10%" or "cross_entropy +0.01".

    Raises:
        UsageError: If it does not have this form, or the unit does not fit the metric.
        UnknownNameError: If there is no such metric.
    """
    match = re.fullmatch(r"\s*(\w+)\s*([+-])\s*(\d+(?:\.\d*)?|\.\d+)\s*(pp|dB|%)?\s*", text)
    if match is None:
        raise UsageError(
            f"--fail-on takes '<metric> <signed number><unit>', such as 'accuracy -0.3pp', 'psnr -0.1dB' or"
            f" 'latency_ms +10%', got {text!r}"
        )
    name, sign, number, unit = match.groups()
    if name not in metric_names():
        raise UnknownNameError("metric", name, metric_names())
    fitting = [row.name for row in all_metrics() if _takes(row, unit)]
    if name not in fitting:
        raise UsageError(f"--fail-on {text!r}: the unit {unit} fits {', '.join(fitting)}, not {name}")
    bound = float(number) / (100 if unit in ("pp", "%") else 1)
    return Rule(text=text.strip(), metric=name, sign=1 if sign == "+" else -1, bound=bound, relative=unit == "%")


def _takes(row: MetricInfo, unit: str | None) -> bool:
    """Say whether a bound on a metric can be given in this unit."""
    return row.share if unit == "pp" else unit is None or unit == "%" or row.unit == unit


def load_board(path: Path | str) -> Leaderboard:
    """Return the leaderboard of an --out directory or of a leaderboard.json.

    A directory's records count before its leaderboard.json, which a run that was killed may have left behind.

    Raises:
        UsageError: If there is neither.
        RecordError: If the file is damaged.
        IncomparableError: If the directory's records cannot be ranked together.
    """
    path = user_path(path)
    if path.is_file():
        return read_leaderboard(path)
    if path.is_dir() and not (path / "records").is_dir() and (path / "leaderboard.json").is_file():
        return read_leaderboard(path / "leaderboard.json")
    if not path.exists():
        raise UsageError(
            f"there is no {path}; give a directory that 'srbench eval --out' wrote, or its leaderboard.json"
        )
    cells, problems = find_records([path])
    return build(cells, warnings=problems)


def compare(old: Leaderboard, new: Leaderboard, rules: Sequence[Rule] = (), *, paired: bool = False) -> BoardComparison:
    """Compare two leaderboards row by row, matched by task, method, weights, classifier and track.

    Point estimates are compared, unless `paired` asks for non-inferiority: then a rule holds only where the 95 %
    interval of the change on the same samples stays within its bound. Costs have no samples, and are compared as they
    are.

    With rules, a row that is ok in OLD and missing or failed in NEW fires as well, and
    so does a value that is gone.

    Args:
        old: The leaderboard to hold against.
        new: The one under test.
        rules: Bounds that NEW must keep.
        paired: Hold intervals of paired differences against the rules.

    Raises:
        IncomparableError: If there is no common task, or one differs in protocol, samples or classifier; with `paired`
            also if one board has no samples, or their draws differ.
        UsageError: If OLD has no ok row, or no row of OLD has a rule's metric: the gate could not fail.
    """
    _check_comparable(old, new)
    if paired:
        _check_pairs(old, new, rules)
    expected = [row for row in old.rows if row.status == "ok"]
    if not expected:
        raise UsageError("OLD has no ok row, so there is nothing to compare; run its evaluation first")
    for rule in rules:
        if all(row[rule.metric] is None for row in expected):
            raise UsageError(f"--fail-on {rule.text!r}: no row of OLD has {rule.metric}, so the rule could never fire")
    partners = {row.key: row for row in new.rows}
    known = {row.key for row in old.rows}
    headline = [row.name for row in all_metrics() if row.headline and any(ok[row.name] is not None for ok in expected)]
    metrics = tuple(dict.fromkeys([*headline, *(rule.metric for rule in rules)]))
    changes = [_change(row, partners.get(row.key), metrics) for row in old.rows]
    if paired:
        changes = [_with_intervals(change, old, new) for change in changes]
    changes += [_change(None, row, metrics) for row in new.rows if row.key not in known]
    fired = [line for change in changes for line in _fired(change, rules)] if rules else []
    return BoardComparison(metrics=metrics, changes=tuple(changes), fired=tuple(fired))


def _change(old: Row | None, new: Row | None, metrics: Sequence[str]) -> Change:
    if old is None or new is None:
        return Change(old, new, "new" if old is None else "missing", {})
    if old.status != "ok" or new.status != "ok":
        return Change(old, new, "failed" if old.status == "ok" else "", {})
    if (old.partial, old.n) != (new.partial, new.n):
        raise IncomparableError(
            f"{_spell(old)}: n is {old.n} in OLD and {new.n} in NEW; compare runs over the same samples"
        )
    return Change(old, new, "", {name: (old[name], new[name]) for name in metrics})


def _fired(change: Change, rules: Sequence[Rule]) -> list[str]:
    if change.old is None or change.old.status != "ok":
        return []
    where = _spell(change.old)
    if change.new is None:
        return [f"{where} is missing in NEW"]
    if change.state == "failed":
        return [f"{where} is {change.new.status} in NEW: {change.new.reason}"]
    lines = []
    for rule in rules:
        before, after = change.values[rule.metric]
        if before is None:
            continue
        if after is None:
            lines.append(f"{where}: {rule.metric} was {before:.6g} and is gone in NEW")
        elif rule.metric in change.ci:
            lines += _beyond(where, rule, before, after, change)
        elif rule.breaks(before, after):
            lines.append(f"{where}: {rule.metric} went from {before:.6g} to {after:.6g}, beyond {rule.text!r}")
    return lines


def _beyond(where: str, rule: Rule, before: float, after: float, change: Change) -> list[str]:
    """Say that an interval reaches beyond a rule's margin, and whether all of it does; nothing where it does not."""
    low, high = change.ci[rule.metric]
    if not rule.may_break(before, (low, high)):
        return []
    nearest = low if rule.sign > 0 else high
    verdict = "is beyond" if rule.sign * nearest > rule.allowed(before) else "is not shown to be within"
    return [
        f"{where}: {rule.metric} went from {before:.6g} to {after:.6g}; the change, {after - before:+.4g} with 95 %"
        f" interval [{low:+.4g}, {high:+.4g}] on the same {change.row.n} samples, {verdict} the margin of"
        f" {rule.sign * rule.allowed(before):+.4g} ({rule.text!r})"
    ]


def _with_intervals(change: Change, old: Leaderboard, new: Leaderboard) -> Change:
    """Add the intervals of the paired differences, from the draws of both boards, which are of the same samples."""
    if change.old is None or change.new is None or not change.values:
        return change
    ours, theirs = old.draws.get(change.old.key, {}), new.draws.get(change.new.key, {})
    ci: dict[str, Interval] = {}
    for name in change.values:
        if name in ours and name in theirs:
            put_interval(ci, name, theirs[name] - ours[name], LEVEL)
    return replace(change, ci=ci)


def _check_pairs(old: Leaderboard, new: Leaderboard, rules: Sequence[Rule]) -> None:
    """Refuse boards without samples, with other draws, or rules about metrics that have no draws."""
    for name, board in (("OLD", old), ("NEW", new)):
        if not board.draws:
            raise IncomparableError(
                f"--paired needs the samples of {name}, which is a leaderboard.json alone; give the folder that"
                " 'srbench eval --out' wrote, with its records"
            )
    if dict(old.bootstrap) != dict(new.bootstrap):
        raise IncomparableError(
            f"OLD and NEW were drawn otherwise: {dict(old.bootstrap)} against {dict(new.bootstrap)}"
        )
    drawn = {name for draws in old.draws.values() for name in draws}
    for rule in rules:
        if metric(rule.metric).group != "cost" and rule.metric not in drawn:
            fitting = ", ".join(name for name in metric_names() if name in drawn)
            raise UsageError(
                f"--fail-on {rule.text!r}: {rule.metric} has no interval here, so --paired cannot test it; those that"
                f" have one are {fitting}"
            )


def _spell(row: Row) -> str:
    return " · ".join(
        [row.task, row.classifier or "no classifier", row.label, *(["adapted"] * (row.track == "adapted"))]
    )


def _check_comparable(old: Leaderboard, new: Leaderboard) -> None:
    common = old.tasks.keys() & new.tasks.keys()
    if old.tasks and new.tasks and not common:
        raise IncomparableError(_nothing_in_common(old, new))
    for task in common:
        ours, theirs = old.tasks[task], new.tasks[task]
        lines = _differences(ours, theirs, ("sample_list_sha256", "n"))
        for name in ours["classifiers"].keys() & theirs["classifiers"].keys():
            first, second = (side["classifiers"][name]["weights_sha256"] for side in (ours, theirs))
            if first != second:
                lines.append(f"classifier {name} weights_sha256: {first} against {second}")
        if lines:
            raise IncomparableError(
                f"task {task!r} of OLD and NEW cannot be compared, they differ in {'; '.join(lines)}"
            )


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], dataset_fields: Sequence[str]) -> list[str]:
    """Name the fields of protocol and dataset in which two tasks differ."""
    lines = []
    if ours["protocol"]["fingerprint"] != theirs["protocol"]["fingerprint"]:
        lines = protocol.difference(ours["protocol"]["fields"], theirs["protocol"]["fields"]) or ["fingerprint"]
    for name in dataset_fields:
        first, second = (side["dataset"].get(name) for side in (ours, theirs))
        if first != second:
            lines.append(f"dataset.{name}: {first} against {second}")
    return lines


def _nothing_in_common(old: Leaderboard, new: Leaderboard) -> str:
    """Say that there is no common task, and in what the two most similar ones differ."""
    fields = ("spec", "split", "n", "sample_list_sha256")
    pairs = [(ours, theirs) for ours in old.tasks for theirs in new.tasks]
    lines = {(ours, theirs): _differences(old.tasks[ours], new.tasks[theirs], fields) for ours, theirs in pairs}
    nearest = min(pairs, key=lambda pair: len(lines[pair]))
    return (
        f"OLD and NEW have no task in common: {nearest[0]!r} of OLD and {nearest[1]!r} of NEW differ in"
        f" {'; '.join(lines[nearest]) or 'their names'}; compare runs over the same data under the same protocol"
    )
