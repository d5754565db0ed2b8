"""Image files under a folder: finding them, and a source that reads them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from srbench.data.content import content_hashes
from srbench.data.dataset import check_split
from srbench.data.source import SampleList, StoredSource
from srbench.errors import DataError, UsageError
from srbench.files.paths import user_path
from srbench.imaging.decode import IMAGE_SUFFIXES, Range, StoredImage, decode_stored, header_of

HASH_SPLITS = ("train", "val", "test")
_RANGE = "?range="
_LONGEST = 250  # bytes of a name in a list, which its suffix follows; file systems allow 255


class FileSource(StoredSource):
    """A split whose samples are files under one folder."""

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        *,
        labels: Sequence[int] | None,
        classes: tuple[str, ...] | None,
        name: str,
        spec: str,
        split: str,
        note: str = "",
        value_range: Range | None = None,
    ) -> None:
        """Sort the files by id.

        Args:
            root: The folder that `files` are relative to.
            files: Relative paths with forward slashes.
            labels: Index into `classes` of every file, or None.
            classes: Names of the classes, or None.
            name: Short name for task ids.
            spec: The SPEC without the folders above the data.
            split: Name of the split.
            note: A caution for the tables, or "".
            value_range: Values that are black and white; None takes those of the files' types.
        """
        self.name, self.spec, self.split, self.note = name, spec, split, note
        self.classes = classes
        ids = [stable_id(file) for file in files]
        order = sorted(range(len(files)), key=ids.__getitem__)
        ordered = None if labels is None else [labels[number] for number in order]
        self.samples = SampleList([ids[number] for number in order], ordered)
        self._root = root
        # an id is mostly the file's own name
        self._other_names = {i: files[number] for i, number in enumerate(order) if files[number] != ids[number]}
        self._range = value_range

    @cached_property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the data: 1 where every file is grey; the headers are read up to the first in colour."""
        readable = 0
        for header in map(header_of, self._paths()):
            if header is not None and header.channels != 1:
                return 3
            readable += header is not None
        return 1 if readable else 3

    def _paths(self) -> Iterator[Path]:
        """Yield every file that is read."""
        yield from (self._root / file for file in self._files())

    def _file(self, index: int) -> str:
        return self._other_names.get(index) or self.samples[index].id

    def _files(self) -> Iterator[str]:
        for index, sample in enumerate(self.samples):
            yield self._other_names.get(index, sample.id)

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` and say how many channels its file stores.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """
        return decode_stored(self._root / self._file(index), self.samples[index].id, self._range)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return the hash of each file's bytes, and the range where there is one."""
        hashes = content_hashes(self._root, (self._root / self._file(index) for index in indices))
        return [(each, *(self._range or ())) for each in hashes]


def split_range(argument: str, spec: str) -> tuple[str, Range | None]:
    """Split `PATH?range=LOW:HIGH` into the path and the values that are black and white.

    Raises:
        UsageError: If the range is not two finite numbers, the lower first.
    """
    path, mark, text = argument.rpartition(_RANGE)
    if not mark:
        return argument, None
    try:
        low, high = (float(end) for end in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--data {spec}: expected {_RANGE}LOW:HIGH such as {_RANGE}0:4095, got {mark + text!r}")
    return path, (low, high)


def range_note(value_range: Range | None) -> str:
    """Return how a range stands in a SPEC, or ""."""
    return "" if value_range is None else f"{_RANGE}{value_range[0]:g}:{value_range[1]:g}"


def existing_folder(path: Path, spec: str, *, option: str | None = None) -> Path:
    """Return the folder, with ~ expanded; messages begin with `option`, `--data SPEC` where it is None.

    Raises:
        DataError: If there is no such folder, or it is a file, or it cannot be listed.
    """
    path, given = user_path(path), option or f"--data {spec}"
    if path.is_file():
        raise DataError(f"{given}: {path} is a file; give the folder that holds the images")
    if not path.is_dir():
        raise DataError(f"{given}: there is no folder {path}; check the path")
    if not os.access(path, os.R_OK | os.X_OK):
        raise DataError(f"{given}: the folder {path} cannot be read; check its permissions")
    return path


def folder_name(path: Path) -> str:
    """Return a folder's own name as text that any file can hold, also where the path is "." or ends in a slash."""
    return stable_id(user_path(path).resolve().name) or "root"


def stable_id(relative: str) -> str:
    """Return a relative path as an id that any file format can hold."""
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def without_suffix(sample_id: str) -> str:
    """Return an id without the suffix of an image; other dots belong to the name."""
    suffix = PurePosixPath(sample_id).suffix
    return sample_id[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else sample_id


def by_stem(files: Sequence[str], which: str, spec: str) -> dict[str, str]:
    """Return files by their relative paths without the suffix, by which partners are found.

    Args:
        files: Relative paths.
        which: What they are, for the sentence.
        spec: The SPEC of the data.

    Raises:
        DataError: If two differ in the suffix alone.
    """
    stems: dict[str, str] = {}
    for file in files:
        stem = file.rsplit(".", 1)[0]
        if stem in stems:
            raise DataError(f"--data {spec}: {which} holds both {stems[stem]} and {file}; keep one of them")
        stems[stem] = file
    return stems


def hash_split(sample_id: str) -> str:
    """Return the split of an id: about 80 % "train", 10 % "val", 10 % "test", whatever else is in the folder."""
    share = int(hashlib.sha256(sample_id.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def select_split(files: Sequence[str], split: str, *, spec: str) -> list[str]:
    """Keep the files of "all" or of a hashed split.

    Raises:
        UsageError: If there is no split of that name.
        DataError: If no file falls into it.
    """
    if split == "all":
        return list(files)
    check_split(split, ("all", *HASH_SPLITS), spec=spec)
    chosen = [file for file in files if hash_split(stable_id(file)) == split]
    if not chosen:
        raise DataError(
            f"--data {spec}: none of its {len(files)} images falls into the split {split!r}; use --split all"
        )
    return chosen


def is_plain_name(name: str) -> bool:
    """Say whether a name in a list is one of a file in its folder: not a path, and not longer than a name can be."""
    return name not in (".", "..") and not {"/", "\\", "\0"} & set(name) and len(os.fsencode(name)) < _LONGEST
