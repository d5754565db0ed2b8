"""Checks a stranger's entry without the data: its hashes, and whether its numbers follow from its samples."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Interval

from srbench.errors import RecordError, SrbenchError
from srbench.files.paths import user_path
from srbench.files.validate import PlainJson, validated
from srbench.leaderboard import Leaderboard, build, newest_cells
from srbench.records.cells import RECORD_FILE, SAMPLES_FILE, StoredCell, cell_folder, find_records
from srbench.records.schema import Record
from srbench.report.entry.zips import ENTRY_FILE, read_zip, sha256

TOLERANCE = 1e-9  # relative; sums in another order differ by less
MOST_NAMED = 20
MOST_SAMPLES, MOST_VALUES = 2_000_000, 100_000_000
ENTRY_VERSION = 1


@dataclass(frozen=True)
class Draws:
    """The bootstrap that a claim was made with; its size is bounded, since it is somebody else's number."""

    draws: Annotated[int, Interval(ge=1, le=20_000)]
    seed: Annotated[int, Interval(ge=0, le=2**31)]
    level: float


@dataclass(frozen=True)
class _Claim:
    bootstrap: Draws
    tasks: Annotated[dict[str, Any], PlainJson()]
    rows: tuple[Annotated[dict[str, Any], PlainJson()], ...]


@dataclass(frozen=True)
class _Entry:
    srbench_entry: int
    srbench: str
    claim: Annotated[dict[str, Any], PlainJson()]
    weights: tuple[Annotated[dict[str, Any], PlainJson()], ...]
    environments: tuple[Annotated[dict[str, Any], PlainJson()], ...]
    files: dict[str, str]


@dataclass(frozen=True)
class Checked:
    """What the check of an entry found.

    Attributes:
        board: The leaderboard that the samples give.
        cells: The cells; their folder is gone when `opened` has ended.
        problems: One sentence for each number or hash that is not what it says.
        unchecked: What the samples cannot tell.
    """

    board: Leaderboard
    cells: tuple[StoredCell, ...]
    problems: tuple[str, ...]
    unchecked: str = "times, parameters and memory are as the records say; samples cannot tell"


@contextmanager
def opened(path: Path | str) -> Iterator[Checked]:
    """Check an entry, and lend its cells in a temporary folder that is removed afterwards.

    Raises:
        RecordError: If it cannot be read as an entry: no zip of one, files missing, records that are none.
    """
    path = user_path(path)
    files = read_zip(path)
    if ENTRY_FILE not in files:
        raise RecordError(f"{path} holds no {ENTRY_FILE}, so it claims nothing; give the zip that 'srbench pack' wrote")
    entry = validated(_Entry, files.pop(ENTRY_FILE), origin=f"{path}: {ENTRY_FILE}", error=RecordError)
    if entry.srbench_entry != ENTRY_VERSION:
        raise RecordError(f"{path} is an entry of version {entry.srbench_entry}, this srbench reads {ENTRY_VERSION}")
    claim = validated(_Claim, entry.claim, origin=f"{path}: claim", error=RecordError, unknown="ignore")
    problems = [*_hashes(files, entry.files)]
    with tempfile.TemporaryDirectory(prefix="srbench-") as scratch:
        root = Path(scratch)
        for name, content in files.items():
            _check_content(path, name, content, files)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        if not files:
            raise RecordError(f"{path} holds no record; give the zip that 'srbench pack' wrote")
        cells, damaged = find_records([root])
        if damaged:
            raise RecordError(f"{path}: {damaged[0].replace(f'{root}/', '')}")
        try:
            board = build(cells, draws=claim.bootstrap.draws, seed=claim.bootstrap.seed)
            given = board.to_json()
        except SrbenchError as error:
            raise RecordError(f"{path}: {str(error).replace(f'{root}/', '')}") from None
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, pa.ArrowException) as error:
            raise RecordError(f"{path}: its records do not hold together ({type(error).__name__}: {error})") from None
        problems += _differences(entry.claim, given)
        problems += _own_metrics(newest_cells(cells)[0], board)
        yield Checked(board, tuple(cells), tuple(problems))


