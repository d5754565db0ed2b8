"""The leaderboard as a value, and its form in leaderboard.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import RecordError
from srbench.files.strict import read_json
from srbench.files.validate import Count, PlainJson, validated
from srbench.leaderboard.rows import IDENTITY, Row, RowKey, interval_names
from srbench.leaderboard.shifts import ShiftTable, shift_tables
from srbench.leaderboard.slices import SliceTable
from srbench.metrics.catalogue import metric_names
from srbench.records.schema import ProtocolPart
from srbench.task_types.classification import PER_CLASS_COLUMNS

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Leaderboard:
    """The table of a set of records.

    Attributes:
        tasks: Task id -> protocol, dataset, classifiers, devices, power.
        rows: The rows in the order in which they are shown.
        per_class: One row a class and cell, columns `PER_CLASS_COLUMNS`; empty where it was read from a JSON file.
        bootstrap: draws, seed and level of the intervals.
        warnings: What a reader must know: damaged records, repeated cells.
        draws: Key of a row -> bootstrap draws of its metrics by name, paired over all rows of a task and network; empty
            where it was read from a JSON file.
        slices: The rows by slices of the samples, one table for each column; none where it was read from a JSON file.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]
    per_class: pd.DataFrame
    bootstrap: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    draws: Mapping[RowKey, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict, repr=False)
    slices: tuple[SliceTable, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """One line a row, every metric of the catalogue, intervals as <name>_low and <name>_high."""
        ends = [(name, f"{name}_low", f"{name}_high") for name in interval_names()]
        lines = []
        for row in self.rows:
            line = row.flat()
            for name, low, high in ends:
                line[low], line[high] = row.ci.get(name, (None, None))
            line["best_input_sizes"] = " ".join(map(str, row.best_input_sizes)) or None
            line["accuracy_by_size"] = (
                " ".join(f"{size}:{value}" for size, value in row.accuracy_by_size.items()) or None
            )
            line["notes"] = "; ".join(f"{name}: {why}" for name, why in row.notes.items()) or None
            lines.append(line)
        place = ("rank_low", "rank_high", "tied")
        columns = [*IDENTITY, *place, *metric_names(), *(end for _, *both in ends for end in both)]
        columns += ["best_input_sizes", "accuracy_by_size", "notes"]
        return pd.DataFrame(lines, columns=columns)

    def power_of(self, task: str, classifier: str | None) -> Mapping[str, Any] | None:
        """Return what the samples of one table can show: n, discordance and smallest difference, or None.

        Boards that an older srbench wrote do not say.
        """
        power: Mapping[str, Any] | None = self.tasks[task].get("power", {}).get(classifier or "")
        return power

    def of_tasks(self, names: Collection[str]) -> Leaderboard:
        """Return the part of the leaderboard that belongs to the tasks of these ids."""
        return dataclasses.replace(
            self,
            tasks={name: task for name, task in self.tasks.items() if name in names},
            rows=tuple(row for row in self.rows if row.task in names),
            per_class=self.per_class[self.per_class["task"].isin(list(names))],
            draws={key: draws for key, draws in self.draws.items() if key[0] in names},
            slices=tuple(table for table in self.slices if table.task in names),
        )

    @property
    def shifts(self) -> list[ShiftTable]:
        """Tasks that differ in the degradation alone, joined: a column for each."""
        return shift_tables(self.tasks, self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the content of leaderboard.json; an infinite PSNR becomes the string "inf"."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bootstrap": dict(self.bootstrap),
            "warnings": list(self.warnings),
            "tasks": {name: dict(task) for name, task in self.tasks.items()},
            "rows": [row.to_json() for row in self.rows],
        } | {
            name: [table.to_json() for table in tables]
            for name, tables in (("shifts", self.shifts), ("slices", self.slices))
            if tables
        }

    @classmethod
    def from_json(cls, raw: Any, *, origin: str) -> Leaderboard:
        """Read the content of a leaderboard.json; `origin` names it in error messages.

        Raises:
            RecordError: If it is none, or of another schema version.
        """
        if not isinstance(raw, Mapping) or raw.get("schema_version") != SCHEMA_VERSION:
            version = raw.get("schema_version") if isinstance(raw, Mapping) else None
            raise RecordError(
                f"{origin} is not a leaderboard of schema version {SCHEMA_VERSION}, its version is {version!r}"
            )
        remedy = "; make the leaderboard again"
        head = validated(_Head, raw, origin=origin, error=RecordError, unknown="ignore", remedy=remedy)
        return cls(
            tasks=raw["tasks"],
            rows=tuple(Row.from_json(entry, origin=f"{origin}: rows[{i}]") for i, entry in enumerate(head.rows)),
            per_class=pd.DataFrame(columns=list(PER_CLASS_COLUMNS)),
            bootstrap=head.bootstrap,
            warnings=head.warnings,
        )


# What must stand in leaderboard.json for two of them to be compared; there is more, for people and their scripts.


@dataclass(frozen=True)
class _DatasetHead:
    sample_list_sha256: str
    n: Count
    unit: str


@dataclass(frozen=True)
class _NetworkHead:
    weights_sha256: str


@dataclass(frozen=True)
class _TaskHead:
    protocol: ProtocolPart
    dataset: _DatasetHead
    classifiers: dict[str, _NetworkHead]


@dataclass(frozen=True)
class _Head:
    tasks: dict[str, _TaskHead]
    rows: tuple[Annotated[dict[str, Any], PlainJson()], ...]
    bootstrap: Annotated[dict[str, Any], PlainJson()]
    warnings: tuple[str, ...]


def read_leaderboard(path: Path) -> Leaderboard:
    """Read a leaderboard.json; its per-class table is empty.

    Raises:
        RecordError: If it is missing, damaged or no leaderboard.
    """
    return Leaderboard.from_json(read_json(path), origin=str(path))
