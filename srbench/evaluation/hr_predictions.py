"""Caches what a network answers on HR, as its task type keeps it, so that it sees each original once."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.hr_cache import HRStore
from srbench.errors import ContractError
from srbench.evaluation.batches import Batch
from srbench.evaluation.counters import Counters
from srbench.evaluation.options import PassSettings, in_parts
from srbench.files.atomic import write_bytes
from srbench.files.caches import mark_used
from srbench.files.paths import cache_dir
from srbench.files.regular import read_regular
from srbench.files.sealed import seal_of, unsealed
from srbench.files.strict import canonical_json
from srbench.networks.classifiers import Classifier
from srbench.task_types import TaskType

FOLDER = "predictions"  # of the cache
Parts = list[Mapping[str, Tensor]]  # one entry a sample, as `TaskType.split` gives it


class HrPredictions:
    """One network's predictions on a chunk's HR images: from the cache, or computed as the chunk's batches pass."""

    def __init__(
        self,
        network: Classifier,
        task_type: TaskType,
        chunk: NDArray[np.int64],
        hr_store: HRStore,
        settings: PassSettings,
        counters: Counters,
    ) -> None:
        """Read the cache.

        Args:
            network: The network.
            task_type: Says what of the network's outputs is kept.
            chunk: Positions of the images.
            hr_store: The HR images.
            settings: Device and arithmetic, on which outputs depend.
            counters: Raised by what is classified.
        """
        self._network, self._task_type = network, task_type
        self._settings, self._counters = settings, counters
        self._row_of = {int(position): row for row, position in enumerate(chunk)}
        self._path = _path(network, task_type, chunk, hr_store, settings)
        cached = _read(self._path, len(chunk), settings.device)
        self._complete = cached is not None
        self._parts: Parts = [{}] * len(chunk) if cached is None else cached
        self._finite: list[Tensor] = []
        self._last: tuple[Batch, Any] | None = None

    def add(self, batch: Batch) -> None:
        """Show the network the HR images of a batch of the chunk, unless its predictions are known."""
        if self._complete:
            return
        assert batch.hr is not None
        with self._settings.numerics.active():
            outputs = in_parts(self._settings, self._network.id, self._network, batch.hr)
        self._finite += [self._task_type.is_finite(output) for output in outputs]
        size = (batch.hr.shape[-2], batch.hr.shape[-1])
        parts = [
            part
            for output in outputs
            for part in self._task_type.split(self._task_type.prediction(output, seen=size, size=size))
        ]
        for position, part in zip(batch.positions, _joined(parts), strict=True):
            self._parts[self._row_of[int(position)]] = part
        self._counters.add(self._counters.hr_classified, self._network.id, len(batch.ids))

    def of(self, batch: Batch) -> Any:
        """Return the predictions of a batch that has been added or is cached, as `TaskType.columns` takes them."""
        if self._last is None or self._last[0] is not batch:
            parts = [self._parts[self._row_of[int(position)]] for position in batch.positions]
            self._last = batch, self._task_type.join(parts)
        return self._last[1]

    def release(self) -> None:
        """Let go of the last batch."""
        self._last = None

    def flush(self) -> None:
        """Store the predictions once all batches of the chunk have passed.

        Raises:
            ContractError: If they are not finite.
            RecordError: If they cannot be written.
        """
        if self._complete:
            return
        if not bool(torch.stack(self._finite).all()):
            raise ContractError(not_finite_outputs(self._network.id))
        arrays = _packed(self._parts)
        whole = all(np.issubdtype(array.dtype, np.integer) for array in arrays.values())
        save = np.savez_compressed if whole else np.savez  # maps of classes shrink a lot, scores hardly
        archive = io.BytesIO()
        save(archive, **arrays)  # type: ignore[arg-type]
        body = archive.getbuffer()
        write_bytes(self._path, lambda stream: stream.writelines((body, seal_of(body))))
        self._complete = True


def not_finite_outputs(network: str | None) -> str:
    """Return what is said of a network whose outputs are not finite."""
    return f"classifier {network} returned NaN or infinite logits; check its weights"


def _path(
    network: Classifier, task_type: TaskType, chunk: NDArray[np.int64], hr_store: HRStore, settings: PassSettings
) -> Path:
    numerics = canonical_json(settings.numerics.to_json())
    key = hashlib.sha256(f"{hr_store.key}|{network.info.sha256}|{task_type.name}|{numerics}".encode()).hexdigest()
    rows = hashlib.sha256(np.ascontiguousarray(chunk, dtype=np.int64).tobytes()).hexdigest()[:16]
    return cache_dir() / FOLDER / key / f"{int(chunk[0]):08d}-{int(chunk[-1]) + 1:08d}-{rows}.npz"


def _joined(parts: Parts) -> Parts:
    """Return the predictions of a batch with the values of all samples in one tensor a name, of which theirs are views.

    Small tensors that stay would lie between the large ones of the next batches, and keep the heap from shrinking.
    """
    columns = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        flat = torch.cat([value.reshape(-1) for value in values])
        columns[name] = _views(flat, [list(value.shape) for value in values])
    return _rows(columns)


def _views(flat: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return tensors of these shapes that lie in a flat one, one after another."""
    each = flat.split([math.prod(shape) for shape in shapes])
    return [value.view(*shape) for value, shape in zip(each, shapes, strict=True)]


def _rows(columns: Mapping[str, Sequence[Tensor]]) -> Parts:
    """Return one entry a sample of tensors by name."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _packed(parts: Parts) -> dict[str, NDArray[Any]]:
    """Return for each name the values of all samples one after another, and the shape of each sample's."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in parts[0]:
        values = [part[name].cpu().numpy() for part in parts]
        arrays[name] = np.concatenate([value.reshape(-1) for value in values])
        arrays[f"{name}.shape"] = np.array([value.shape for value in values], dtype=np.int64)
    return arrays


def _read(path: Path, n: int, device: torch.device) -> Parts | None:
    """Read cached predictions, or return None where there are none, or where they are not what was written."""
    try:
        archive = io.BytesIO(unsealed(read_regular(path)))
    except (OSError, ValueError):
        return None
    with np.load(archive, allow_pickle=False) as stored:
        parts = _unpacked({name: stored[name] for name in stored.files}, n, device)
    mark_used(path.parent)
    return parts


def _unpacked(arrays: Mapping[str, NDArray[Any]], n: int, device: torch.device) -> Parts | None:
    names = [name for name in arrays if not name.endswith(".shape")]
    columns: dict[str, Sequence[Tensor]] = {}
    for name in names:
        values, shapes = arrays[name], arrays.get(f"{name}.shape")
        if shapes is None or len(shapes) != n or shapes.prod(axis=1).sum() != len(values):
            return None
        floating = np.issubdtype(values.dtype, np.floating)
        if floating and (values.dtype != np.float32 or not bool(np.isfinite(values).all())):
            return None
        columns[name] = _views(torch.from_numpy(values).to(device), shapes.tolist())
    return _rows(columns) if names else None
