"""Rows of images that were restored elsewhere: a folder of SR, named by sample id (`--precomputed NAME=DIR`).

An image belongs to the sample whose id is its path below the folder, with or without the suffix of either. All images
stand at SR size, or all at one whole factor of LR; these are brought to SR size as a network's native factor is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from srbench.data.content import content_hashes
from srbench.data.hr_cache import TOLERATED_SHARE, limited
from srbench.data.readers.files import existing_folder, stable_id, without_suffix
from srbench.data.scan import scan
from srbench.errors import DataError, UsageError
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.imaging.decode import header_of
from srbench.imaging.lossless import RestoredFolder, why_lossy
from srbench.method import Method, MethodInfo
from srbench.records.schema import ORACLE, hash_inputs
from srbench.registry import Registry

if TYPE_CHECKING:
    from srbench.data.hr_cache import HRStore
    from srbench.data.source import Source
    from srbench.protocol import Protocol

_NAMED = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

Size = tuple[int, int]


class Precomputed(Method):
    """What a row of images restored elsewhere says about itself; nothing of it ever runs."""

    info = MethodInfo(role="precomputed", family="restored elsewhere", version="1")


def open_precomputed(
    folders: Mapping[str, Path | str], source: Source, registry: Registry, *, limit: int | None
) -> list[LoadedMethod]:
    """Open the folders of a call as rows, in its order.

    Args:
        folders: Folder of SR by the name of its row.
        source: The data.
        registry: The methods, whose names are taken.
        limit: `--limit`; images of the other samples may be there or not.

    Raises:
        UsageError: If a name is taken or cannot be one.
        DataError: If there is no such folder, an image is not stored without loss, belongs to no sample, or is missing.
    """
    return [_opened(name, Path(folder), source, registry, limit) for name, folder in folders.items()]


def fitted(methods: Sequence[LoadedMethod], hr_store: HRStore, protocol: Protocol) -> list[LoadedMethod]:
    """Hold the images of rows restored elsewhere against the samples of a task; other methods stay as they are.

    Raises:
        DataError: If an image of a sample is missing, or has another size than it must have; the message lists them.
    """
    return [_fitted(each, hr_store, protocol) if each.images is not None else each for each in methods]


def _opened(name: str, folder: Path, source: Source, registry: Registry, limit: int | None) -> LoadedMethod:
    option = f"--precomputed {name}={folder}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{option}: a row's name is made of letters, digits and ._+-, got {name!r}")
    if name == ORACLE or name in registry.names():
        raise UsageError(f"{option}: {name!r} is the name of a method of srbench; choose another one")
    root = existing_folder(folder, "", option=option)
    found = scan(root).images
    if not found:
        raise DataError(f"{option}: the folder holds no images (.png, .tif, .webp, .npy ...)")
    files, foreign = _matched(found, (sample.id for sample in source.samples), option)
    if foreign:
        raise DataError(
            f"{option}: {len(foreign)} images belong to no sample of {source.spec!r}: {_some(foreign)};"
            f" name each by the id of its sample, such as {source.samples[0].id!r}"
        )
    lossy = [f"{file} ({why})" for file in found if (why := why_lossy(root / file)) is not None]
    if lossy:
        raise DataError(
            f"{option}: {len(lossy)} images are not as they were restored: {_some(lossy)};"
            " save them as 8-bit PNG, or as .npy for more than 8 bits"
        )
    wanted = [source.samples[index].id for index in limited(source.samples, limit)]
    missing = [each for each in wanted if each not in files]
    if len(missing) > TOLERATED_SHARE * len(wanted):  # fewer may turn out to be unreadable in the data too
        raise _missing(option, missing, source.spec)
    return LoadedMethod(name, Precomputed, None, None, images=RestoredFolder(root, files))


def _matched(found: Sequence[str], ids: Iterable[str], option: str) -> tuple[dict[str, str], list[str]]:
    """Return the file of each id, and the files that belong to none."""
    known = list(ids)
    by_name: dict[str, list[str]] = {each: [each] for each in known}
    for each in known:
        stem = without_suffix(each)
        if stem != each:
            by_name.setdefault(stem, []).append(each)
    files: dict[str, str] = {}
    foreign = []
    for file in found:
        name = stable_id(file)
        candidates = next((by_name[key] for key in (without_suffix(name), name) if key in by_name), [])
        if not candidates:
            foreign.append(file)
        elif len(candidates) > 1:
            raise DataError(
                f"{option}: {file} may belong to {' and '.join(candidates[:2])};"
                f" name it by the whole id, {candidates[0]}.png"
            )
        elif candidates[0] in files:
            raise DataError(f"{option}: {files[candidates[0]]} and {file} belong to one sample; keep one of them")
        else:
            files[candidates[0]] = file
    return files, foreign


def _fitted(loaded: LoadedMethod, hr_store: HRStore, protocol: Protocol) -> LoadedMethod:
    folder = loaded.images
    assert folder is not None
    option, ids = f"--precomputed {loaded.name}={folder.root}", [sample.id for sample in hr_store.samples]
    missing = [each for each in ids if each not in folder.files]
    if missing:
        raise _missing(option, missing, "the task")
    sizes = [_size(folder.root / folder.files[each]) for each in ids]
    wanted = [_sizes_of(position, hr_store, protocol) for position in range(len(ids))]
    factor: int | Literal["any"] = "any"
    expected = [sr for sr, _ in wanted]
    if any(size != sr for size, sr in zip(sizes, expected, strict=True)):
        factors = [_factor(size, lr) for size, (_, lr) in zip(sizes, wanted, strict=True)]
        whole = [each for each in factors if each is not None]
        usual = max(set(whole), key=whole.count) if whole else 0
        if whole.count(usual) > sum(size == sr for size, sr in zip(sizes, expected, strict=True)):
            factor, expected = usual, [(usual * lr[0], usual * lr[1]) for _, lr in wanted]
    wrong = [
        f"{folder.files[each]} ({_written(size)}, expected {_written(right)})"
        for each, size, right in zip(ids, sizes, expected, strict=True)
        if size != right
    ]
    if wrong:
        raise DataError(
            f"{option}: {len(wrong)} of {len(ids)} images have another size than they must have: {_some(wrong)};"
            " all stand at HR size, or all at one whole factor of LR"
        )
    contents = content_hashes(folder.root, (folder.root / folder.files[each] for each in ids))
    return replace(loaded, images=replace(folder, factor=factor, sha256=hash_inputs({"images": contents})))


def _sizes_of(position: int, hr_store: HRStore, protocol: Protocol) -> tuple[Size, Size]:
    """Return (height, width) of SR and of LR of a sample."""
    height, width = (int(side) for side in hr_store.shapes[position])
    real = hr_store.lr_shapes
    lr = protocol.lr.lr_size(height, width) if real is None else (int(real[position][0]), int(real[position][1]))
    return protocol.sr_size(height, width), lr


def _size(path: Path) -> Size:
    header = header_of(path)
    return (0, 0) if header is None else (header.height, header.width)


def _factor(size: Size, lr: Size) -> int | None:
    factor = size[0] // lr[0]
    return factor if factor and size == (factor * lr[0], factor * lr[1]) else None


def _missing(option: str, missing: Sequence[str], where: str) -> DataError:
    return DataError(
        f"{option}: {len(missing)} samples of {where} have no image: {_some(missing)};"
        " a row needs every sample, or its figures are of other images"
    )


def _written(size: Size) -> str:
    return "unreadable" if size == (0, 0) else f"{size[0]} x {size[1]}"


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more