def _hashes(files: Mapping[str, bytes], claimed: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(set(files) | set(claimed)):
        if name not in files:
            yield f"{name[:200]} is named in {ENTRY_FILE}, but is not there"
        elif name not in claimed:
            yield f"{name} is there, but {ENTRY_FILE} does not name it"
        elif sha256(files[name]) != claimed[name]:
            yield f"{name} is not the file that was packed: its hash differs"


def _check_content(path: Path, name: str, content: bytes, files: Mapping[str, bytes]) -> None:
    """Refuse a record in another cell's place, and samples that are more than their record says."""
    folder, _, file = name.rpartition("/")
    record_name = f"{folder}/{RECORD_FILE}"
    if record_name not in files:
        raise RecordError(f"{path}: {name} has no record beside it")
    record = Record.from_json(files[record_name], origin=f"{path}: {record_name}")
    key = record.cell
    place = cell_folder("", key.task, key.classifier, key.method, key.weights, key.input_size)
    if place.as_posix() != folder:
        raise RecordError(f"{path}: {record_name} is the record of another cell, {place.as_posix()[:300]}")
    if file != SAMPLES_FILE:
        return
    try:
        about = pq.read_metadata(pa.BufferReader(content))
        rows, columns = about.num_rows, about.num_columns
        held = sum(about.row_group(place).num_rows for place in range(about.num_row_groups))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RecordError(f"{path}: {name} is damaged ({error})") from None
    if not rows == held == record.dataset.n or rows > MOST_SAMPLES or rows * columns > MOST_VALUES:
        raise RecordError(
            f"{path}: {name} says that it holds {rows} samples in {columns} columns, its record {record.dataset.n};"
            f" at most {MOST_SAMPLES} are read"
        )


# --- claimed against computed ----------------------------------------------------------------------------------------


def _differences(claimed: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Name what a claim says otherwise than the samples."""
    problems = [*_unequal("claim", _without_rows(claimed), _without_rows(given))]
    theirs, ours = _by_row(claimed["rows"]), _by_row(given["rows"])
    for name in dict.fromkeys([*theirs, *ours]):
        if name not in ours:
            problems.append(f"{name}: the claim has this row, the samples do not give it")
        elif name not in theirs:
            problems.append(f"{name}: the samples give this row, the claim leaves it out")
        else:
            problems += _unequal(name, theirs[name], ours[name])
    return problems


def _without_rows(board: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in board.items() if name not in ("rows", "warnings")}


def _by_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    named = {}
    for row in rows:
        weights = f" ({row.get('weights')})" if row.get("weights") else ""
        network = f" with {row.get('classifier')}" if row.get("classifier") else ""
        named[f"{row.get('method')}{weights}{network} on {row.get('task')}, {row.get('track')}"[:300]] = row
    return named


def _unequal(where: str, claimed: Any, given: Any) -> Iterator[str]:
    if isinstance(claimed, Mapping) and isinstance(given, Mapping):
        for name in dict.fromkeys([*claimed, *given]):
            # what one of the two lacks, and the other leaves empty, is a column that one srbench does not know
            yield from _unequal(
                f"{where}: {name}" if ":" not in where else f"{where}.{name}", claimed.get(name), given.get(name)
            )
    elif isinstance(claimed, list | tuple) and isinstance(given, list | tuple) and len(claimed) == len(given):
        for place, (theirs, ours) in enumerate(zip(claimed, given, strict=True)):
            yield from _unequal(f"{where}[{place}]", theirs, ours)
    elif not _equal(claimed, given):
        yield f"{where}: claimed {str(claimed)[:80]}, the samples give {str(given)[:80]}"


def _equal(claimed: Any, given: Any) -> bool:
    numbers = [each for each in (claimed, given) if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=TOLERANCE, abs_tol=1e-12)
    return bool(claimed == given)


def _own_metrics(cells: Sequence[StoredCell], board: Leaderboard) -> list[str]:
    """Hold the numbers that each record states of itself against its samples."""
    rows = {row.key: row for row in board.rows if not row.seeds}
    problems = []
    for cell in cells:
        key = cell.record.cell
        row = rows.get((key.task, key.method, key.weights, key.classifier, key.track))
        if row is None or key.input_size is not None:
            continue
        for name, stated in cell.record.metrics.items():
            found = row.values.get(name)
            if found is not None and not _equal(stated.value, found):
                problems.append(
                    f"the record of {row.label} on {row.task}: {name} {stated.value}, the samples give {found}"
                )
    return problems
