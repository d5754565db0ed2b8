"""HR crops in a memory-mapped cache: what was decoded once is never decoded again.

The cache of one sample list under one geometry is a folder of chunk files. A killed build goes on with the chunks that
are there, and two builds at once write the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from srbench.data.geometry import place_image, placement
from srbench.data.hr_chunks import (
    ROW,
    Chunk,
    DecodedImage,
    DecodeFailure,
    MappedChunks,
    check_part,
    load_chunk,
    write_chunk,
)
from srbench.data.source import Sample, SampleList, Source
from srbench.data.targets import place_target
from srbench.errors import TooManyUnreadableError, UnreadableImageError, UsageError
from srbench.files.atomic import STALE_S, sweep_temporary
from srbench.files.caches import make_room, mark_used
from srbench.files.paths import cache_dir
from srbench.protocol import Geometry

FORMAT = 5
TOLERATED_SHARE = 0.01

_CHUNK = 256
_NAMED = 5
_MOST_WORKERS = 16


class HRStore:
    """The HR crops of a sample list, uint8, read from the cache when asked for.

    Attributes:
        samples: The readable samples, in the order of the source.
        labels: Their labels, int64, or None where there are none.
        shapes: `(n, 2)`, HR height and width in pixels.
        source_shapes: `(n, 2)`, height and width before the geometry, in pixels.
        lr_shapes: `(n, 2)`, height and width of the real LR images, or None where the source has none.
        stored_channels: `(n,)`, channels that the file of HR stores: 1 for grey, 3 for colour.
        turned: `(n,)`, 1 where EXIF asks that the file of HR be turned, which nothing does.
        geometry: The geometry that was applied; for pairs, the one that changes nothing.
        unreadable: (id, reason) of every sample that could not be read.
        key: Hash of the sample list, what it was read from, and the geometry.
        samples_sha256: Hash of the readable samples, in their order: ids, labels and content, whatever the geometry.
        decoded: How many images the call that opened this store decoded; 0 where the cache held them all.
        decode_seconds: Wall-clock time that decoding them took, in that call or in those that
            filled the cache.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        samples: SampleList,
        table: NDArray[np.int64],
        *,
        geometry: Geometry,
        unreadable: tuple[tuple[str, str], ...],
        key: str,
        contents: pa.StringArray,
        decoded: int,
        decode_seconds: float,
    ) -> None:
        """Keep the index; no pixels are read.

        Args:
            files: The chunk files, each with its bytes of pixels.
            samples: The readable samples.
            table: Per sample: chunk and the columns of `ROW` behind the position.
            geometry: The geometry that was applied.
            unreadable: (id, reason) of what could not be read.
            key: Hash of all that the pixels depend on.
            contents: Per sample: what it is and what its pixels depend on, as JSON.
            decoded: How many images were decoded just now.
            decode_seconds: What decoding them took, whenever that was.
        """
        self.samples = samples
        labels = [sample.label for sample in samples]
        self.labels = None if None in labels or not labels else np.array(labels, dtype=np.int64)
        self.geometry = geometry
        self.unreadable = unreadable
        self.key = key
        self._contents = contents
        self.decoded = decoded
        self.decode_seconds = decode_seconds
        self.shapes = table[:, 2:4]
        self.source_shapes = table[:, 4:6]
        self.lr_shapes = table[:, 6:8] if len(table) and (table[:, 6] > 0).all() else None
        self.stored_channels, self.turned = table[:, 8], table[:, 10]
        self._table = table
        self._intact = np.zeros((len(table), 3), dtype=bool)  # HR, LR and target whose checksums were compared
        self._files = tuple(files)
        self._maps = MappedChunks(self._files)

    @cached_property
    def samples_sha256(self) -> str:
        """Hash of the readable samples; see the attributes."""
        return _sha256_of(self._contents)

    def __len__(self) -> int:
        """Return how many samples could be read."""
        return len(self.samples)

    def batch(self, positions: ArrayLike) -> Tensor:
        """Return the HR images at `positions`, `(N, 3, H, W)`, RGB, uint8.

        Raises:
            ValueError: If they differ in shape.
        """
        return self._gather(_positions(positions), "HR")

    def lr_batch(self, positions: ArrayLike) -> Tensor | None:
        """Return the real LR images at `positions`, `(N, 3, h, w)`, RGB, uint8, or None where the source has none.

        Raises:
            ValueError: If they differ in shape.
        """
        if self.lr_shapes is None:
            return None
        return self._gather(_positions(positions), "LR")

    def targets(self, positions: ArrayLike) -> list[NDArray[Any]] | None:
        """Return what the data say about places in the HR images at `positions`, or None where they say nothing.

        Each is a mask `(H, W)` or boxes `(k, >= 4)`, as `srbench.data.targets.place_target` leaves them.
        """
        chosen = _positions(positions)
        if not len(chosen) or not (self._table[chosen, 9] > 0).all():
            return None
        stored = (self._part(position, 2) for position in chosen)
        return [np.load(io.BytesIO(each.tobytes()), allow_pickle=False) for each in stored]

    def groups(self, positions: ArrayLike, batch_size: int | Callable[[int, int], int]) -> list[NDArray[np.int64]]:
        """Cut positions into batches of at most `batch_size` images of one shape, HR and LR.

        Within a shape the order is kept; shapes come in the order in which they first appear. Where all images have
        one shape, the batches are consecutive. A batch size may depend on the height and width of HR.
        """
        chosen = _positions(positions)
        if not len(chosen):
            return []
        shapes = self._table[chosen][:, [2, 3, 6, 7]]
        kinds, first, group = np.unique(shapes, axis=0, return_index=True, return_inverse=True)
        group = group.reshape(-1)
        batches = []
        for each in np.argsort(first):
            members = chosen[group == each]
            height, width = (int(side) for side in kinds[each, :2])
            images = batch_size if isinstance(batch_size, int) else batch_size(height, width)
            if images < 1:
                raise ValueError(f"expected a batch size of at least 1, got {images}")
            batches += [members[start : start + images] for start in range(0, len(members), images)]
        return batches

    def subset(self, count: int) -> HRStore:
        """Return a store of the first `count` samples; decoding time is shared out in proportion."""
        if count >= len(self):
            return self
        if count < 1:
            raise ValueError(f"expected at least one sample, got {count}")
        return HRStore(
            self._files,
            self.samples[:count],
            self._table[:count],
            geometry=self.geometry,
            unreadable=self.unreadable,
            key=hashlib.sha256(f"{self.key}:{count}".encode()).hexdigest(),
            contents=self._contents[:count],
            decoded=self.decoded,
            decode_seconds=self.decode_seconds * count / len(self),
        )

    def _part(self, position: int, which: int) -> NDArray[np.uint8]:
        """Return the bytes of HR, of LR or of the target of a sample, compared with their checksum the first time."""
        row = self._table[position]
        lengths = (3 * row[2] * row[3], 3 * row[6] * row[7], row[9])
        start = int(row[1]) + int(sum(lengths[:which]))
        part = self._maps.get(int(row[0]))[start : start + int(lengths[which])]
        if not self._intact[position, which]:
            check_part(self._files[int(row[0])][0], part, int(row[11 + which]))
            self._intact[position, which] = True
        return part

    def _gather(self, positions: NDArray[np.int64], what: Literal["HR", "LR"]) -> Tensor:
        rows, which = self._table[positions], 0 if what == "HR" else 1
        shapes = rows[:, 2:4] if what == "HR" else rows[:, 6:8]
        if not len(rows):
            raise ValueError("expected at least one position, got none")
        if (shapes != shapes[0]).any():
            sides = sorted({(int(height), int(width)) for height, width in shapes})
            raise ValueError(f"expected {what} images of one shape in a batch, got {sides[:4]}; cut it with groups()")
        height, width = (int(side) for side in shapes[0])
        pixels = np.empty((len(rows), 3, height, width), dtype=np.uint8)
        for number, position in enumerate(positions):
            pixels[number] = self._part(position, which).reshape(3, height, width)
        return torch.from_numpy(pixels)


