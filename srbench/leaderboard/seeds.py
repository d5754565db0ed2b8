"""Rows of weights that differ in the seed of their training alone become one row.

Its values are means over the seeds. Its draws resample seeds as well as images: each draw takes as many seeds as there
are, with replacement. The variance of a mean of S resampled seeds is (S - 1) / S of what it should be, so their
deviations are enlarged by the root of S / (S - 1).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srbench.leaderboard.ranks import ranking_name
from srbench.leaderboard.rows import Row, Seed
from srbench.metrics.catalogue import metric, metric_names
from srbench.metrics.stats import LEVEL
from srbench.records.schema import Record
from srbench.task_types import Interval, TaskType, put_interval
from srbench.weights import lineage

Floats = NDArray[np.float64]

_OF_ONE_TRAINING = ("p_best_size",)  # a test of single decisions, which several trainings do not share


@dataclass(frozen=True)
class Drawn:
    """A row with what it was computed from.

    Attributes:
        row: The row.
        draws: Bootstrap draws of its metrics by name.
        p_values: p against bilinear before Holm's correction, as `Comparison.p_values`.
    """

    row: Row
    draws: Mapping[str, Floats]
    p_values: Mapping[str, float]


def joined(rows: Sequence[Drawn], records: Sequence[Record], task_type: TaskType, *, seed: int) -> list[Drawn]:
    """Return the rows, those that differ in seed alone as one in the place of their first.

    Args:
        rows: Rows of one task and network that were resampled together.
        records: Their records.
        task_type: Type of the task.
        seed: Seed of the draws of seeds.
    """
    groups: dict[object, list[tuple[int, int]]] = {}
    for index, record in enumerate(records):
        identity = _identity(record)
        if identity is not None and not rows[index].row.partial:
            groups.setdefault(identity[:-1], []).append((identity[-1], index))
    # Two weights of one seed differ in something that the card does not say, so their rows stay apart.
    distinct = (group for group in groups.values() if len(dict(group)) == len(group) > 1)
    several = [dict(sorted(group)) for group in distinct]
    first_of = {min(group.values()): group for group in several}
    hidden = {index for group in several for index in group.values()} - set(first_of)
    done = []
    for index, drawn in enumerate(rows):
        if index in first_of:
            group = first_of[index]
            drawn = _join([rows[each] for each in group.values()], list(group), task_type, seed=seed)
        if index not in hidden:
            done.append(drawn)
    return done


def _identity(record: Record) -> tuple[str, str, str, int] | None:
    """Return method, track, all of the training but its seed, and the seed; None where the card does not say."""
    weights = record.method.weights
    if record.status != "ok" or weights is None:
        return None
    seed = weights.card.get("extra", {}).get("seed")
    if not weights.card.get("recipe") or not isinstance(seed, int) or isinstance(seed, bool):
        return None
    return record.cell.name, record.cell.track, lineage(weights.card), seed


def _join(ours: Sequence[Drawn], seeds: Sequence[int], task_type: TaskType, *, seed: int) -> Drawn:
    """Return one row of the rows of these seeds."""
    rows = [each.row for each in ours]
    first, name = rows[0], ranking_name(rows[0], task_type)
    shared = [key for key in first.values if all(key in row.values for row in rows)]
    values = {key: _mean([row.values[key] for row in rows]) for key in shared if key not in _OF_ONE_TRAINING}
    draws = _resampled(ours, seed=seed)
    ci: dict[str, Interval] = {}
    for key, drawn in draws.items():
        if all(key in row.ci for row in rows):
            area = key in metric_names() and metric(key).interval == "area"
            put_interval(ci, key, np.minimum(drawn, 1.0) if area else drawn, LEVEL)
    each = tuple(Seed(row.weights or "", number, row.values) for row, number in zip(rows, seeds, strict=True))
    representative = None
    if name is not None and name in values:
        ranked = sorted(rows, key=lambda row: row.values[name])
        representative = ranked[(len(ranked) - 1) // 2].weights
        values["seed_sd"] = float(np.std([row.values[name] for row in rows], ddof=1))
    row = dataclasses.replace(
        first,
        weights=_label([row.weights or "" for row in rows], len(rows)),
        values=values,
        ci=ci,
        notes={key: why for key, why in first.notes.items() if key not in values},
        accuracy_by_size=_mean_by_size(rows),
        p_by_size={},
        best_input_sizes=tuple(size for row in rows for size in row.best_input_sizes),
        seeds=each,
        representative=representative or first.weights,
    )
    return Drawn(row, draws, _p_values(ours, draws, task_type))


def _mean_by_size(rows: Sequence[Row]) -> dict[str, float]:
    """Return the means over the seeds at the input sizes that all of them were scored at."""
    shared = [size for size in rows[0].accuracy_by_size if all(size in row.accuracy_by_size for row in rows)]
    return {size: _mean([row.accuracy_by_size[size] for row in rows]) for size in shared}


def _mean(values: Sequence[float]) -> float:
    # parameters and the like are the same whole number for every seed
    return values[0] if len(set(values)) == 1 else math.fsum(values) / len(values)


def _resampled(ours: Sequence[Drawn], *, seed: int) -> dict[str, Floats]:
    """Return the draws of the means over resampled seeds, of every metric that all rows have draws of."""
    count = len(ours)
    wider = math.sqrt(count / (count - 1))
    draws: dict[str, Floats] = {}
    for name in ours[0].draws:
        if not all(name in each.draws for each in ours):
            continue
        table = np.column_stack([each.draws[name] for each in ours])
        # the same seeds in a draw for every metric, and for the rows of every method with as many of them
        chosen = np.random.default_rng([seed, count]).integers(0, count, size=table.shape)
        mean = table.mean(axis=1)
        draws[name] = mean + wider * (np.take_along_axis(table, chosen, axis=1).mean(axis=1) - mean)
    return draws


def _p_values(ours: Sequence[Drawn], draws: Mapping[str, Floats], task_type: TaskType) -> dict[str, float]:
    """Two-sided p of no difference to bilinear from the draws, since McNemar's test knows single decisions only."""
    found = {}
    for name, difference in task_type.tests.items():
        if difference not in draws or any(name not in each.p_values for each in ours):
            continue
        known = draws[difference][np.isfinite(draws[difference])]
        below, above = int((known <= 0).sum()), int((known >= 0).sum())
        found[name] = min(1.0, 2.0 * (1 + min(below, above)) / (1 + len(known)))
    return found


def _common_prefix(names: Sequence[str]) -> str:
    shortest, longest = min(names), max(names)
    differ = (at for at, letter in enumerate(shortest) if not longest.startswith(letter, at))
    return shortest[: next(differ, len(shortest))]


def _label(names: Sequence[str], count: int) -> str:
    """Return what the names of the weights begin with and how many there are: "ten x 3" of ten-s0, ten-s1, ten-s2."""
    begins = re.sub(r"(?:[-_. ]+(?:seed|s)?|seed)[-_. ]*$", "", _common_prefix(names))
    return f"{begins or names[0]} x {count}"
