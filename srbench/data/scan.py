"""Which files below a folder are images, and what was left out: a folder of data holds more than images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from srbench.errors import DataError
from srbench.imaging.decode import UNREAD_SUFFIXES, readable_suffixes

# Files that srbench writes into its results; a folder that holds one is no data.
_OWN_FILES = ("leaderboard.json", "report.html", "checkpoint.pt")
# What systems and storage put into folders; names in lower case. Hidden ones are left out without a word.
_SYSTEM = frozenset(
    {"@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found"}
    | {"system volume information", "__pycache__"}
)
_NAMED = 3


@dataclass(frozen=True)
class Scan:
    """What lies below a folder; paths are relative, with forward slashes, sorted.

    Attributes:
        images: Files that are read.
        unread: Image files of formats that are not read here.
        skipped: Folders that hold results of srbench, or that a system has put there.
    """

    images: tuple[str, ...]
    unread: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """A sentence that counts what was left out, or ""."""
        suffixes = Counter(PurePath(file).suffix.lower() for file in self.unread)
        parts = [f"{count} {suffix}" for suffix, count in sorted(suffixes.items())]
        if self.skipped:
            more = f" and {len(self.skipped) - _NAMED} more" if len(self.skipped) > _NAMED else ""
            parts.append(f"the folders {', '.join(self.skipped[:_NAMED])}{more} (results of srbench, or a system's)")
        return f"left out: {', '.join(parts)}" if parts else ""


def scan(root: Path) -> Scan:
    """Look at everything below a folder, at any depth; hidden files and folders are left out."""
    kinds: dict[str, list[str]] = {"image": [], "unread": [], "skipped": []}
    for kind, path in _walk(root, "", frozenset()):
        kinds[kind].append(path)
    return Scan(*(tuple(sorted(paths)) for paths in kinds.values()))


def has_images(root: Path) -> bool:
    """Whether a folder holds an image at any depth; stops at the first."""
    return any(kind == "image" for kind, _ in _walk(root, "", frozenset()))


def list_folders(root: Path) -> list[str]:
    """List the folders of data directly in a folder, by name."""
    with _entries(root) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and _is_data(entry))


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty."""
    return "; ".join(filter(None, notes))


def _entries(folder: Path) -> Any:
    """Return what lies in a folder, as `os.scandir`.

    Raises:
        DataError: If the folder cannot be read.
    """
    try:
        return os.scandir(folder)
    except OSError as error:
        raise DataError(
            f"the folder {folder} cannot be read: {error.strerror or error}; check its permissions, or take it out of"
            " the data"
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_data(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and not _is_foreign(entry)


def _is_foreign(entry: os.DirEntry[str]) -> bool:
    """Whether a folder holds what srbench or a system has written there."""
    if entry.name.lower() in _SYSTEM:
        return True
    # Path.exists raises where the folder may not be read, which is said when it is walked.
    return any(os.path.exists(os.path.join(entry.path, name)) for name in _OWN_FILES)  # noqa: PTH110, PTH118


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Yield what lies below a folder, each with its kind: "image", "unread" or "skipped"."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link that leads back up
        return
    with _entries(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if _is_foreign(entry):
                    yield "skipped", f"{prefix}{entry.name}"
                else:
                    yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above | {here})
                continue
            suffix = PurePath(entry.name).suffix.lower()
            if suffix in readable_suffixes():
                yield "image", f"{prefix}{entry.name}"
            elif suffix in UNREAD_SUFFIXES:
                yield "unread", f"{prefix}{entry.name}"
