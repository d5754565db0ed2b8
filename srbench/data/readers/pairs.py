"""Real LR-HR pairs: two folders whose images bear the same names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from srbench.data.content import content_hashes
from srbench.data.dataset import DatasetInfo
from srbench.data.readers.files import (
    FileSource,
    by_stem,
    existing_folder,
    folder_name,
    range_note,
    select_split,
    split_range,
    stable_id,
)
from srbench.data.scan import join_notes, scan
from srbench.errors import DataError, UsageError
from srbench.imaging.decode import Range, decode, header_of

PAIRS = DatasetInfo(
    name="pairs",
    opener="open_pairs",
    description="real LR-HR pairs, images or .npy, named alike",
    argument="LR_DIR,HR_DIR",
    labels="classes or none",
    paired=True,
)

NOTE = "real pairs: LR is read from its own files, nothing is made of HR"
_NAMED = 5


class PairsSource(FileSource):
    """HR files with their real LR partners."""

    paired = True

    def __init__(
        self,
        hr_root: Path,
        lr_root: Path,
        partners: dict[str, str],
        *,
        labels: dict[str, int] | None,
        classes: tuple[str, ...] | None,
        factor: int,
        name: str,
        spec: str,
        split: str,
        note: str,
        value_range: Range | None,
    ) -> None:
        """Sort the pairs by id, the relative path of the HR file.

        Args:
            hr_root: The folder of HR.
            lr_root: The folder of LR.
            partners: Relative LR path by relative HR path.
            labels: Index into `classes` by relative HR path, or None.
            classes: Names of the classes, or None.
            factor: HR side / LR side.
            name: Short name for task ids.
            spec: The SPEC without the folders above the data.
            split: Name of the split.
            note: A caution for the tables.
            value_range: Values that are black and white; None takes those of the files' types.
        """
        super().__init__(
            hr_root,
            list(partners),
            labels=None if labels is None else [labels[file] for file in partners],
            classes=classes,
            name=name,
            spec=spec,
            split=split,
            note=note,
            value_range=value_range,
        )
        self.factor = factor
        self._lr_root = lr_root
        self._lr_files = tuple(partners[file] for file in self._files())

    def read_lr(self, index: int) -> Tensor:
        """Decode the LR partner of sample `index` as `(3, h, w)`, RGB, uint8.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """
        return decode(self._lr_root / self._lr_files[index], f"the LR of {self.samples[index].id}", self._range)

    def _paths(self) -> Iterator[Path]:
        yield from super()._paths()
        yield from (self._lr_root / file for file in self._lr_files)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return the hashes of the bytes of HR and LR, and the range where there is one."""
        lr = content_hashes(self._lr_root, (self._lr_root / self._lr_files[index] for index in indices))
        return [(*stamp, of_lr) for stamp, of_lr in zip(super().stamps(indices), lr, strict=True)]


