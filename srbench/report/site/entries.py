"""What the site shows of a folder: its leaderboard, how it was made, and the figures that lie there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from srbench.errors import RecordError, UnknownNameError, UsageError
from srbench.files.paths import user_path
from srbench.leaderboard import Leaderboard, read_leaderboard
from srbench.leaderboard.escapes import csv_text
from srbench.leaderboard.tables import groups
from srbench.records.cells import StoredCell, find_records, safe_name
from srbench.records.made import MADE_FILE, Made, made_by, read_made, without_threads
from srbench.records.schema import hash_inputs
from srbench.report.best import scored
from srbench.report.boards import board_of
from srbench.report.page import protocol_fields, task_facts
from srbench.report.page_table import Table, page_table

BOARD_FILE = "leaderboard.json"
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Task:
    """A task of a folder as it is shown: what it is, and its tables."""

    id: str
    anchor: str
    note: str
    facts: tuple[tuple[str, tuple[str, ...]], ...]
    protocol_fields: tuple[tuple[str, str], ...]
    fingerprint: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Entry:
    """A folder of results.

    Attributes:
        name: Its name.
        folder: Where it lies.
        board: Its leaderboard.
        made: How it was made.
        figures: SVG files that lie there, by a name that an address can hold.
        tasks: Its tasks with their tables.
        versions: Versions by library.
    """

    name: str
    folder: Path
    board: Leaderboard
    made: Made
    figures: Mapping[str, Path]
    tasks: tuple[Task, ...]
    versions: Mapping[str, list[str]]

    @property
    def slug(self) -> str:
        """Name of its folder in the site; it follows from the name alone, so links to it last."""
        return safe_name(self.name).replace("~", "-")

    @property
    def hardware(self) -> tuple[str, ...]:
        """Its devices without the number of threads."""
        return tuple(dict.fromkeys(map(without_threads, self.made.devices))) or (UNKNOWN,)

    @property
    def library(self) -> str:
        """Versions as one text."""
        return ", ".join(f"{name} {' and '.join(each)}" for name, each in self.versions.items() if each) or UNKNOWN


def read_entries(folders: Iterable[Path | str]) -> list[Entry]:
    """Read folders of results; order them by hardware, devices that are no CPU first, then by library, newest first.

    Raises:
        UsageError: If a folder is missing or holds no results, or two have one name.
        RecordError: If a file is damaged.
    """
    named: dict[str, Path] = {}
    for given in folders:
        for name, folder in _named(str(given)):
            if name in named:
                raise UsageError(
                    f"{named[name]} and {folder} are both called {name!r}; give one another name, as NAME={folder}"
                )
            named[name] = folder
    if not named:
        raise UsageError("there is no folder to make a site of; give directories that 'srbench eval --out' wrote")
    entries = sorted((_entry(name, folder) for name, folder in named.items()), key=lambda entry: entry.name)
    slugs: dict[str, str] = {}
    for entry in entries:
        if slugs.setdefault(entry.slug, entry.name) != entry.name:
            raise UsageError(f"{slugs[entry.slug]!r} and {entry.name!r} cannot be told apart in an address; rename one")
    entries.sort(key=lambda entry: _numbers(entry.library), reverse=True)
    return sorted(entries, key=lambda entry: (entry.hardware[0].startswith("cpu"), entry.hardware))


def _named(given: str) -> list[tuple[str, Path]]:
    """Return the folders of results that an argument names, with their names."""
    name, separator, rest = given.partition("=")
    folder = user_path(given)
    if separator and name and rest and not folder.is_dir():
        folder = user_path(rest)
    else:
        name = ""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; give a directory that 'srbench eval --out' wrote")
    if _holds_results(folder):
        return [(name or folder.resolve().name, folder)]
    inner = sorted(each for each in folder.iterdir() if each.is_dir() and _holds_results(each))
    if not inner:
        raise UsageError(
            f"{folder} holds neither records nor {BOARD_FILE}, nor do the folders in it; give a directory that"
            " 'srbench eval --out' wrote"
        )
    return [(f"{name}/{each.name}" if name else each.name, each) for each in inner]


def _holds_results(folder: Path) -> bool:
    return (folder / "records").is_dir() or (folder / BOARD_FILE).is_file()


def _entry(name: str, folder: Path) -> Entry:
    cells: Sequence[StoredCell] = ()
    if (folder / "records").is_dir():
        stored, problems = find_records([folder])
        board, cells = board_of(stored, problems, folder)
    else:
        board = read_leaderboard(folder / BOARD_FILE)
    try:
        made = _made(folder, board, cells)
        versions = {"torch": list(made.torch), "srbench": _own_versions(board)}
        tasks = tuple(_task(board, cells, task) for task in board.tasks)
        missing = {row.task for row in board.rows} - set(board.tasks)
    except (UnknownNameError, LookupError, TypeError, ValueError, AttributeError) as error:
        # Numbers are held against a layout when they are read; the rest of the file is somebody else's words.
        raise RecordError(
            f"{folder / BOARD_FILE} cannot be shown ({type(error).__name__}: {error}); make the leaderboard again"
        ) from None
    if missing:
        raise RecordError(f"{folder / BOARD_FILE} has rows of a task that it does not describe; make it again")
    return Entry(name, folder, board, made, _figures(folder), tasks, versions)


def _task(board: Leaderboard, cells: Sequence[StoredCell], name: str) -> Task:
    about = board.tasks[name]
    by_key = scored([cell for cell in cells if cell.record.cell.task == name])
    protocol = about["protocol"]
    return Task(
        id=name,
        anchor=_anchor("task", name),
        note=str(about["dataset"]["note"]),
        facts=task_facts(about),
        protocol_fields=protocol_fields(protocol["fields"]),
        fingerprint=str(protocol["fingerprint"]),
        tables=tuple(
            page_table(board, by_key, task, classifier, rows, _anchor("table", task, classifier))
            for task, classifier, rows in groups(board)
            if task == name
        ),
    )


def _anchor(kind: str, *parts: str | None) -> str:
    return f"{kind}-{hash_inputs({kind: list(parts)})[:12]}"


def _own_versions(board: Leaderboard) -> list[str]:
    codes = (task.get("code") for task in board.tasks.values())
    return sorted({str(code["version"]) for code in codes if code is not None})


def _made(folder: Path, board: Leaderboard, cells: Sequence[StoredCell]) -> Made:
    """Return what made.json says, else what the records say, else what the leaderboard does."""
    if (folder / MADE_FILE).is_file():
        return read_made(folder / MADE_FILE)
    if cells:
        return made_by([cell.record for cell in cells], "")
    devices = {str(device) for task in board.tasks.values() for device in task.get("devices", ())}
    return Made("", (), tuple(sorted(devices)), (), ())


def _figures(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in [*sorted(folder.glob("*.svg")), *sorted((folder / "figures").glob("*.svg"))]:
        if path.is_file() and not path.is_symlink():
            found.setdefault(re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "figure", path)
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each[:9]) for each in re.findall(r"\d+", text))


def sheet(boards: Sequence[tuple[str, Leaderboard]]) -> str:
    """Return the rows of leaderboards as CSV, the name of the folder first."""
    frame = pd.concat([board.frame.assign(results=name) for name, board in boards], ignore_index=True)
    frame.insert(0, "results", frame.pop("results"))
    return csv_text(frame)
