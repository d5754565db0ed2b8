"""Images in tar files, as webdataset writes them, on a disk or on any file system that fsspec knows."""

from __future__ import annotations

import importlib
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from srbench.data.content import hash_of
from srbench.data.dataset import DatasetInfo
from srbench.data.readers.files import select_split
from srbench.data.source import SampleList, StoredSource
from srbench.errors import DataError, UnreadableImageError, UsageError
from srbench.files.paths import user_path
from srbench.files.regular import open_regular
from srbench.imaging.decode import IMAGE_SUFFIXES, StoredImage, decode_stored_bytes

SHARDS = DatasetInfo(
    name="shards",
    opener="open_shards",
    description="images in tar files (webdataset), such as s3://bucket/photos-{000..099}.tar (extra: remote)",
    argument="TAR",
    labels="classes or none",
)

CLASSES_FILE = "classes.txt"
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
_MOST_LABEL_BYTES = 64  # a label file holds one number
_MOST_BYTES = 2**30  # of one image
_READERS = 16


class Shard:
    """One tar file: a path of the disk, or an address of a file system of fsspec."""

    def __init__(self, address: str, spec: str) -> None:
        """Find the file system; nothing is read.

        Raises:
            UsageError: If fsspec, or the driver of this file system, is not installed.
        """
        self.address = address
        self._files: Any = None
        if "://" in address:
            try:
                fsspec = importlib.import_module("fsspec")
                self._files, self._path = fsspec.core.url_to_fs(address)
            except ImportError as error:
                raise UsageError(
                    f"--data {spec} is on another file system, which needs the extra remote and a driver"
                    f" (pip install 'srbench-resizing[remote]' s3fs): {error}"
                ) from None
            except ValueError as error:
                raise UsageError(
                    f"--data {spec}: {error}; give a path, or an address such as s3://bucket/a.tar"
                ) from None
        else:
            self._local = user_path(Path(address))

    def open(self) -> BinaryIO:
        """Open the file; the caller closes it."""
        if self._files is None:
            return open_regular(self._local)
        return self._files.open(self._path, "rb")

    def read(self, begin: int, size: int) -> bytes:
        """Read `size` bytes from `begin`; threads may do so at once."""
        if self._files is None:
            with self.open() as file:
                file.seek(begin)
                return file.read(size)
        return bytes(self._files.cat_file(self._path, start=begin, end=begin + size))

    def beside(self, name: str) -> bytes | None:
        """Read a small file in the folder of the shard, or return None where there is none."""
        try:
            if self._files is None:
                return (self._local.parent / name).read_bytes()
            return bytes(self._files.cat_file(str(PurePosixPath(self._path).parent / name)))
        except (OSError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of an image lie: number of the shard, first byte, how many."""

    shard: int
    begin: int
    size: int


class ShardSource(StoredSource):
    """A split whose samples are members of tar files; ids are their names there."""

    def __init__(
        self,
        shards: Sequence[Shard],
        members: dict[str, Member],
        *,
        labels: dict[str, int] | None,
        classes: tuple[str, ...] | None,
        name: str,
        spec: str,
        split: str,
    ) -> None:
        """Sort the members by id; `labels` and `classes` are None where there are none."""
        self.name, self.spec, self.split, self.classes = name, spec, split, classes
        ids = sorted(members)
        self.samples = SampleList(ids, None if labels is None else [labels[each] for each in ids])
        self._shards, self._members = shards, [members[each] for each in ids]

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` and say how many channels it stores.

        Raises:
            UnreadableImageError: If it cannot be read or decoded.
        """
        name = self.samples[index].id
        if (size := self._members[index].size) > _MOST_BYTES:
            raise UnreadableImageError(f"{name} has {size:,} bytes, which no image here has")
        try:
            return decode_stored_bytes(self._bytes(index), name)
        except OSError as error:
            raise UnreadableImageError(f"{name} cannot be read: {error.strerror or error}") from error

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return the hash of each member's bytes, or "" where they cannot be read."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="hash") as pool:
            return [(digest,) for digest in pool.map(self._hash, indices)]

    def _bytes(self, index: int) -> bytes:
        member = self._members[index]
        return self._shards[member.shard].read(member.begin, member.size)

    def _hash(self, index: int) -> str:
        if self._members[index].size > _MOST_BYTES:
            return ""
        try:
            return hash_of(self._bytes(index))
        except OSError:
            return ""


def open_shards(argument: str, split: str | None) -> ShardSource:
    """Open `shards:TAR`, where TAR may hold a range such as {000..099}.

    An image is labelled by the number in the .cls file of its key, as webdataset has it, or by the first folder of its
    name in the tar. Numbers are named by the lines of classes.txt beside the shards, where there is one.

    Raises:
        UsageError: If a driver is missing, or there is no split of that name.
        DataError: If a shard cannot be read, two members bear one name, or some images have labels and others none.
    """
    spec = f"shards:{argument}"
    shards = [Shard(address, spec) for address in expand(argument, spec)]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
        listed = list(pool.map(_members_of, shards, range(len(shards)), repeat(spec)))
    members: dict[str, Member] = {}
    numbers: dict[str, int] = {}
    for shard, (images, keyed) in zip(shards, listed, strict=True):
        for name, member in images.items():
            if name in members:
                raise DataError(f"--data {spec}: {shard.address} and a shard before it both hold {name}; rename one")
            members[name] = member
            if (number := keyed.get(_key(name))) is not None:
                numbers[name] = number
    if not members:
        raise DataError(f"--data {spec}: its {len(shards)} tar files hold no images")
    labels, classes = _labels(members, numbers, shards[0], spec)
    split = split or SHARDS.splits[0]
    chosen = set(select_split(list(members), split, spec=spec))
    name = re.sub(r"[-_.]*\{.*?\}[-_.]*", "", PurePosixPath(argument).name.removesuffix(".tar")) or "shards"
    return ShardSource(
        shards,
        {each: member for each, member in members.items() if each in chosen},
        labels=labels,
        classes=classes,
        name=name,
        spec=f"shards:{PurePosixPath(argument).name}",
        split=split,
    )


def expand(argument: str, spec: str) -> list[str]:
    """Return the addresses that a range in braces stands for: a{08..10}.tar is a08.tar, a09.tar, a10.tar.

    Raises:
        UsageError: If the range runs backwards, or there are too many.
    """
    match = _BRACES.search(argument)
    if match is None:
        return [argument]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MOST_SHARDS:
        raise UsageError(f"--data {spec}: expected a range such as {{000..099}}, got {match[0]}")
    before, behind = argument[: match.start()], argument[match.end() :]
    numbers = (f"{number:0{len(match[1])}}" for number in range(first, last + 1))
    return [each for number in numbers for each in expand(f"{before}{number}{behind}", spec)]


def _members_of(shard: Shard, number: int, spec: str) -> tuple[dict[str, Member], dict[str, int]]:
    """Return the images of a tar by name, and the numbers of its .cls files by key."""
    images: dict[str, Member] = {}
    numbers: dict[str, int] = {}
    try:
        with shard.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in _files(tar):
                name = str(PurePosixPath(info.name))
                if not info.isreg() or info.issparse():
                    continue
                if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
                    _check_name(name, images, shard, spec)
                    images[name] = Member(number, info.offset_data, info.size)
                elif name.endswith(".cls") and (taken := tar.extractfile(info)) is not None:
                    numbers[_key(name)] = _number(taken.read(_MOST_LABEL_BYTES), name, spec)
    except (tarfile.TarError, OSError, EOFError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise DataError(f"--data {spec}: {shard.address} cannot be read as a tar file: {said}") from error
    return images, numbers


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members one after another, without keeping them all."""
    while (info := tar.next()) is not None:
        yield info
        tar.members = []  # type: ignore[attr-defined]


def _check_name(name: str, images: dict[str, Member], shard: Shard, spec: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"--data {spec}: {shard.address} holds {name!r}, a name that leads out of its folder")
    if name in images:
        raise DataError(f"--data {spec}: {shard.address} holds {name} twice; rename one")


def _key(name: str) -> str:
    """Return webdataset's key: the name up to the first dot behind the last slash."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.split('.', 1)[0]}"


def _number(text: bytes, name: str, spec: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"--data {spec}: {name} holds {text[:20]!r}; expected the number of a class") from None


def _labels(
    members: dict[str, Member], numbers: dict[str, int], first: Shard, spec: str
) -> tuple[dict[str, int] | None, tuple[str, ...] | None]:
    """Return the label of each image and the names of the classes, or None twice."""
    if numbers:
        if len(numbers) < len(members):
            lacking = next(name for name in members if name not in numbers)
            raise DataError(f"--data {spec}: {lacking} has no .cls file, and {next(iter(numbers))} has one; add it")
        text = first.beside(CLASSES_FILE)
        names = [] if text is None else text.decode("utf-8", "replace").split("\n")
        classes = tuple(line.strip() for line in names if line.strip())
        highest = max(numbers.values())
        classes = classes or tuple(str(number) for number in range(highest + 1))
        if min(numbers.values()) < 0 or highest >= len(classes):
            raise DataError(f"--data {spec}: a .cls file names class {highest}, and there are {len(classes)} classes")
        return numbers, classes
    if all("/" in name for name in members):
        folders = tuple(sorted({name.split("/", 1)[0] for name in members}))
        if len(folders) > 1:
            index: Callable[[str], int] = {folder: at for at, folder in enumerate(folders)}.__getitem__
            return {name: index(name.split("/", 1)[0]) for name in members}, folders
    return None, None
