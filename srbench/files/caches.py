"""The cache folder: what is in it and how large it is, what goes when it gets too large, and whether there is room."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from srbench.errors import SrbenchError, UsageError
from srbench.files.atomic import age_s
from srbench.files.paths import cache_dir

# Folders of the cache, and what they hold.
KINDS = {
    "hr": "HR crops, decoded once",
    "predictions": "what networks answer on HR",
    "teacher": "a teacher's logits in training",
    "content": "hashes of image files",
    "weights": "weights that were fetched",
}
LIMIT_VARIABLE = "SRBENCH_CACHE_LIMIT"
_KEPT = frozenset({"content", "weights"})  # small, or not to be had without a network
_IN_USE_S = 3600.0  # what was used less long ago may belong to a run at work
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class CacheEntry:
    """One thing that the cache keeps or drops as a whole.

    Attributes:
        kind: The folder it lies in, a name of `KINDS`, or another where an older srbench left it.
        path: Its file or folder.
        size: Bytes.
        used: When it was used last, seconds since 1970.
    """

    kind: str
    path: Path
    size: int
    used: float


def cache_entries() -> list[CacheEntry]:
    """Return what is in the cache, what was used longest ago first."""
    root = cache_dir()
    entries = [_entry(kind.name, path) for kind in _listed(root) if kind.is_dir() for path in _listed(kind)]
    return sorted(entries, key=lambda entry: entry.used)


def prune(*, keep: int, unused_for_s: float = 0.0) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Remove what was used longest ago until no more than `keep` bytes are left.

    Fetched weights and the hashes of files stay, and so does what was used within the last hour.

    Args:
        keep: Bytes that may stay.
        unused_for_s: Remove nothing that was used less long ago, in seconds.

    Returns:
        What was removed, and what had to stay although it is more than `keep`.
    """
    entries = cache_entries()
    left = sum(entry.size for entry in entries)
    removed, in_use = [], []
    for entry in entries:
        if left <= keep:
            break
        if entry.kind in _KEPT:
            continue
        if age_s(entry.used) < max(unused_for_s, _IN_USE_S):
            in_use.append(entry)
            continue
        _remove(entry.path)
        removed.append(entry)
        left -= entry.size
    return removed, in_use if left > keep else []


def mark_used(path: Path) -> None:
    """Note that a folder of the cache is in use, which keeps it from being removed."""
    with contextlib.suppress(OSError):
        os.utime(path)


def make_room(needed: int) -> None:
    """See to it that so many bytes can be added to the cache.

    Where `SRBENCH_CACHE_LIMIT` gives a size, what was used longest ago goes first.

    Raises:
        UsageError: If the variable holds no size.
        SrbenchError: If the disk has less space.
    """
    root = cache_dir()
    if limit := os.environ.get(LIMIT_VARIABLE):
        prune(keep=max(parse_size(limit, LIMIT_VARIABLE) - needed, 0))
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        return
    if needed > free:
        raise SrbenchError(
            f"the cache in {root} would grow by about {written_size(needed)}, and {written_size(free)} are free there;"
            " see `srbench cache`, free some space, or point SRBENCH_CACHE at another folder"
        )


def parse_size(text: str, what: str) -> int:
    """Return a size such as "20GB" in bytes.

    Raises:
        UsageError: If it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{what} takes a size such as 20GB or 500MB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def written_size(size: float) -> str:
    """Return a size in the unit that suits it, 1 kB being 1,000 bytes."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _entry(kind: str, path: Path) -> CacheEntry:
    size, used = 0, 0.0
    for each in (path, *_below(path)):
        with contextlib.suppress(OSError):  # another process may remove it just now
            status = each.lstat()
            used = max(used, status.st_mtime)
            size += 0 if each.is_dir() and not each.is_symlink() else status.st_size
    return CacheEntry(kind, path, size, used)


def _below(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for folder, folders, files in os.walk(path):  # which follows no links
            yield from (Path(folder) / name for name in (*folders, *files))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
