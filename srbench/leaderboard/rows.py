"""A row of the leaderboard: which cell it is, and its numbers by the name of the metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from srbench.errors import RecordError
from srbench.files.validate import Count, NotNegative, Number, validated
from srbench.metrics.catalogue import all_metrics, metric, metric_names
from srbench.records.schema import NO_WEIGHTS, ORACLE, Anything, Record
from srbench.task_types import Interval

# task, method, weights, classifier, track
TRAINED_ON = "trained_on"  # among a row's notes: on how many of the samples its weights were trained
RowKey = tuple[str, str, str | None, str | None, str]


@dataclass(frozen=True)
class Seed:
    """One of the trainings of a row that stands for several seeds.

    Attributes:
        weights: Label of its weights.
        seed: Its seed.
        values: Name of a metric -> its value.
    """

    weights: str
    seed: int
    values: Mapping[str, Annotated[float, Number()]]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json."""
        values = {name: "inf" if value == math.inf else value for name, value in self.values.items()}
        return {"weights": self.weights, "seed": self.seed, "values": values}


@dataclass(frozen=True)
class Row:
    """One cell as it stands in the table, or the cells of weights that differ in seed alone.

    `row["accuracy"]` is the value of a metric of `srbench.metrics.catalogue`, None where it does not apply.

    Attributes:
        task: Id of the task.
        method: Name of the method, and of the runtime where an exported file was scored ("darionet[onnx]"); "original"
            is the oracle.
        weights: Label of its weights.
        classifier: Id of the network behind (the frozen base in the adapted track).
        track: "frozen" or "adapted".
        role: "baseline", "network", "control", "precomputed" or "oracle".
        status: "ok", "skipped" or "error".
        reason: Why it is not ok.
        partial: Whether `--limit` cut the samples.
        rank: Place by what ranks its task type (accuracy, agreement without labels; SRCC), or by PSNR without a
            network, in its task, network and track; ties share one. None for the oracle, controls, partial and
            failed rows.
        n: Samples; 0 where it is not ok.
        rank_interval: First and last place of the middle 95 % of the paired draws; None without a rank.
        tied: Whether the samples cannot tell it from the best row of its track, or it is the best and another row is
            tied with it: the simultaneous interval of the difference holds 0.
        seeds: Trainings that it stands for, by seed; empty for a single cell.
        representative: Of several seeds: label of the weights whose value is the median, and whose samples are shown
            where single decisions are.
        values: Name of a metric -> its value; a metric that does not apply is not in it.
        ci: Name of a metric -> (low, high), its 95 % paired bootstrap interval.
        notes: Name of a value that is missing -> why; "ci.NAME" for an interval; "exact.NAME" says of an image metric
            with a cap how many images are exact; "trained_on" says on how many samples the weights were trained.
        accuracy_by_size: Input size in pixels -> accuracy there, the protocol's own among them; empty without a sweep.
            Its intervals are in `ci` as "accuracy_by_size.SIZE".
        p_by_size: Input size -> exact McNemar p of that accuracy against the one at the protocol's own size.
        best_input_sizes: The size that is best on each half of the samples, the protocol's own unless another is
            clearly better; it scores the other half. Of several seeds two a seed.
        runtime: What ran it as an exported file, such as "onnx-int8"; None is torch.
        restoring_mb: Size of the method's part of that file, 10^6 bytes.
        calibration: The images that an int8 file was calibrated on: "spec", "split" and "images".
    """

    task: str
    method: str
    weights: str | None
    classifier: str | None
    track: str
    role: str
    status: str
    reason: str | None
    partial: bool
    rank: int | None = None
    n: Count = 0
    rank_interval: tuple[Count, Count] | None = None
    tied: bool = False
    seeds: tuple[Seed, ...] = ()
    representative: str | None = None
    values: Mapping[str, Annotated[float, Number()]] = field(default_factory=dict)
    ci: Mapping[str, Interval] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    accuracy_by_size: Mapping[str, float] = field(default_factory=dict)
    p_by_size: Mapping[str, float] = field(default_factory=dict)
    best_input_sizes: tuple[Count, ...] = ()
    runtime: str | None = None
    restoring_mb: NotNegative | None = None
    calibration: Anything | None = None

    def __getitem__(self, name: str) -> float | None:
        """Return the value of a metric, None where it does not apply.

        Raises:
            UnknownNameError: If no metric has this name.
        """
        return self.values.get(metric(name).name)

    @property
    def key(self) -> RowKey:
        """What identifies a row: task, method, weights, classifier, track."""
        return self.task, self.method, self.weights, self.classifier, self.track

    @property
    def cell_key(self) -> RowKey:
        """The key of the cell whose samples stand for it: its own, or that of the representative seed."""
        return self.task, self.method, self.representative or self.weights, self.classifier, self.track

    @property
    def label(self) -> str:
        """Method and weights as a person reads them: "esrgan (demo-x4)"."""
        return f"{self.method} ({self.weights})" if self.weights else self.method

    @property
    def competes(self) -> bool:
        """Whether it is ranked and belongs to the family of its track's tests."""
        return self.status == "ok" and not self.partial and self.role not in ("control", "oracle")

    @property
    def lacks_weights(self) -> bool:
        """Whether it was skipped because no weights fit the task."""
        return self.status == "skipped" and (self.reason or "").startswith(NO_WEIGHTS)

    def flat(self) -> dict[str, Any]:
        """Return identity, place and the value of every metric of the catalogue by name, all at one level."""
        low, high = self.rank_interval or (None, None)
        place = {"rank_low": low, "rank_high": high, "tied": self.tied}
        values = {name: self.values.get(name) for name in metric_names()}
        return {name: getattr(self, name) for name in IDENTITY} | place | values

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json; an infinite value becomes the string "inf"."""
        values = {name: self.values.get(name) for name in metric_names()}
        entry = {name: getattr(self, name) for name in IDENTITY}
        entry["rank_interval"] = None if self.rank_interval is None else list(self.rank_interval)
        entry["tied"] = self.tied
        if self.seeds:
            entry["seeds"] = [seed.to_json() for seed in self.seeds]
            entry["representative"] = self.representative
        entry |= {name: "inf" if value == math.inf else value for name, value in values.items()}
        entry |= {"ci": {name: list(ends) for name, ends in self.ci.items()}, "notes": dict(self.notes)}
        if self.accuracy_by_size:
            entry |= {"accuracy_by_size": dict(self.accuracy_by_size), "p_by_size": dict(self.p_by_size)}
            entry["best_input_sizes"] = list(self.best_input_sizes)
        if self.runtime is not None:
            entry |= {name: getattr(self, name) for name in FILE}
        return entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], *, origin: str) -> Row:
        """Read an entry of leaderboard.json; metrics that this srbench does not know are left out.

        Raises:
            RecordError: If a field is missing or of another type; `origin` begins the sentence.
        """
        known = (*IDENTITY, "tied", "rank_interval", "seeds", "representative", "ci", "notes", *BY_SIZE, *FILE)
        raw = {name: entry[name] for name in known if name in entry}
        raw["values"] = {name: entry[name] for name in metric_names() if entry.get(name) is not None}
        return validated(cls, raw, origin=origin, error=RecordError, remedy="; make the leaderboard again")


FILE = ("runtime", "restoring_mb", "calibration")
BY_SIZE = ("accuracy_by_size", "p_by_size", "best_input_sizes")
IDENTITY = ("task", "method", "weights", "classifier", "track", "role", "status", "reason", "partial", "rank", "n")


def interval_names() -> tuple[str, ...]:
    """Return the names of the metrics that can have an interval."""
    return tuple(row.name for row in all_metrics() if row.interval is not None)


def _total_macs(record: Record) -> float | None:
    """Return what the method and the network behind take for one image; the original takes the network alone."""
    behind = record.classifier.macs if record.classifier is not None else None
    restoring = 0.0 if record.cell.method == ORACLE else record.method.macs
    return None if behind is None or restoring is None else restoring + behind


def bare_row(record: Record) -> Row:
    """Return the row of a record without its samples: what it is, and what it cost."""
    timing = record.timing
    costs = {
        "total_time_s": timing.total_time_s,
        "latency_ms": timing.latency_ms.median if timing.latency_ms else None,
        "latency_p10_ms": timing.latency_ms.p10 if timing.latency_ms else None,
        "latency_p90_ms": timing.latency_ms.p90 if timing.latency_ms else None,
        "images_per_s": timing.throughput.median if timing.throughput else None,
        "parameters": record.method.n_parameters,
        "macs": record.method.macs,
        "total_macs": _total_macs(record),
        "peak_memory_mb": timing.peak_memory_mb,
    }
    return Row(
        task=record.cell.task,
        method=record.cell.name,
        weights=record.cell.weights,
        classifier=record.cell.classifier,
        track=record.cell.track,
        role="oracle" if record.cell.method == ORACLE else record.method.role,
        status=record.status,
        reason=record.reason,
        partial=record.partial,
        n=record.dataset.n if record.status == "ok" else 0,
        values={name: value for name, value in costs.items() if value is not None},
        notes={TRAINED_ON: str(record.method.trained_on)} if record.method.trained_on else {},
        runtime=record.cell.runtime,
        restoring_mb=record.runtime.restoring_mb if record.runtime is not None else None,
        calibration=record.runtime.calibration if record.runtime is not None else None,
    )
