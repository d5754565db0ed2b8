"""Files that appear under their name only when they are whole, and what a killed run leaves of them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from srbench.errors import RecordError, UsageError
from srbench.files.paths import cache_dir
from srbench.files.strict import json_text

STALE_S = 3600.0  # a temporary file of a cache that is older belongs to no run that is at work
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
_MOST_OF_NAME = 200  # bytes of a file's name in that of its temporary file: file systems end names at 255
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_bytes(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file atomically: `write` fills a temporary file beside it, which is synced and then renamed.

    Raises:
        RecordError: If the disk is full, read-only, or fails otherwise; nothing half-written stays under `path`.
    """
    temporary = path.parent / f".{_beginning(path.name)}.{secrets.token_hex(6)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def write_content(path: Path, content: bytes) -> None:
    """Write bytes that are known whole atomically.

    Raises:
        RecordError: As `write_bytes`.
    """
    write_bytes(path, lambda file: _discard(file.write(content)))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        RecordError: As `write_bytes`, or if the text holds half a character (a lone surrogate).
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"cannot write {path}: {text[max(0, error.start - 20) : error.end]!r} holds half a character;"
            " rename the file that it comes from"
        ) from None
    write_content(path, content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, never NaN.

    Raises:
        RecordError: As `write_bytes`, or if the value is not finite plain JSON; the file is then left as it was.
    """
    try:
        text = json_text(value)
    except RecordError as error:
        raise RecordError(f"{path} {error}") from None
    write_text(path, text)


def sweep_temporary(root: Path | str, *, older_than_s: float = 0.0) -> int:
    """Remove the temporary files that killed runs left below a folder; return how many.

    Call it before the run starts writing, from one process. Where other runs may be writing (a cache), files younger
    than `older_than_s` seconds stay.
    """
    removed = 0
    for path in Path(root).rglob(".*.tmp"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            with contextlib.suppress(OSError):
                if age_s(path.stat().st_mtime) >= older_than_s:
                    path.unlink(missing_ok=True)
                    removed += 1
    return removed


def age_s(moment: float) -> float:
    """Return how many seconds ago a moment was, as `time.time` counts.

    Files that come from the future, because a clock was set back, are as old as they are far away.
    """
    return abs(time.time() - moment)


def sweep_beside(paths: Iterable[Path]) -> None:
    """Remove the temporary files that killed runs left of these files, and nothing else in their folders."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(_beginning(path.name))
    for folder, ours in names.items():
        with contextlib.suppress(OSError):
            for entry in list(folder.iterdir()):
                if _LEFTOVER.fullmatch(entry.name) and entry.name[1:].rsplit(".", 2)[0] in ours:
                    entry.unlink(missing_ok=True)


def check_out_dir(path: Path | str) -> None:
    """Refuse an --out that cannot become a folder.

    Raises:
        UsageError: If it is, or lies under, a regular file, or its nearest existing folder is not writable.
    """
    path = Path(path)
    nearest = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        relation = "is" if nearest == path else "lies under"
        raise UsageError(
            f"--out {path} {relation} {nearest}, which is not a folder; choose another place with --out DIR"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"--out {path}: no permission to write in {nearest}; choose another place with --out DIR")


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows cannot open folders
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> RecordError:
    """Return the sentence for a file that could not be written; what is made for a cache is in no --out."""
    reason = error.strerror or error
    again = "then run the same command again to go on"
    if path.is_relative_to(cache_dir()):
        room = "free some space there, or " if error.errno in _NO_ROOM else ""
        return RecordError(
            f"the cache in {cache_dir()} cannot be written: {reason};"
            f" {room}point SRBENCH_CACHE at another folder, {again}"
        )
    remedy = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space",
        errno.EROFS: "choose another place with --out DIR",
        errno.EACCES: "choose another place with --out DIR",
    }.get(error.errno or 0, "check the place that --out names")
    return RecordError(f"cannot write {path}: {reason}; {remedy}, {again}")


def _beginning(name: str) -> str:
    """Return what a temporary file's name has of its file's name."""
    while len(os.fsencode(name)) > _MOST_OF_NAME:
        name = name[:-1]
    return name


def _discard(_: object) -> None:
    return None
