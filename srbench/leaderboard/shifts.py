"""Joins tasks that differ in the degradation alone: what each row keeps under every one of them, and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srbench.files.strict import canonical_json
from srbench.leaderboard.beside import RowBeside, TableBeside
from srbench.leaderboard.rows import Row
from srbench.metrics.catalogue import metric
from srbench.protocol import shift_names, without_degradation
from srbench.task_types import task_type


@dataclass(frozen=True)
class ShiftedRow(RowBeside):
    """A row of the undegraded task with what it keeps under each degradation.

    Attributes:
        worst: Name of the degradation under which the value is worst, or None where not all are known and for the
            original, which is never degraded.
    """

    worst: str | None

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json."""
        worst = None if self.worst is None else {"name": self.worst, "value": self.values[self.worst]}
        return super().to_json() | {"worst": worst}


@dataclass(frozen=True)
class ShiftTable(TableBeside):
    """Tasks of one set of images and one network, joined beside the task without further degradation.

    Attributes:
        tasks: Name of a degradation -> id of its task, in the order of the columns.
        rows: One for each row of the undegraded task that is ok, in its order.
    """

    tasks: Mapping[str, str]
    rows: tuple[ShiftedRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json."""
        return {**self.head(), "tasks": dict(self.tasks), "rows": [row.to_json() for row in self.rows]}


def shift_tables(tasks: Mapping[str, Mapping[str, Any]], rows: Sequence[Row]) -> list[ShiftTable]:
    """Return one table for every undegraded task that has degraded ones beside it, and each network behind.

    Args:
        tasks: Task id -> what a leaderboard says of it.
        rows: The rows of that leaderboard.
    """
    tables = []
    for base, degraded in _families(tasks).items():
        for classifier in dict.fromkeys(row.classifier for row in rows if row.task == base):
            table = _table(base, classifier, degraded, tasks, rows)
            if table.rows:
                tables.append(table)
    return tables


def degraded_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the undegraded task of each degraded one that has one."""
    return {task: base for base, degraded in _families(tasks).items() for task in degraded.values()}


def _families(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return by undegraded task the names and ids of the degraded ones."""
    bases: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for task, about in tasks.items():
        fields, dataset = about["protocol"]["fields"], about["dataset"]
        plain = without_degradation(fields)
        data = {name: dataset.get(name) for name in ("spec", "split", "n", "sample_list_sha256")}
        key = canonical_json({"protocol": plain, "data": data, "numerics": about.get("numerics")})
        if plain == fields:
            bases.setdefault(key, task)
        else:
            others.append((key, task))
    families: dict[str, dict[str, str]] = {}
    for key, task in others:
        if key in bases:
            family = families.setdefault(bases[key], {})
            name = _name(tasks[task]["protocol"]["name"], tasks[bases[key]]["protocol"]["name"])
            family[name if name not in family else f"{name} {task[-6:]}"] = task
    return {base: dict(sorted(family.items(), key=lambda item: _place(item[0]))) for base, family in families.items()}


def _name(name: str, base: str) -> str:
    return name.removeprefix(f"{base}-") or name


def _place(name: str) -> tuple[int, str]:
    known = shift_names()
    return (known.index(name) if name in known else len(known), name)


def _table(
    base: str,
    classifier: str | None,
    degraded: Mapping[str, str],
    tasks: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Row],
) -> ShiftTable:
    asked = task_type(tasks[base]["dataset"].get("task_type", "classification"))
    ours = [row for row in rows if row.classifier == classifier and row.status == "ok"]
    names = ("psnr",) if classifier is None else asked.ranks
    name = next((each for each in names if any(row[each] is not None for row in ours)), names[-1])
    found = {row.key: row for row in ours}
    joined = []
    for row in ours:
        if row.task != base or row[name] is None:
            continue
        under = {shift: found.get((task, *row.key[1:])) for shift, task in degraded.items()}
        values = {
            shift: value for shift, other in under.items() if other is not None and (value := other[name]) is not None
        }
        ci = {shift: other.ci[name] for shift, other in under.items() if other is not None and name in other.ci}
        pick = min if metric(name).higher_is_better else max
        worst = (
            pick(values, key=lambda shift: values[shift])
            if len(values) == len(degraded) and row.role != "oracle"
            else None
        )
        if values:
            joined.append(ShiftedRow(row, values, ci, worst))
    return ShiftTable(base, classifier, name, degraded, tuple(joined))