def build_hr_store(
    source: Source,
    geometry: Geometry,
    *,
    limit: int | None = None,
    workers: int | None = None,
    retry: bool = True,
    advance: Callable[[int], None] | None = None,
) -> HRStore:
    """Decode and crop what the cache does not hold yet, and open it.

    Real pairs keep their own size: a resized or cropped HR would no longer fit its LR, so no geometry is applied.

    Args:
        source: The split.
        geometry: How an image becomes HR.
        limit: Take only so many samples, in the order of the hash of the id, so that classes stay balanced.
        workers: Threads that decode; None takes one a core, at most 16.
        retry: Try files again that could not be reached before; else they stay unreadable, as another process found.
        advance: Called with the number of images that are newly done, cached ones included.

    Raises:
        UsageError: If the limit is below 1.
        TooManyUnreadableError: If more than 1 % of the images cannot be read.
        SrbenchError: If the cache folder cannot be written.
    """
    cache = _Cache(source, geometry, limit)
    chunks, decoded = cache.chunks(range(cache.n_chunks), workers, advance, retry=retry)
    samples = cache.samples
    unreadable = tuple((samples[position].id, reason) for chunk in chunks for position, reason in chunk.unreadable)
    _check_unreadable(unreadable, len(samples), source)
    tables = [np.insert(chunk.rows, 1, number, axis=1) for number, chunk in enumerate(chunks)]
    table = np.concatenate(tables) if tables else np.empty((0, len(ROW) + 1), dtype=np.int64)
    return HRStore(
        [(cache.path(number), chunk.pixels) for number, chunk in enumerate(chunks)],
        samples.take(table[:, 0]),
        np.ascontiguousarray(table[:, 1:]),
        geometry=cache.geometry,
        unreadable=unreadable,
        key=cache.key,
        contents=cache.contents.take(pa.array(table[:, 0])),
        decoded=decoded,
        decode_seconds=sum(chunk.seconds for chunk in chunks),
    )


