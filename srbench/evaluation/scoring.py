"""The one pass: every batch is read, degraded and classified once, then every method restores the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.compute.devices import on_device
from srbench.compute.process import FreedMemory
from srbench.data.hr_cache import HRStore
from srbench.errors import ContractError, RecordError, sentence, traceback_text
from srbench.evaluation import options
from srbench.evaluation.batches import Batch, BatchReader
from srbench.evaluation.counters import Counters
from srbench.evaluation.distributed import Ranks
from srbench.evaluation.hr_predictions import HrPredictions, not_finite_outputs
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.options import PassSettings, in_parts
from srbench.evaluation.plan import PlannedCell, ScoredNetwork
from srbench.evaluation.restored import RestoredBatch
from srbench.evaluation.rows import CellRows, Stopwatch
from srbench.evaluation.runtimes import ExportedFiles
from srbench.evaluation.sizes import square
from srbench.evaluation.thumbnails import PENDING_BYTES, Images, ThumbnailBuffer, ThumbnailSelector
from srbench.export.graph import ExportError
from srbench.imaging.degrade import for_classifier, for_metric, restore_size
from srbench.imaging.sizes import at_side
from srbench.metrics.catalogue import image_columns
from srbench.protocol import Protocol
from srbench.records.schema import ORACLE
from srbench.records.shards import done_positions
from srbench.restore import is_finite, not_finite
from srbench.task_types import BatchResult


@dataclass(frozen=True)
class Failure:
    """Why a cell failed.

    Attributes:
        reason: One sentence.
        traceback: Where in the code, or None where nothing was raised.
        status: "error", or "skipped" where what was asked for does not exist: no file can hold the method.
    """

    reason: str
    traceback: str | None = None
    status: Literal["error", "skipped"] = "error"

    @classmethod
    def of(cls, error: Exception, prefix: str = "") -> Failure:
        """Return the failure of an error; `prefix` stands before its sentence."""
        if isinstance(error, ExportError):
            return cls(prefix + str(error), status="skipped")
        return cls(prefix + sentence(error), traceback_text(error))


@dataclass(frozen=True)
class PassResult:
    """What a pass leaves besides the shards.

    Attributes:
        failures: What went wrong, by the folder of each cell that failed.
        kept: Images of the samples that are likely to be kept, as this pass had them, by the folder of the cell.
    """

    failures: dict[Path, Failure] = field(default_factory=dict)
    kept: dict[Path, Images] = field(default_factory=dict)


def run_pass(
    cells: Sequence[PlannedCell],
    hr_store: HRStore,
    protocol: Protocol,
    settings: PassSettings,
    *,
    ranks: Ranks,
    counters: Counters,
    advance: Callable[[int], None],
    selectors: Mapping[str | None, ThumbnailSelector],
    files: ExportedFiles,
) -> PassResult:
    """Compute this process's share of the missing samples of every cell and write them as shards.

    Args:
        cells: What is to be computed; rows that a cell's folder already holds are left alone.
        hr_store: The HR images.
        protocol: The protocol.
        settings: Device, arithmetic, batch size, seed.
        ranks: This process among the others.
        counters: Raised by what is done.
        advance: Called with the number of samples newly done.
        selectors: By classifier, what selects the samples that keep their pixels; updated by what this pass computes.
        files: The exported files, for cells with a runtime.

    Raises:
        RecordError: If results cannot be written; nothing half-written stays.
    """
    result = PassResult()
    done = {cell.folder: done_positions(cell.folder, cell.input_hash) for cell in cells}
    share = ranks.share(len(hr_store))
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        reader = BatchReader(hr_store, protocol, settings, counters, thread)
        thumbnails = ThumbnailBuffer(selectors, result.kept, PENDING_BYTES[settings.device.type])
        scoring = _Pass(hr_store, protocol, settings, counters, reader, thumbnails, result, files)
        for start in range(0, len(share), options.CHUNK):
            chunk = share[start : start + options.CHUNK]
            # A stopped run leaves whole chunks, unless it had another number of ranks: then cells lack different rows.
            by_rows: dict[tuple[int, ...], list[PlannedCell]] = {}
            for cell in cells:
                if cell.folder not in result.failures:
                    rows = tuple(position for position in chunk.tolist() if position not in done[cell.folder])
                    by_rows.setdefault(rows, []).append(cell)
            for rows, group in by_rows.items():
                if rows:
                    scoring.chunk(group, np.array(rows))
            advance(len(chunk))
    return result


class _Targets:
    """What one network's predictions of a chunk are held against.

    Attributes:
        hr: Its predictions on HR; None where there is no HR.
    """

    def __init__(
        self, scored: ScoredNetwork, hr: HrPredictions | None, hr_store: HRStore, device: torch.device
    ) -> None:
        self.hr = hr
        self._scored, self._store, self._device = scored, hr_store, device
        self._last: tuple[Batch, Any] | None = None

    def of_data(self, batch: Batch) -> Any:
        """Return what the data say of a batch, as the task type has it, on the device; read once for all methods."""
        if self._last is None or self._last[0] is not batch:
            assert self._scored.outputs is not None
            targets = self._scored.task_type.targets(
                self._store.samples.take(batch.positions), self._scored.outputs, self._store.targets(batch.positions)
            )
            self._last = batch, on_device(targets, self._device)
        return self._last[1]

    def release(self) -> None:
        """Let go of the last batch."""
        self._last = None
        if self.hr is not None:
            self.hr.release()


@dataclass(frozen=True)
class _Seen:
    """What classifiers see of a batch at one input size.

    Attributes:
        image: `(N, 3, H, W)`, RGB, float32, clamped and rounded as the protocol says.
        quality: Image metrics, `(N,)` each; none beside the protocol's own size.
        watches: What restoring it took.
        finite: Sentences for values that are not finite, each with a bool on the device that says whether they are.
    """

    image: Tensor
    quality: Mapping[str, Tensor]
    watches: tuple[Stopwatch, ...] = ()
    finite: tuple[tuple[str, Tensor], ...] = ()


@dataclass(frozen=True)
class _Answer:
    """What a network answers on a batch.

    Attributes:
        value: The prediction, as its task type keeps it.
        is_finite: Whether the network's outputs were finite, a bool on the device; None where that is looked at
            elsewhere.
    """

    value: Any
    is_finite: Tensor | None


def _answer(cell: PlannedCell, output: Any, batch: Batch, *, seen: tuple[int, int]) -> _Answer:
    """Return what a network's output says, as the cell's task type keeps it.

    Args:
        cell: The cell.
        output: What the network returned.
        batch: The images.
        seen: Height and width of what the network saw.
    """
    task_type = cell.scored.task_type
    size = batch.sr_size if batch.hr is None else (batch.hr.shape[-2], batch.hr.shape[-1])
    return _Answer(task_type.prediction(output, seen=seen, size=size), task_type.is_finite(output))


def _joined(answers: Sequence[_Answer], cell: PlannedCell) -> _Answer:
    """Return the answers on the parts of a batch as one."""
    if len(answers) == 1:
        return answers[0]
    task_type = cell.scored.task_type
    flags = [answer.is_finite for answer in answers if answer.is_finite is not None]
    return _Answer(
        task_type.join([part for answer in answers for part in task_type.split(answer.value)]),
        torch.stack(flags).all() if flags else None,
    )


class _Pass:
    """What every chunk of a pass shares.

    Nothing in the loop over batches waits for the device: whether values are finite, what they are, how long they took
    and which pixels are kept is looked at when a chunk is written, or when the images that wait for it have become too
    many.
    """

    def __init__(
        self,
        hr_store: HRStore,
        protocol: Protocol,
        settings: PassSettings,
        counters: Counters,
        reader: BatchReader,
        thumbnails: ThumbnailBuffer,
        result: PassResult,
        files: ExportedFiles,
    ) -> None:
        self._store, self._protocol, self._settings, self._counters = hr_store, protocol, settings, counters
        self._reader, self._thumbnails, self._result = reader, thumbnails, result
        self._files = files
        self._memory = FreedMemory() if settings.device.type == "cpu" else None

    def chunk(self, cells: Sequence[PlannedCell], chunk: NDArray[np.int64]) -> None:
        """Compute rows that all of these cells lack, and write a shard for each."""
        targets = self._targets(cells, chunk)
        rows = {cell.folder: CellRows() for cell in cells}
        by_method: dict[int, list[PlannedCell]] = {}
        for cell in cells:
            by_method.setdefault(id(cell.loaded), []).append(cell)
        needs_lr = any(cell.loaded for cell in cells)
        for batch in self._reader.batches(chunk, needs_lr=needs_lr) if self._alive(cells) else ():
            self._classify_hr(cells, batch, targets)
            for group in by_method.values():
                self._restore(self._alive(group), batch, targets, rows)
            if self._thumbnails.is_full:
                self._thumbnails.flush(self._alive(cells), rows)
            # Pixels of a batch that is done would lie between those of the next one, and the heap would grow by holes.
            for target in targets.values():
                target.release()
            del batch
            if self._memory is not None:
                self._memory.after_batch()
        self._finish_hr(cells, targets)
        self._thumbnails.flush(self._alive(cells), rows)
        for cell in self._alive(cells):
            try:
                rows[cell.folder].check_finite()
            except ContractError as error:
                self._fail([cell], Failure.of(error))
        for cell in self._alive(cells):
            names = [cell.scored.id or "", *([cell.loaded.title] if cell.loaded is not None else [])]
            rows[cell.folder].write(cell.folder, cell.input_hash, at_once=self._settings.limits.smallest(*names))

    def _alive(self, cells: Sequence[PlannedCell]) -> list[PlannedCell]:
        return [cell for cell in cells if cell.folder not in self._result.failures]

    def _fail(self, cells: Iterable[PlannedCell], failure: Failure) -> None:
        self._result.failures.update({cell.folder: failure for cell in cells})

    def _fail_network(self, cells: Sequence[PlannedCell], network: str | None, error: Exception) -> None:
        """Fail all cells of a classifier."""
        prefix = "" if isinstance(error, ContractError) else f"classifier {network} fails on HR: "
        failure = Failure.of(error, prefix)
        self._fail([cell for cell in self._alive(cells) if cell.scored.id == network], failure)

    def _targets(self, cells: Sequence[PlannedCell], chunk: NDArray[np.int64]) -> dict[str | None, _Targets]:
        targets = {}
        for scored in {cell.scored.id: cell.scored for cell in cells}.values():
            if scored.classifier is None or scored.outputs is None:
                continue
            try:
                hr = (
                    None
                    if self._protocol.is_small
                    else HrPredictions(
                        scored.classifier, scored.task_type, chunk, self._store, self._settings, self._counters
                    )
                )
                targets[scored.id] = _Targets(scored, hr, self._store, self._settings.device)
            except Exception as error:  # noqa: BLE001 a classifier that fails is a record; the others go on
                self._fail_network(cells, scored.id, error)
        return targets

    def _classify_hr(self, cells: Sequence[PlannedCell], batch: Batch, targets: Mapping[str | None, _Targets]) -> None:
        """Classify the original images, once for all methods, where the logits are not known from another run."""
        for network, target in targets.items():
            if target.hr is not None and any(cell.scored.id == network for cell in self._alive(cells)):
                try:
                    target.hr.add(batch)
                except Exception as error:  # noqa: BLE001 as above
                    self._fail_network(cells, network, error)

    def _finish_hr(self, cells: Sequence[PlannedCell], targets: Mapping[str | None, _Targets]) -> None:
        for network, target in targets.items():
            if target.hr is not None and any(cell.scored.id == network for cell in self._alive(cells)):
                try:
                    target.hr.flush()
                except ContractError as error:
                    self._fail_network(cells, network, error)

    def _restore(
        self,
        cells: Sequence[PlannedCell],
        batch: Batch,
        targets: Mapping[str | None, _Targets],
        rows: Mapping[Path, CellRows],
    ) -> None:
        """Restore a batch by one method, and hold it against HR for each of the method's cells, of all input sizes."""
        if not cells:
            return
        loaded = cells[0].loaded
        if loaded is not None and loaded.runtime is not None:
            self._run_files(loaded, cells, batch, targets, rows)
            return
        by_size: dict[int | None, list[PlannedCell]] = {}
        for cell in cells:
            by_size.setdefault(cell.side, []).append(cell)
        try:
            restored = None if loaded is None else RestoredBatch(loaded, batch, self._protocol, self._settings)
        except Exception as error:  # noqa: BLE001 a method that fails is a record; the others go on
            self._fail(cells, Failure.of(error))
            return
        for side, group in by_size.items():
            try:
                seen = self._original(batch, side) if restored is None else self._restored(restored, batch, side)
            except RecordError:
                raise
            except Exception as error:  # noqa: BLE001 as above
                self._fail(group, Failure.of(error))
                continue
            if side is None:
                self._thumbnails.add(group, seen.image, batch)
            self._score(group, seen, batch, targets, rows)
        if restored is not None and restored.calls:
            self._counters.add(self._counters.restored, restored.loaded.title, len(batch.ids) * restored.calls)

    def _run_files(
        self,
        loaded: LoadedMethod,
        cells: Sequence[PlannedCell],
        batch: Batch,
        targets: Mapping[str | None, _Targets],
        rows: Mapping[Path, CellRows],
    ) -> None:
        """Run a batch through the exported file of each cell, which holds method and network together."""
        assert batch.lr is not None
        height, width = batch.lr.shape[-2:]
        for cell in cells:
            size = batch.sr_size if cell.side is None else at_side(batch.sr_size, cell.side)
            try:
                file = self._files.of(loaded, cell.scored.classifier, cell.network, (height, width), size)
                with Stopwatch(self._settings.device) as watch:
                    logits, sr = file(batch.lr, with_sr=cell.side is None)
                quality: Mapping[str, Tensor] = {}
                finite: list[tuple[str, Tensor]] = []
                if sr is not None:
                    _, quality = _quality(sr, batch, self._protocol, output=loaded.cls.info.output)
                    finite = [(not_finite(cell.key.name), is_finite(sr))]
                self._add(
                    cell,
                    batch,
                    None if logits is None else _answer(cell, logits, batch, seen=size),
                    targets,
                    rows,
                    quality=quality,
                    watches=[watch],
                    finite=finite,
                )
            except Exception as error:  # noqa: BLE001 as above: a file that fails is one record
                self._fail([cell], Failure.of(error))
                continue
            self._counters.add(self._counters.restored, loaded.title, len(batch.ids))

    def _original(self, batch: Batch, side: int | None) -> _Seen:
        """Return HR, at an input size by the protocol's kernel."""
        assert batch.hr is not None
        if side is None:
            return _Seen(batch.hr, _quality_of_hr(batch, self._protocol))
        with Stopwatch(self._settings.device) as watch:
            image = restore_size(batch.hr, at_side(batch.sr_size, side), self._protocol.sr)
        return _Seen(for_classifier(image, self._protocol), {}, watches=(watch,))

    def _restored(self, restored: RestoredBatch, batch: Batch, side: int | None) -> _Seen:
        """Return SR at an input size; PSNR and SSIM belong to the protocol's own alone."""
        size = batch.sr_size if side is None else at_side(batch.sr_size, side)
        sr, watches = restored.at(size)
        finite = ((not_finite(restored.loaded.name), is_finite(sr)),)
        if side is not None:
            return _Seen(for_classifier(sr, self._protocol), {}, watches, finite)
        image, quality = _quality(sr, batch, self._protocol, output=restored.loaded.cls.info.output)
        return _Seen(image, quality, watches, finite)

    def _score(
        self,
        cells: Sequence[PlannedCell],
        seen: _Seen,
        batch: Batch,
        targets: Mapping[str | None, _Targets],
        rows: Mapping[Path, CellRows],
    ) -> None:
        """Add the rows of a batch to all cells of one method and input size."""
        for cell in cells:
            try:
                answer, classifying = self._classify(cell, seen.image, batch, targets)
                watches = [*seen.watches, *classifying]
                self._add(cell, batch, answer, targets, rows, quality=seen.quality, watches=watches, finite=seen.finite)
            except Exception as error:  # noqa: BLE001 as above: one classifier that fails is one record
                self._fail([cell], Failure.of(error))

    def _add(
        self,
        cell: PlannedCell,
        batch: Batch,
        answer: _Answer | None,
        targets: Mapping[str | None, _Targets],
        rows: Mapping[Path, CellRows],
        *,
        quality: Mapping[str, Tensor],
        watches: Sequence[Stopwatch],
        finite: Sequence[tuple[str, Tensor]],
    ) -> None:
        """Add the rows of a batch to a cell."""
        scored = BatchResult({}) if answer is None else _scored(answer.value, cell.scored, batch, targets)
        flags = []
        if answer is not None and answer.is_finite is not None:
            flags.append((not_finite_outputs(cell.scored.id), answer.is_finite))
        rows[cell.folder].add(batch, quality, scored, watches=watches, finite=[*finite, *flags])

    def _classify(
        self, cell: PlannedCell, image: Tensor, batch: Batch, targets: Mapping[str | None, _Targets]
    ) -> tuple[_Answer | None, list[Stopwatch]]:
        """Return the network's prediction on SR or HR, or None without a network, and what it took."""
        if cell.network is None:
            return None, []
        if cell.loaded is None and cell.key.input_size is None:
            known = targets[cell.scored.id].hr
            assert known is not None  # without HR there is no original
            return _Answer(known.of(batch), None), []
        insisted = cell.scored.classifier.info.input_size if cell.scored.classifier is not None else None
        if self._protocol.is_small and insisted is not None and insisted == min(image.shape[-2:]):
            image = square(image, insisted)
        seen = image.shape[-2], image.shape[-1]
        with Stopwatch(self._settings.device) as watch, self._settings.numerics.active():
            outputs = in_parts(self._settings, cell.scored.id or "", cell.network, image)
        self._counters.add(self._counters.sr_classified, f"{_title(cell.loaded)} {cell.scored.id}", len(batch.ids))
        answers = [_answer(cell, output, batch, seen=seen) for output in outputs]
        return _joined(answers, cell), [watch]


