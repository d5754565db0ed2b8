"""The leaderboard: from the samples of many cells to rows with paired intervals, p values and ranks.

Everything is computed from the samples, never from another row's rounded numbers. Cells of one task and classifier
are aligned by sample id and resampled with the same draws, so every difference is paired. Nothing is rounded here.

PSNR follows the protocol. Where it is one value per pooled batch, its interval resamples the batches (a cluster
bootstrap) and is left out below five of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench import protocol
from srbench.compute.process import give_back_freed_memory
from srbench.errors import IncomparableError, RecordError
from srbench.files.strict import read_json
from srbench.metrics import psnr_pooled
from srbench.metrics.stats import BOOTSTRAP_DRAWS, LEVEL, bootstrap_means
from srbench.records.cells import StoredCell
from srbench.records.schema import BASELINE, ORACLE, Record
from srbench.task_types import CellSamples, Column, Interval, PairedCells, TaskType, mean_of, put_interval, task_type
from srbench.task_types.classification import PER_CLASS_COLUMNS

SCHEMA_VERSION = 1
MINIMUM_BATCHES = 5

CI_NAMES = (
    "accuracy",
    "accuracy_delta",
    "cross_entropy",
    "psnr",
    "ssim",
    "recovered_gap",
    "f1_macro",
    "f1_macro_delta",
    "auc",
    "srcc",
    "srcc_delta",
    "plcc",
    "emd",
)
_IMAGE_COLUMNS = ("mse", "psnr", "ssim")
_MANY = 2**14  # samples of a cell from which on it is worth the time to give back what reading it has left free

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One cell as it stands in the table; None where a value does not apply.

    Attributes:
        task: Id of the task.
        method: Name of the method; "original" is the oracle.
        weights: Label of its weights.
        classifier: Id of the classifier (the frozen base in the adapted track).
        track: "frozen" or "adapted".
        role: "baseline", "network", "control" or "oracle".
        status: "ok", "skipped" or "error".
        reason: Why it is not ok.
        partial: Whether `--limit` cut the samples.
        rank: Place by what ranks its kind of task (accuracy, agreement without labels; SRCC), or by PSNR without a
            classifier, in its task, classifier and track; ties share one. None for the oracle, controls, partial and
            failed rows.
        n: Samples; 0 where it is not ok.
        accuracy: Top-1 accuracy, [0, 1].
        accuracy_delta: Accuracy minus that of frozen bilinear.
        p_holm: Exact McNemar p against frozen bilinear, Holm-corrected over the ranked rows of the track.
        top5: Top-5 accuracy.
        auc: Micro-averaged area under the ROC curve of one class against the rest.
        cross_entropy: Mean, nats.
        psnr: dB, as the protocol reduces it; infinite for the oracle.
        ssim: Mean.
        agreement: Share of samples whose prediction is the one on HR.
        recovered_gap: (accuracy - bilinear) / (original - bilinear).
        f1_macro: Mean F1 of the classes present.
        f1_macro_delta: Its difference to frozen bilinear.
        ece: Expected calibration error, 15 bins.
        logit_mse_to_hr: Mean squared difference of the logits to those on HR.
        kl_to_hr: Mean KL divergence from the prediction on HR, nats.
        srcc: Of image quality: Spearman's correlation of mean score and mean rating.
        srcc_delta: Its difference to frozen bilinear.
        plcc: Pearson's correlation of the two.
        emd: Mean earth mover's distance of the distribution of scores to that of the ratings.
        total_time_s: Seconds of restoring and classifying, with the share of decoding.
        latency_ms: Median of restoring one image at batch 1, ms.
        images_per_s: Median throughput of restoring.
        parameters: Number of parameters.
        macs: Multiply-accumulates an image.
        peak_memory_mb: Peak memory, 10^6 bytes.
        ci: Name -> [low, high], 95 % paired bootstrap intervals of those of `CI_NAMES` that have one.
        notes: Name of a value that is None (or an interval that is left out) -> why.
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
    n: int = 0
    accuracy: float | None = None
    accuracy_delta: float | None = None
    p_holm: float | None = None
    top5: float | None = None
    auc: float | None = None
    cross_entropy: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    agreement: float | None = None
    recovered_gap: float | None = None
    f1_macro: float | None = None
    f1_macro_delta: float | None = None
    ece: float | None = None
    logit_mse_to_hr: float | None = None
    kl_to_hr: float | None = None
    srcc: float | None = None
    srcc_delta: float | None = None
    plcc: float | None = None
    emd: float | None = None
    total_time_s: float | None = None
    latency_ms: float | None = None
    images_per_s: float | None = None
    parameters: int | None = None
    macs: float | None = None
    peak_memory_mb: float | None = None
    ci: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str | None, str | None, str]:
        """What identifies a row: task, method, weights, classifier, track."""
        return self.task, self.method, self.weights, self.classifier, self.track

    @property
    def label(self) -> str:
        """Method and weights as a person reads them: "esrgan (demo-x4)"."""
        return f"{self.method} ({self.weights})" if self.weights else self.method


@dataclass(frozen=True)
class Leaderboard:
    """The table of a set of records.

    Attributes:
        tasks: Task id -> protocol, dataset, classifiers, devices.
        rows: The rows in the order in which they are shown.
        per_class: One row a class and cell, columns `PER_CLASS_COLUMNS`; empty where it was read from a JSON file.
        bootstrap: draws, seed and level of the intervals.
        warnings: What a reader must know: damaged records, repeated cells.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    rows: tuple[Row, ...]
    per_class: pd.DataFrame
    bootstrap: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """One line a row, every column of the table, intervals as <name>_low and <name>_high."""
        names = [item.name for item in dataclasses.fields(Row) if item.name not in ("ci", "notes")]
        lines = []
        for row in self.rows:
            line: dict[str, Any] = {name: getattr(row, name) for name in names}
            for name in CI_NAMES:
                line[f"{name}_low"], line[f"{name}_high"] = row.ci.get(name, (None, None))
            line["notes"] = "; ".join(f"{name}: {why}" for name, why in row.notes.items()) or None
            lines.append(line)
        columns = [*names, *(f"{name}_{end}" for name in CI_NAMES for end in ("low", "high")), "notes"]
        return pd.DataFrame(lines, columns=columns)

    def of_tasks(self, names: Collection[str]) -> Leaderboard:
        """Return the part of the leaderboard that belongs to the tasks of these ids."""
        return dataclasses.replace(
            self,
            tasks={name: task for name, task in self.tasks.items() if name in names},
            rows=tuple(row for row in self.rows if row.task in names),
            per_class=self.per_class[self.per_class["task"].isin(list(names))],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of leaderboard.json; an infinite PSNR becomes the string "inf"."""
        rows = []
        for row in self.rows:
            entry = {item.name: getattr(row, item.name) for item in dataclasses.fields(Row)}
            if row.psnr is not None and math.isinf(row.psnr):
                entry["psnr"] = "inf"
            entry["ci"] = {name: list(ends) for name, ends in row.ci.items()}
            entry["notes"] = dict(row.notes)
            rows.append(entry)
        return {
            "schema_version": SCHEMA_VERSION,
            "bootstrap": dict(self.bootstrap),
            "warnings": list(self.warnings),
            "tasks": {name: dict(task) for name, task in self.tasks.items()},
            "rows": rows,
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
        try:
            rows = tuple(_row_from_json(entry) for entry in raw["rows"])
            for task in raw["tasks"].values():
                _ = task["protocol"]["fingerprint"], task["protocol"]["fields"], task["classifiers"].keys()
                _ = task["dataset"]["sample_list_sha256"], task["dataset"]["n"], task["dataset"]["unit"]
            return cls(
                tasks=raw["tasks"],
                rows=rows,
                per_class=pd.DataFrame(columns=list(PER_CLASS_COLUMNS)),
                bootstrap=raw["bootstrap"],
                warnings=tuple(raw["warnings"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RecordError(f"{origin} is not a leaderboard: {type(error).__name__} {error}; make it again") from None


def read_leaderboard(path: Path) -> Leaderboard:
    """Read a leaderboard.json; its per-class table is empty.

    Raises:
        RecordError: If it is missing, damaged or no leaderboard.
    """
    return Leaderboard.from_json(read_json(path), origin=str(path))


def build(
    cells: Iterable[StoredCell],
    *,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    warnings: Sequence[str] = (),
) -> Leaderboard:
    """Compute the leaderboard of stored cells.

    Args:
        cells: Cells of any number of tasks and classifiers; each task is a table of its own.
        draws: Bootstrap draws.
        seed: Seed of the draws.
        warnings: Sentences to carry along (what `find_records` could not read).

    Raises:
        IncomparableError: If two full cells of one task differ in protocol, samples or classifier; the message names
            the field.
        RecordError: If samples cannot be read.
    """
    kept, repeated = newest_cells(cells)
    tasks: dict[str, Mapping[str, Any]] = {}
    rows: list[Row] = []
    tables: list[pd.DataFrame] = []
    for task in sorted({cell.record.cell.task for cell in kept}):
        ours = [cell for cell in kept if cell.record.cell.task == task]
        kind = task_type(ours[0].record.dataset.kind)
        _check_comparable(task, ours)
        tasks[task] = _describe(ours)
        for classifier in sorted(
            {cell.record.cell.classifier for cell in ours}, key=lambda name: (name is None, name or "")
        ):
            group = [cell for cell in ours if cell.record.cell.classifier == classifier]
            found, classes = _group_rows(group, draws=draws, seed=seed)
            rows += _ordered(found, kind)
            tables += classes
    return Leaderboard(
        tasks=tasks,
        rows=tuple(rows),
        per_class=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(PER_CLASS_COLUMNS)),
        bootstrap={"draws": draws, "seed": seed, "level": LEVEL},
        warnings=(*warnings, *repeated),
    )


# --- which cells may stand together ------------------------------------------------------------------------------


def newest_cells(cells: Iterable[StoredCell]) -> tuple[list[StoredCell], list[str]]:
    """Keep the newest of cells that several folders hold; say so where their inputs differ."""
    kept: dict[Any, StoredCell] = {}
    said = []
    for cell in cells:
        other = kept.setdefault(cell.record.cell, cell)
        if other is cell:
            continue
        # An ok cell is not displaced by a later failure elsewhere.
        first, second = sorted((other, cell), key=lambda each: (each.record.status == "ok", each.record.created))
        kept[cell.record.cell] = second
        if first.record.input_hash != second.record.input_hash:
            said.append(
                f"{second.record.cell.method} of task {second.record.cell.task} is stored twice with other inputs;"
                f" the newer in {second.folder} is used, {first.folder} is not"
            )
    return list(kept.values()), said


def _check_comparable(task: str, cells: Sequence[StoredCell]) -> None:
    """Refuse full cells of one task that were not made under the same conditions."""
    full = [cell.record for cell in cells if cell.record.status == "ok" and not cell.record.partial]
    full.sort(key=lambda record: record.created, reverse=True)
    for record in full[1:]:
        differs = _differences(record, full[0])
        if differs:
            raise _incomparable(task, record, full[0], "; ".join(differs))
    newest: dict[str, Record] = {}
    for record in full:
        if record.classifier is None or record.cell.track != "frozen":
            continue
        other = newest.setdefault(record.classifier.id, record)
        assert other.classifier is not None
        for name in ("weights_sha256", "input_size", "mean", "std"):
            ours, theirs = getattr(record.classifier, name), getattr(other.classifier, name)
            if ours != theirs:
                where = f"classifier {record.classifier.id}, {name}: {ours} against {theirs}"
                raise _incomparable(task, record, other, where)


def _incomparable(task: str, older: Record, newer: Record, where: str) -> IncomparableError:
    return IncomparableError(
        f"task {task!r}: {older.cell.method!r} cannot be ranked with the newer {newer.cell.method!r},"
        f" they differ in {where}; run {older.cell.method!r} again, or keep them in separate --out folders"
    )


def _differences(first: Record, other: Record) -> list[str]:
    lines = []
    if first.protocol.fingerprint != other.protocol.fingerprint:
        lines = protocol.difference(first.protocol.fields, other.protocol.fields) or ["protocol fingerprint"]
    for name in ("sample_list_sha256", "n"):
        ours, theirs = getattr(first.dataset, name), getattr(other.dataset, name)
        if ours != theirs:
            lines.append(f"dataset.{name}: {ours} against {theirs}")
    return lines


def _pool_key(record: Record) -> tuple[Any, ...]:
    """Cells that share it are resampled together; full cells of a task share one, partial ones may not."""
    return record.partial, record.protocol.fingerprint, record.dataset.sample_list_sha256, record.dataset.n


def _describe(cells: Sequence[StoredCell]) -> dict[str, Any]:
    """Return what stands above a task's tables."""
    ranked = sorted(cells, key=lambda cell: (cell.record.status != "ok", cell.record.partial))
    record = ranked[0].record
    dataset = dataclasses.asdict(record.dataset)
    dataset["unreadable"] = list(record.dataset.unreadable)
    dataset["n_classes"] = None if record.dataset.classes is None else len(record.dataset.classes)
    del dataset["classes"]
    classifiers: dict[str, Any] = {}
    for cell in ranked:
        part = cell.record.classifier
        if part is not None and part.id not in classifiers and cell.record.cell.track == "frozen":
            entry = dataclasses.asdict(part)
            del entry["track"]
            classifiers[part.id] = {**entry, "mean": list(part.mean), "std": list(part.std)}
    return {
        "protocol": dataclasses.asdict(record.protocol),
        "dataset": dataset,
        "classifiers": classifiers,
        "devices": sorted({cell.record.environment.device for cell in cells}),
        "code": dataclasses.asdict(record.code),
    }


# --- the numbers -------------------------------------------------------------------------------------------------


def _group_rows(cells: Sequence[StoredCell], *, draws: int, seed: int) -> tuple[list[Row], list[pd.DataFrame]]:
    """Rows and per-class tables of one task and classifier."""
    rows = [_bare_row(cell.record) for cell in cells if cell.record.status != "ok"]
    tables: list[pd.DataFrame] = []
    pools: dict[Any, list[StoredCell]] = {}
    for cell in cells:
        if cell.record.status == "ok":
            pools.setdefault(_pool_key(cell.record), []).append(cell)
    for pool in pools.values():
        found, classes = _pool_rows(pool, draws=draws, seed=seed)
        rows += found
        tables += classes
    return rows, tables


def _aligned(cells: Sequence[StoredCell], kind: TaskType) -> Iterator[CellSamples]:
    """Read the samples of a pool in one common order, one cell at a time."""
    ids: pd.Series | None = None
    known: NDArray[Any] | None = None
    wanted = dict.fromkeys(("sample_id", *_IMAGE_COLUMNS, *kind.sample_columns))
    for cell in cells:
        frame = cell.samples([*wanted, *(cell.score_columns() if kind.reads_scores else ())])
        own = frame.pop("sample_id")
        if ids is None:
            ids = own
        elif not own.equals(ids):
            index = pd.Index(own)
            order = index.get_indexer(pd.Index(ids)) if index.is_unique and len(own) == len(ids) else np.array([-1])
            if (order < 0).any():
                lone = sorted(set(own) ^ set(ids)) or ["a sample that occurs twice"]
                raise IncomparableError(
                    f"the samples of {cells[0].folder} and {cell.folder} cannot be paired:"
                    f" {lone[0]!r} is not once in both; run the older one again with --force"
                )
            frame = frame.iloc[order].reset_index(drop=True)
        pooled = kind.pooled(cell.record, frame, competes=_competes(_bare_row(cell.record)))
        del frame, own  # not in memory beside the next one
        truth = kind.truth(pooled)
        if known is None:
            known = truth
        elif truth is not None and not np.array_equal(known, truth):
            raise IncomparableError(
                f"the labels below {cells[0].folder.parent} differ between methods; run with --force"
            )
        yield pooled


def _bare_row(record: Record) -> Row:
    """The row of a record without its samples."""
    timing = record.timing
    ok = record.status == "ok"
    return Row(
        task=record.cell.task,
        method=record.cell.method,
        weights=record.cell.weights,
        classifier=record.cell.classifier,
        track=record.cell.track,
        role="oracle" if record.cell.method == ORACLE else record.method.role,
        status=record.status,
        reason=record.reason,
        partial=record.partial,
        n=record.dataset.n if ok else 0,
        total_time_s=timing.total_time_s,
        latency_ms=timing.latency_ms.median if timing.latency_ms else None,
        images_per_s=timing.throughput.median if timing.throughput else None,
        parameters=record.method.n_parameters,
        macs=record.method.macs,
        peak_memory_mb=timing.peak_memory_mb,
    )


@dataclass(frozen=True)
class _Alone:
    """A cell with what it says by itself, and those of its columns that the other cells are held against."""

    cell: CellSamples
    point: Mapping[str, float | None]
    row: Row


def _alone(cell: CellSamples, kind: TaskType, *, draws: int, seed: int) -> _Alone:
    point = {**kind.point(cell), "ssim": mean_of(cell.floats["ssim"])}
    row = _point_row(cell, point, kind)
    if _pools_batches(row, cell):
        row = _with_batch_interval(row, cell, draws=draws, seed=seed)
    # The columns of all cells stay in memory together from here on, so only those that are paired do.
    return _Alone(cell.only({*kind.resampled, *kind.compared}), point, row)


def _pool_rows(cells: Sequence[StoredCell], *, draws: int, seed: int) -> tuple[list[Row], list[pd.DataFrame]]:
    """Rows and per-class tables of cells whose samples are the same."""
    kind = task_type(cells[0].record.dataset.kind)
    many = cells[0].record.dataset.n > _MANY
    alone = []
    for cell in _aligned(cells, kind):
        alone.append(_alone(cell, kind, draws=draws, seed=seed))
        if many:
            give_back_freed_memory()
    pool, rows = [each.cell for each in alone], [each.row for each in alone]
    resampled = _resampled(pool, kind, draws=draws, seed=seed)
    if many:
        give_back_freed_memory()
    found = kind.compare(
        PairedCells(
            cells=pool,
            points=[each.point for each in alone],
            oracle=_reference(rows, ORACLE),
            reference=_reference(rows, BASELINE),
            resampled=resampled,
            draws=draws,
            seed=seed,
        )
    )
    done = []
    for at, row in enumerate(rows):
        ci: dict[str, Interval] = {}
        for name in CI_NAMES:
            if (at, name) in resampled:
                put_interval(ci, name, resampled[at, name], LEVEL)
        ci |= {**row.ci, **found.ci[at]}
        notes = {**row.notes, **found.notes[at]}
        done.append(dataclasses.replace(row, ci=ci, notes=notes, **found.values[at]))
    return done, found.tables


def _reference(rows: Sequence[Row], method: str) -> int | None:
    """Place of a frozen method, which both tracks refer to, or None."""
    return next((at for at, row in enumerate(rows) if row.method == method and row.track == "frozen"), None)


def _point_row(cell: CellSamples, point: Mapping[str, float | None], kind: TaskType) -> Row:
    """The row of a cell with its own numbers, no differences."""
    row = dataclasses.replace(_bare_row(cell.record), **point)  # type: ignore[arg-type]
    psnr, why = _psnr(cell)
    notes = {} if why is None else {"psnr": why}
    for name in kind.noted:
        if getattr(row, name) is None:
            notes[name] = _why_null(cell.record, name)
    return dataclasses.replace(row, psnr=psnr, notes=notes)


def _why_null(record: Record, name: str) -> str:
    metric = record.metrics.get(name)
    if metric is not None and metric.reason:
        return metric.reason
    return "there is no classifier" if record.classifier is None and name != "ssim" else "does not apply here"


def _psnr(cell: CellSamples) -> tuple[float | None, str | None]:
    """PSNR as the protocol reduces it, or None and why."""
    record, mse = cell.record, cell.floats["mse"]
    score = record.protocol.fields.get("score", {})
    if score.get("psnr_reduction") != "batch":
        value = mean_of(cell.floats["psnr"])
        return value, None if value is not None else _why_null(record, "psnr")
    if np.isnan(mse).any():
        return None, _why_null(record, "psnr")
    size = int(score["psnr_batch"])
    if len(mse) < size:
        return None, f"the protocol pools {size} images, there are {len(mse)}"
    return psnr_pooled(mse, size).value, None


def _pools_batches(row: Row, cell: CellSamples) -> bool:
    score = cell.record.protocol.fields.get("score", {})
    return row.psnr is not None and math.isfinite(row.psnr) and score.get("psnr_reduction") == "batch"


def _with_batch_interval(row: Row, cell: CellSamples, *, draws: int, seed: int) -> Row:
    """Add the interval of a batch-pooled PSNR, resampling whole batches, or the reason why there is none."""
    mse = cell.floats["mse"]
    size = int(cell.record.protocol.fields["score"]["psnr_batch"])
    batches = len(mse) // size
    if batches < MINIMUM_BATCHES:
        why = f"an interval over pooled batches needs at least {MINIMUM_BATCHES} of them, there are {batches}"
        return dataclasses.replace(row, notes={**row.notes, "ci.psnr": why})
    each = np.array([psnr_pooled(mse[at * size : (at + 1) * size], size).value for at in range(batches)])
    ci = dict(row.ci)
    put_interval(ci, "psnr", bootstrap_means(each[:, None], draws=draws, seed=seed)[:, 0], LEVEL)
    return dataclasses.replace(row, ci=ci)


def _resampled(pool: Sequence[CellSamples], kind: TaskType, *, draws: int, seed: int) -> dict[tuple[int, str], Floats]:
    """Bootstrap draws of the means, by (place in the pool, name); one set of draws for all."""
    named: list[tuple[tuple[int, str], Column]] = []
    for at, cell in enumerate(pool):
        batches = cell.record.protocol.fields.get("score", {}).get("psnr_reduction") == "batch"
        for name in kind.resampled:
            values = cell.floats.get(name)
            if values is not None and np.isfinite(values).any() and not (name == "psnr" and batches):
                named.append(((at, name), values))
    if not named:
        return {}
    means = bootstrap_means([values for _, values in named], draws=draws, seed=seed)
    return {key: means[:, column] for column, (key, _) in enumerate(named)}


def _competes(row: Row) -> bool:
    """Whether a row is ranked and belongs to the Holm family."""
    return row.status == "ok" and not row.partial and row.role not in ("control", "oracle")


# --- order and ranks ---------------------------------------------------------------------------------------------


def _ordered(rows: Sequence[Row], kind: TaskType) -> list[Row]:
    """Rows of one task and classifier as they are shown, with their ranks."""
    ranked = _ranked(rows, kind)

    def place(row: Row) -> tuple[Any, ...]:
        score = _score(row, kind)
        group = {"oracle": 0, "control": 1}.get(row.role, 2)
        return (
            row.status != "ok",
            row.track != "frozen",
            group,
            row.partial,
            math.inf if score is None else -score,
            row.label,
        )

    return sorted(ranked, key=place)


def _score(row: Row, kind: TaskType) -> float | None:
    """What ranks a row: what its kind of task is ranked by, or PSNR without a classifier."""
    if row.classifier is None:
        return row.psnr
    return kind.score({name: getattr(row, name) for name in kind.ranks})


def _ranked(rows: Sequence[Row], kind: TaskType) -> list[Row]:
    done = []
    for row in rows:
        score = _score(row, kind)
        rank = None
        if _competes(row) and score is not None:
            rivals = [_score(other, kind) for other in rows if _competes(other) and other.track == row.track]
            rank = 1 + sum(rival is not None and rival > score for rival in rivals)
        done.append(dataclasses.replace(row, rank=rank))
    return done


def _row_from_json(entry: Mapping[str, Any]) -> Row:
    names = {item.name for item in dataclasses.fields(Row)}
    known = {name: value for name, value in entry.items() if name in names}
    known["ci"] = {name: (float(ends[0]), float(ends[1])) for name, ends in entry["ci"].items()}
    if entry["psnr"] == "inf":
        known["psnr"] = math.inf
    return Row(**known)
