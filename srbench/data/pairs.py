"""Real LR-HR pairs: two folders whose images bear the same names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from srbench.data.decode import decode
from srbench.data.files import (
    FileSource,
    existing_folder,
    file_stamp,
    folder_name,
    list_images,
    select_split,
    stable_id,
)
from srbench.errors import DataError, UsageError

_NAMED = 5


class PairsSource(FileSource):
    """HR files with their real LR partners.

    Attributes:
        factor: HR side / LR side, the same for every pair.
    """

    paired = True

    def __init__(
        self,
        hr_root: Path,
        lr_root: Path,
        partners: dict[str, str],
        *,
        factor: int,
        name: str,
        spec: str,
        split: str,
    ) -> None:
        """Sort the pairs by id, the relative path of the HR file.

        Args:
            hr_root: The folder of HR.
            lr_root: The folder of LR.
            partners: Relative LR path by relative HR path.
            factor: HR side / LR side.
            name: Short name for task ids.
            spec: The SPEC without the folders above the data.
            split: Name of the split.
        """
        super().__init__(hr_root, list(partners), labels=None, classes=None, name=name, spec=spec, split=split)
        self.factor = factor
        self._lr_root = lr_root
        self._lr_files = tuple(partners[file] for file in self._files)

    def read_lr(self, index: int) -> Tensor:
        """Decode the LR partner of sample `index` as `(3, h, w)`, RGB, uint8.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """
        return decode(self._lr_root / self._lr_files[index], f"the LR of {self.samples[index].id}")

    def stamp(self, index: int) -> tuple[int, int]:
        """Return the sums over both files of (size in bytes, modification time in ns)."""
        hr, lr = super().stamp(index), file_stamp(self._lr_root / self._lr_files[index])
        return hr[0] + lr[0], hr[1] + lr[1]


def open_pairs(argument: str, split: str | None) -> PairsSource:
    """Open `LR_DIR,HR_DIR`: partners have the same path below their folder, up to the suffix.

    An LR name may end in its factor ("0801x4.png" beside "0801.png"). Images (PNG, TIFF ...) or .npy; one channel
    is repeated to three; floats lie in [0, 1]. HR is whole multiples of LR, by one factor for all pairs.

    Raises:
        DataError: If a folder is missing or empty, an image lacks its partner, or sizes do not fit.
        UsageError: If it is not two folders, or there is no split of that name.
    """
    spec = f"pairs:{argument}"
    parts = argument.split(",")
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--data {spec}: expected two folders, pairs:LR_DIR,HR_DIR")
    lr_root, hr_root = (existing_folder(Path(part), spec) for part in parts)
    lr_files, hr_files = list_images(lr_root), list_images(hr_root)
    for root, files in ((lr_root, lr_files), (hr_root, hr_files)):
        if not files:
            raise DataError(f"--data {spec}: {root} holds no images (.png, .tif, .npy ...)")
    partners = _match(lr_files, hr_files, spec)
    factor = _factor(lr_root, hr_root, partners, spec)
    split = split or "all"
    chosen = select_split(sorted(partners), split, spec=spec)
    lr_name, hr_name = folder_name(lr_root), folder_name(hr_root)
    beside = lr_root.resolve().parent == hr_root.resolve().parent
    name = f"{folder_name(hr_root.resolve().parent) if beside else hr_name}-{lr_name}"
    return PairsSource(
        hr_root,
        lr_root,
        {file: partners[file] for file in chosen},
        factor=factor,
        name=name,
        spec=f"pairs:{lr_name},{hr_name}",
        split=split,
    )


def _match(lr_files: list[str], hr_files: list[str], spec: str) -> dict[str, str]:
    hr_by_stem, lr_by_stem = _by_stem(hr_files, "HR", spec), _by_stem(lr_files, "LR", spec)
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


def _by_stem(files: list[str], which: str, spec: str) -> dict[str, str]:
    stems: dict[str, str] = {}
    for file in files:
        stem = file.rsplit(".", 1)[0]
        if stem in stems:
            raise DataError(f"--data {spec}: {which} holds both {stems[stem]} and {file}; keep one of them")
        stems[stem] = file
    return stems


def _factor(lr_root: Path, hr_root: Path, partners: dict[str, str], spec: str) -> int:
    wrong: list[str] = []
    factors: dict[int, str] = {}
    for hr_file, lr_file in sorted(partners.items()):
        hr, lr = _size(hr_root / hr_file), _size(lr_root / lr_file)
        if hr is None or lr is None:
            continue  # unreadable: it is named and counted when it is decoded
        if hr[0] % lr[0] or hr[1] % lr[1] or hr[0] // lr[0] != hr[1] // lr[1]:
            wrong.append(f"{stable_id(hr_file)} (HR {hr[0]} x {hr[1]}, LR {lr[0]} x {lr[1]})")
        else:
            factors.setdefault(hr[0] // lr[0], stable_id(hr_file))
    if wrong:
        raise DataError(
            f"--data {spec}: in {len(wrong)} pairs HR is no whole multiple of LR: {_some(wrong)};"
            " crop HR to a multiple of LR"
        )
    if len(factors) > 1:
        found = [f"x{factor} ({file})" for factor, file in sorted(factors.items())]
        raise DataError(f"--data {spec}: the pairs have different factors: {_some(found)}; give one factor at a time")
    return next(iter(factors), 1)


def _size(path: Path) -> tuple[int, int] | None:
    """Read (height, width) from a file's header, or None where it has none."""
    try:
        if path.suffix.lower() == ".npy":
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if len(shape) == 3:
                shape = shape[:2] if shape[0] not in (1, 3) and shape[2] in (1, 3) else shape[1:]
            return (shape[0], shape[1]) if len(shape) == 2 and 0 not in shape else None
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None


def _some(items: Iterable[str]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
