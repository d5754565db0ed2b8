"""How a folder of results was made: made.json, which is committed where records are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srbench.errors import RecordError
from srbench.files.strict import read_json
from srbench.files.validate import validated
from srbench.records.schema import Record

MADE_FILE = "made.json"


@dataclass(frozen=True)
class Made:
    """How results were made.

    Attributes:
        command: The command, or "" where it is not known.
        commits: Commits of the code, "(changed)" behind one with changes.
        devices: Devices with the threads of a process.
        torch: Versions of torch.
        dates: Days in UTC as "2026-01-31".
    """

    command: str
    commits: tuple[str, ...]
    devices: tuple[str, ...]
    torch: tuple[str, ...]
    dates: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content of made.json."""
        return {name: value if isinstance(value, str) else list(value) for name, value in vars(self).items()}


def made_by(records: Iterable[Record], command: str) -> Made:
    """Return command, commits, devices and days of records."""
    records = list(records)
    return Made(
        command,
        _sorted(f"{each.code.commit}{' (changed)' if each.code.dirty else ''}" for each in records if each.code.commit),
        _sorted(_device(each) for each in records),
        _sorted(each.environment.torch for each in records),
        _sorted(each.created[:10] for each in records),
    )


def read_made(path: Path) -> Made:
    """Read a made.json.

    Raises:
        RecordError: If it cannot be read, or is none.
    """
    return validated(Made, read_json(path), origin=str(path), error=RecordError, remedy="; write it again")


def without_threads(device: str) -> str:
    """Return the device of an entry of `Made.devices` without its threads."""
    return device.rpartition(", ")[0] if device.endswith(" a process") else device


def _device(record: Record) -> str:
    threads = record.environment.threads
    return f"{record.environment.device}, {threads} thread{'' if threads == 1 else 's'} a process"


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