def open_pairs(argument: str, split: str | None) -> PairsSource:
    """Open `LR_DIR,HR_DIR`: partners have the same path below their folder, up to the suffix.

    An LR name may end in its factor ("0801x4.png" beside "0801.png"). Images (PNG, TIFF ...) or .npy; one channel
    is repeated to three. HR is whole multiples of LR, by one factor for all pairs. `?range=LOW:HIGH` behind the
    folders says which values are black and white; without it 16 bits are divided by 257, and floats lie in [0, 1].
    Where every HR image is in a folder inside HR_DIR, and there are two or more of these, they are the classes.

    Raises:
        DataError: If a folder is missing or empty, an image lacks its partner, or sizes do not fit.
        UsageError: If it is not two folders, or there is no split of that name.
    """
    spec = f"pairs:{argument}"
    folders, value_range = split_range(argument, spec)
    parts = folders.split(",")
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--data {spec}: expected two folders, pairs:LR_DIR,HR_DIR")
    lr_root, hr_root = (existing_folder(Path(part), spec) for part in parts)
    lr_files, hr_files = scan(lr_root), scan(hr_root)
    for root, files in ((lr_root, lr_files), (hr_root, hr_files)):
        if not files.images:
            raise DataError(f"--data {spec}: {root} holds no images (.png, .tif, .npy ...)")
    partners = _match(lr_files.images, hr_files.images, spec)
    factor = _factor(lr_root, hr_root, partners, spec)
    split = split or PAIRS.splits[0]
    chosen = select_split(sorted(partners), split, spec=spec)
    labels, classes = _classes(partners)
    lr_name, hr_name = folder_name(lr_root), folder_name(hr_root)
    beside = lr_root.resolve().parent == hr_root.resolve().parent
    name = f"{folder_name(hr_root.resolve().parent) if beside else hr_name}-{lr_name}"
    return PairsSource(
        hr_root,
        lr_root,
        {file: partners[file] for file in chosen},
        labels=labels,
        classes=classes,
        factor=factor,
        name=name,
        spec=f"pairs:{lr_name},{hr_name}{range_note(value_range)}",
        split=split,
        note=join_notes(NOTE, hr_files.note, lr_files.note),
        value_range=value_range,
    )


def _classes(files: Iterable[str]) -> tuple[dict[str, int] | None, tuple[str, ...] | None]:
    """Return the labels by file and the names of the classes, or None where the files are not in class folders."""
    folders = {file: file.split("/", 1)[0] if "/" in file else None for file in files}
    names = sorted({folder for folder in folders.values() if folder is not None})
    if len(names) < 2 or None in folders.values():
        return None, None
    return {file: names.index(str(folder)) for file, folder in folders.items()}, tuple(map(stable_id, names))


def _match(lr_files: Sequence[str], hr_files: Sequence[str], spec: str) -> dict[str, str]:
    hr_by_stem, lr_by_stem = by_stem(hr_files, "HR", spec), by_stem(lr_files, "LR", spec)
    partners: dict[str, str] = {}
    lonely = []
    for stem, file in lr_by_stem.items():
        bare = stem if stem in hr_by_stem else re.sub(r"[xX]\d+$", "", stem)
        if bare not in hr_by_stem:
            lonely.append(f"LR {file}")
        elif hr_by_stem[bare] in partners:
            hr_file = hr_by_stem[bare]
            raise DataError(f"--data {spec}: HR {hr_file} has two LR partners, {partners[hr_file]} and {file}")
        else:
            partners[hr_by_stem[bare]] = file
    lonely += [f"HR {file}" for file in hr_files if file not in partners]
    if lonely:
        raise DataError(
            f"--data {spec}: {len(lonely)} images have no partner of the same name: {_some(lonely)};"
            " LR and HR must be named alike, up to the suffix"
        )
    return partners


def _factor(lr_root: Path, hr_root: Path, partners: dict[str, str], spec: str) -> int:
    wrong: list[str] = []
    factors: dict[int, str] = {}
    for hr_file, lr_file in sorted(partners.items()):
        hr, lr = header_of(hr_root / hr_file), header_of(lr_root / lr_file)
        if hr is None or lr is None:
            continue  # unreadable: it is named and counted when it is decoded
        factor = hr.height // lr.height
        if factor == 0 or (hr.height, hr.width) != (factor * lr.height, factor * lr.width):
            wrong.append(f"{stable_id(hr_file)} (HR {hr.height} x {hr.width}, LR {lr.height} x {lr.width})")
        else:
            factors.setdefault(factor, stable_id(hr_file))
    if wrong:
        raise DataError(
            f"--data {spec}: in {len(wrong)} pairs HR is no whole multiple of LR: {_some(wrong)};"
            " crop HR to a multiple of LR"
        )
    if len(factors) > 1:
        listed = [f"x{factor} ({file})" for factor, file in sorted(factors.items())]
        raise DataError(f"--data {spec}: the pairs have different factors: {_some(listed)}; give one factor at a time")
    return next(iter(factors), 1)


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
