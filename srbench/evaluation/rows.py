"""Holds the per-sample values of a cell on the device until a chunk is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srbench.errors import ContractError
from srbench.evaluation.batches import Batch
from srbench.records.samples import samples_frame
from srbench.records.shards import LEAST, write_shard
from srbench.task_types import BatchResult


class CellRows:
    """Collects the values of one cell and chunk batch by batch, and writes them as a shard."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._ids: list[str] = []
        self._positions: list[np.ndarray] = []
        self._columns: dict[str, list[Tensor]] = {}
        self._lists: dict[str, list[tuple[Tensor, list[int]]]] = {}
        self._scores: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}
        self._watches: list[Stopwatch] = []
        self._finite: dict[str, list[Tensor]] = {}
        self._returned = 0  # batches that `new_columns` has returned

    def add(
        self,
        batch: Batch,
        quality: Mapping[str, Tensor],
        result: BatchResult,
        *,
        watches: Sequence[Stopwatch],
        finite: Sequence[tuple[str, Tensor]],
    ) -> None:
        """Add a batch.

        Args:
            batch: The images.
            quality: Image metrics, `(N,)` each.
            result: What the classifier made of them.
            watches: Times that the cell has taken.
            finite: Sentences for values that are not finite, each with a bool on the device that says whether they are.
        """
        self._ids += batch.ids
        self._positions.append(batch.positions)
        for name, values in (*quality.items(), *result.columns.items()):
            if isinstance(values, Tensor) and values.ndim == 1:
                self._columns.setdefault(name, []).append(values.detach())
            else:
                self._lists.setdefault(name, []).append(_joined(values))
        if result.scores is not None:
            self._scores.append(result.scores.detach())
        for name, value in result.sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._watches += watches
        for reason, flag in finite:
            self._finite.setdefault(reason, []).append(flag)

    def check_finite(self) -> None:
        """Look whether everything was finite, what was computed first is looked at first.

        Raises:
            ContractError: If not.
        """
        for reason, flags in self._finite.items():
            if not bool(torch.stack(flags).all()):
                raise ContractError(reason)

    def new_columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return positions and these columns, where there are some, of the batches added since the last call."""
        first, self._returned = self._returned, len(self._positions)
        present = [name for name in names if name in self._columns]
        return {name: _to_numpy(self._columns[name][first:]) for name in present} | {
            "position": np.concatenate(self._positions[first:])
        }

    def write(self, folder: Path, input_hash: str, *, at_once: int | None = None) -> None:
        """Write the rows as a shard of the cell's folder.

        Args:
            folder: The cell's folder.
            input_hash: Hash of its inputs.
            at_once: Images that were computed at once, where the memory did not hold a batch.

        Raises:
            RecordError: If they cannot be written; nothing half-written stays.
        """
        columns: dict[str, Any] = {name: _to_numpy(values) for name, values in self._columns.items()}
        columns |= {name: _to_lists(values) for name, values in self._lists.items()}
        columns |= {"position": np.concatenate(self._positions), "sample_id": self._ids}
        scores = torch.cat(self._scores).float().cpu().numpy() if self._scores else None
        sums: dict[str, Any] = {name: value.cpu().numpy() for name, value in self._sums.items()}
        sums["pass_s"] = np.float64(sum(watch.seconds for watch in self._watches))
        if at_once is not None:
            sums[f"{LEAST}at_once"] = np.int64(at_once)
        write_shard(folder, input_hash, samples_frame(columns, scores=scores), sums=sums)


class Stopwatch:
    """Seconds that the device spends on a block: on a GPU between two events, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        """Prepare for a block on this device."""
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        self._seconds = 0.0

    def __enter__(self) -> Stopwatch:
        if self._events:
            self._events[0].record()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._events:
            self._events[1].record()
        self._seconds = time.perf_counter() - self._start

    @property
    def seconds(self) -> float:
        """Seconds of the block, which must have ended; a GPU is waited for."""
        if not self._events:
            return self._seconds
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1]) / 1e3


def _to_numpy(values: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([value.reshape(-1) for value in values]).cpu().numpy()


def _joined(lists: Tensor | Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """Return the lists of a batch, `(N, L)` or a tensor a sample, one after another, and the length of each.

    Small tensors that stay would lie between the large ones of the next batches, and keep the heap from shrinking.
    """
    return torch.cat([each.detach() for each in lists]), [len(each) for each in lists]


def _to_lists(batches: Sequence[tuple[Tensor, list[int]]]) -> list[np.ndarray]:
    """Return one array a sample."""
    rows: list[np.ndarray] = []
    for values, lengths in batches:
        rows += np.split(values.cpu().numpy(), np.cumsum(lengths)[:-1])
    return rows
