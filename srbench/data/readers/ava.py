"""Rated photographs in AVA's layout: `ava:PATH`, a folder that holds images at any depth and one file of ratings.

The file is AVA.txt as it is distributed (Murray, Marchesotti and Perronnin, CVPR 2012): columns between spaces, a
running number, the image's id, how many people gave each rating from 1 to 10, and further columns that are not read. Or
it is a CSV: the image's name (with or without its ending), then the ten counts; one line of headers may come first.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from srbench.data.dataset import DatasetInfo
from srbench.data.readers.files import (
    FileSource,
    existing_folder,
    folder_name,
    select_split,
    split_range,
    stable_id,
)
from srbench.data.scan import scan
from srbench.data.source import SampleList
from srbench.errors import DataError, UnreadableImageError
from srbench.files.regular import read_lines
from srbench.imaging.decode import StoredImage

AVA = DatasetInfo(
    name="ava",
    opener="open_ava",
    description="images with ratings from 1 to 10: AVA.txt, or a CSV, beside them",
    argument="PATH",
    labels="ratings",
    task_type="iqa",
)

RATINGS = 10
TABLE = "AVA.txt"

_MOST_BYTES = 2**30  # of a table; AVA's own has 26 MB
_HEADS = [str(rating) for rating in range(1, RATINGS + 1)]  # a line of headers may name the ratings themselves


class AvaSource(FileSource):
    """A split of rated images; those that the file rates and the folder lacks count as unreadable."""

    task_type = AVA.task_type

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        ratings: Mapping[str, tuple[float, ...]],
        *,
        missing: frozenset[str],
        name: str,
        split: str,
    ) -> None:
        """Sort the files by id.

        Args:
            root: The folder that `files` are relative to.
            files: Relative paths with forward slashes; of missing ones, the name that the ratings give.
            ratings: Share of each rating, by file.
            missing: Those of `files` that are not there.
            name: Short name for task ids.
            split: Name of the split.
        """
        super().__init__(root, files, labels=None, classes=None, name=name, spec=f"ava:{name}", split=split)
        self.samples = SampleList(
            [sample.id for sample in self.samples], ratings=[ratings[file] for file in self._files()]
        )
        self._missing = missing

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` and say how many channels its file stores.

        Raises:
            UnreadableImageError: If it is missing or cannot be decoded.
        """
        if self._file(index) in self._missing:
            raise UnreadableImageError(f"{self.samples[index].id} has ratings, but no image of that name is there")
        return super().read_stored(index)

    def _paths(self) -> Iterator[Path]:
        yield from (self._root / file for file in self._files() if file not in self._missing)


def open_ava(argument: str, split: str | None = None) -> AvaSource:
    """Open rated images: "all", or a split by the hash of the id.

    Raises:
        DataError: If there is no such folder, no file of ratings or several, no image, or a row that cannot be read.
        UsageError: If there is no split of that name.
    """
    spec = f"ava:{argument}"
    path, value_range = split_range(argument, spec)
    if value_range is not None:
        raise DataError(f"--data {spec}: rated images are of 8 or 16 bits, so ?range= does not apply; leave it out")
    root = existing_folder(Path(path), spec)
    table = _table_in(root, spec)
    rows = _rows(table, spec)
    by_name: dict[str, str] = {}
    for file in scan(root).images:
        for name in dict.fromkeys((PurePosixPath(file).name, PurePosixPath(file).stem)):
            if name in rows and name in by_name:
                raise DataError(
                    f"--data {spec}: {by_name[name]} and {file} could both be the image {name!r} of {table.name};"
                    " move one of them out of the folder"
                )
            by_name[name] = file
    rated = {by_name.get(name, name): ratings for name, ratings in rows.items()}
    if len(rated) < len(rows):
        raise DataError(f"--data {spec}: {table.name} rates an image twice, with and without its ending; keep one line")
    missing = frozenset(name for name in rows if name not in by_name)
    if len(missing) == len(rows):
        raise DataError(
            f"--data {spec}: none of the {len(rows)} images that {table.name} rates is in {root}, such as"
            f" {next(iter(rows))!r}; put the images below that folder"
        )
    split = split or AVA.splits[0]
    chosen = select_split(list(rated), split, spec=spec)
    return AvaSource(root, chosen, rated, missing=missing, name=folder_name(root), split=split)


def _table_in(root: Path, spec: str) -> Path:
    """Return the file of ratings: AVA.txt, or the one CSV."""
    if (root / TABLE).is_file():
        return root / TABLE
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.is_file())
    if len(tables) != 1:
        there = f"{len(tables)} of them ({', '.join(path.name for path in tables[:3])})" if tables else "none"
        raise DataError(f"--data {spec}: expected {TABLE} or one .csv file of ratings in {root}, found {there}")
    return tables[0]


def _rows(table: Path, spec: str) -> dict[str, tuple[float, ...]]:
    """Return the share of each rating by the name of the image."""
    try:
        read = read_lines(table, most=_MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {spec}: {table.name} cannot be read as text ({error}); give it anew") from None
    spaced = table.suffix.lower() != ".csv"
    lines = [line.split() for line in read] if spaced else list(csv.reader(read))
    rows: dict[str, tuple[float, ...]] = {}
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in (line[1:] if spaced else line)]
        if not any(fields):
            continue
        counts = _counts(fields[1 : 1 + RATINGS])
        if number == 1 and not spaced and (fields[1:] == _HEADS or not any(map(_is_number, fields[1:]))):
            continue  # the headers
        where = f"--data {spec}: line {number} of {table.name}"
        if counts is None:
            layout = "a number, an image's id and ten counts" if spaced else "an image's name and ten counts"
            raise DataError(f"{where} is {' '.join(fields)[:60]!r}; expected {layout}, each count at least 0")
        total = sum(counts)
        if total <= 0:
            raise DataError(f"{where} has no rating at all for the image {fields[0]!r}; take the line out")
        name = stable_id(fields[0])
        if name in rows:
            raise DataError(f"{where} rates the image {name!r} a second time; keep one of the lines")
        rows[name] = tuple(count / total for count in counts)
    if not rows:
        raise DataError(f"--data {spec}: {table.name} rates no image; expected a line an image")
    return rows


def _counts(fields: Sequence[str]) -> list[float] | None:
    """Return the ten counts, or None where they are not ten finite numbers of at least 0."""
    if len(fields) != RATINGS or not all(_is_number(field) for field in fields):
        return None
    counts = [float(field) for field in fields]
    return counts if all(0 <= count < float("inf") for count in counts) else None


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