def _scored(
    prediction: Any, scored: ScoredNetwork, batch: Batch, targets: Mapping[str | None, _Targets]
) -> BatchResult:
    target = targets[scored.id]
    assert scored.outputs is not None
    hr_prediction = None if target.hr is None else target.hr.of(batch)
    return scored.task_type.columns(prediction, hr_prediction, target.of_data(batch), scored.outputs)


def _quality(sr: Tensor, batch: Batch, protocol: Protocol, *, output: str) -> tuple[Tensor, dict[str, Any]]:
    """Return SR as a classifier sees it, and what it is worth as an image."""
    seen = for_classifier(sr, protocol)
    if batch.hr is None or batch.statistics is None or output != "hr" or protocol.lr.none:
        return seen, {}
    if tuple(sr.shape[-2:]) != tuple(batch.hr.shape[-2:]):
        return seen, {}
    same = (protocol.sr.clamp, protocol.sr.round) == (protocol.score.clamp, protocol.score.round)
    compared = seen if same else for_metric(sr, protocol)
    pair = batch.statistics.pair(compared)
    return seen, {column.name: column.of_pair(pair) for column in image_columns() if column.of_pair is not None}


def _quality_of_hr(batch: Batch, protocol: Protocol) -> dict[str, Any]:
    if protocol.lr.none:
        return {}
    return {column.name: torch.full((len(batch.ids),), column.exact) for column in image_columns()}


def _title(loaded: LoadedMethod | None) -> str:
    return ORACLE if loaded is None else loaded.title