def fill_hr_cache(
    source: Source,
    geometry: Geometry,
    *,
    share: tuple[int, int],
    limit: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> int:
    """Decode one process's share of what the cache does not hold yet; return how many images that were.

    Args:
        source: The split.
        geometry: How an image becomes HR.
        share: Number of this process and number of processes; each writes other files than the others.
        limit: As in `build_hr_store`.
        advance: As in `build_hr_store`.

    Raises:
        UsageError: If the limit is below 1.
        SrbenchError: If the cache folder cannot be written.
    """
    cache = _Cache(source, geometry, limit)
    return cache.chunks(range(share[0], cache.n_chunks, share[1]), None, advance, retry=True)[1]


class _Cache:
    """The chunk files of a sample list under a geometry."""

    def __init__(self, source: Source, geometry: Geometry, limit: int | None) -> None:
        self.geometry = Geometry() if source.paired else geometry
        samples = source.samples if isinstance(source.samples, SampleList) else SampleList.of(source.samples)
        indices = limited(samples, limit)
        self.samples = samples.take(indices)
        self.contents = _contents(source, indices, self.samples)
        self.key = _key(source, self.geometry, self.contents)
        self.n_chunks = -(-len(indices) // _CHUNK)
        self._folder = cache_dir() / "hr" / self.key
        self._reader = _Reader(source, self.geometry, indices)

    def path(self, number: int) -> Path:
        return self._folder / f"chunk-{number:06d}.hr"

    def chunks(
        self, numbers: range, workers: int | None, advance: Callable[[int], None] | None, *, retry: bool
    ) -> tuple[list[Chunk], int]:
        """Return the indices of chunks, decoding those that are not there, and how many images were decoded."""
        workers = max(1, workers if workers is not None else min(_MOST_WORKERS, _cores()))
        advance = advance or (lambda count: None)
        if self._folder.is_dir():
            sweep_temporary(self._folder, older_than_s=STALE_S)  # a living build writes to its own all the time
        mark_used(self._folder)
        chunks: list[Chunk] = []
        decoded, looked = 0, False
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            for number in numbers:
                wanted = range(number * _CHUNK, min((number + 1) * _CHUNK, len(self.samples)))
                chunk = load_chunk(self.path(number), wanted, retry=retry)
                if chunk is None:
                    if decoded and not looked:
                        make_room(self._still_needed(numbers[numbers.index(number) :], chunks))
                        looked = True
                    chunk = write_chunk(
                        self.path(number), wanted, self._reader, pool, lookahead=4 * workers, advance=advance
                    )
                    decoded += len(wanted)
                else:
                    advance(len(wanted))
                chunks.append(chunk)
        return chunks, decoded

    def _still_needed(self, numbers: Sequence[int], chunks: Sequence[Chunk]) -> int:
        """Return how many bytes the missing files of these numbers will take, judged by those that are there."""
        images = max(sum(len(chunk.rows) for chunk in chunks), 1)
        missing = sum(
            min(_CHUNK, len(self.samples) - number * _CHUNK) for number in numbers if not self.path(number).is_file()
        )
        return sum(chunk.pixels for chunk in chunks) * missing // images


class _Reader:
    """Reads one image of the list; called from the decoding threads."""

    def __init__(self, source: Source, geometry: Geometry, indices: Sequence[int]) -> None:
        self._source, self._geometry, self._indices = source, geometry, indices

    def __call__(self, position: int) -> DecodedImage | DecodeFailure:
        index = self._indices[position]
        try:
            stored = self._source.read_stored(index)
            image = stored.pixels
            height, width = image.shape[-2:]
            placed = placement(height, width, self._geometry, name=self._source.samples[index].id)
            hr = place_image(image, placed, self._geometry)
            target = None if stored.target is None else place_target(stored.target, placed)
            lr = self._source.read_lr(index)
        except UnreadableImageError as error:
            cause = error.__cause__
            return DecodeFailure(str(error), isinstance(cause, OSError) and cause.errno is not None)
        except OSError as error:
            name = self._source.samples[index].id
            return DecodeFailure(f"{name} cannot be read: {error.strerror or error}", True)
        return DecodedImage(
            np.ascontiguousarray(hr.numpy()),
            None if lr is None else np.ascontiguousarray(lr.numpy()),
            (image.shape[-2], image.shape[-1]),
            stored.channels,
            target,
            stored.turned,
        )


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positions(positions: ArrayLike) -> NDArray[np.int64]:
    return np.asarray(positions, dtype=np.int64).reshape(-1)


def limited(samples: Sequence[Sample], limit: int | None) -> Sequence[int]:
    """Return the positions that `--limit` leaves, ascending: by the hash of the id, so that classes stay balanced.

    Raises:
        UsageError: If the limit is below 1.
    """
    if limit is None:
        return range(len(samples))
    if limit < 1:
        raise UsageError(f"--limit must be at least 1, got {limit}")
    hashes = [hashlib.sha256(sample.id.encode()).digest() for sample in samples]
    return sorted(sorted(range(len(samples)), key=hashes.__getitem__)[:limit])


def _contents(source: Source, indices: Sequence[int], samples: SampleList) -> pa.StringArray:
    """Return for each sample what it is and what its pixels depend on, as JSON."""
    stamps = source.stamps(indices)
    lines = [json.dumps([*each.hash_fields, *stamp]) for each, stamp in zip(samples, stamps, strict=True)]
    return pa.array(lines, pa.string())


def _key(source: Source, geometry: Geometry, contents: pa.StringArray) -> str:
    head = [FORMAT, source.name, source.split, asdict(geometry), source.paired]
    return _sha256_of(contents, json.dumps(head, sort_keys=True))


def _sha256_of(contents: pa.StringArray, head: str = "") -> str:
    digest = hashlib.sha256(head.encode())
    for start in range(0, len(contents), 1024):
        digest.update("".join(contents.slice(start, 1024).to_pylist()).encode())
    return digest.hexdigest()


def _check_unreadable(unreadable: tuple[tuple[str, str], ...], total: int, source: Source) -> None:
    if len(unreadable) <= TOLERATED_SHARE * total:
        return
    named = "; ".join(reason for _, reason in unreadable[:_NAMED])
    more = f"; and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
    raise TooManyUnreadableError(
        f"{len(unreadable)} of {total} images of {source.spec} cannot be used, more than the"
        f" {TOLERATED_SHARE:.0%} that may be left out: {named}{more}; repair or remove them"
    )
