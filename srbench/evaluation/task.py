"""One task from start to end: decode, plan, pass, timing, records, thumbnails."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srbench.compute.process import give_back_freed_memory
from srbench.compute.progress import track
from srbench.data.hr_cache import HRStore, build_hr_store, fill_hr_cache
from srbench.data.metadata import sample_columns
from srbench.errors import DataError, RecordError, SrbenchError, UsageError
from srbench.evaluation import assemble, thumbnails
from srbench.evaluation.batches import single
from srbench.evaluation.costs import Costs, Stopwatches
from srbench.evaluation.counters import Counters
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.options import PassSettings, in_parts
from srbench.evaluation.plan import PlannedCell, originals_and_baselines, plan_cells
from srbench.evaluation.precomputed import fitted
from srbench.evaluation.resolve import Evaluation
from srbench.evaluation.restored import RestoredBatch
from srbench.evaluation.runtimes import ExportedFiles
from srbench.evaluation.scoring import Failure, PassResult, run_pass
from srbench.evaluation.thumbnails import Images, ThumbnailSelector
from srbench.imaging.degrade import for_classifier
from srbench.leaderboard.pairing import pairing_key
from srbench.protocol import Protocol
from srbench.records.cells import StoredCell, cell_folder, commit_cell, load_cell, status_of
from srbench.records.provenance import code_state, environment
from srbench.records.sample_columns import write_columns
from srbench.records.schema import Record, Status, TimingPart
from srbench.records.shards import LEAST, discard_partial, merge_shards, merged_sums
from srbench.records.thumbnails import THUMBNAILS_FILE, thumbnails_key, write_thumbnails
from srbench.restore import check_finite


def run_task(evaluation: Evaluation, protocol: Protocol, counters: Counters) -> list[StoredCell]:
    """Compute what is missing of one task, and return all of its cells, in the order of the table.

    Args:
        evaluation: The call.
        protocol: One of its protocols.
        counters: Raised by what this process does.

    Raises:
        UsageError: If the data has too few images for the protocol.
        SrbenchError: If data cannot be read or results cannot be written.
    """
    hr_store = _open_hr_store(evaluation, protocol, counters)
    methods = fitted(evaluation.methods[protocol.fingerprint], hr_store, protocol)
    evaluation = dataclasses.replace(evaluation, methods={**evaluation.methods, protocol.fingerprint: methods})
    cells = plan_cells(evaluation, protocol, hr_store)
    task = _Task(evaluation, protocol, hr_store, cells)
    result = task.score(counters)
    evaluation.ranks.wait()
    give_back_freed_memory()
    if evaluation.ranks.is_first:
        task.write_records(result.failures)
        give_back_freed_memory()
        task.write_thumbnails(result.kept)
        give_back_freed_memory()
    evaluation.ranks.wait()
    return task.results()


def _open_hr_store(evaluation: Evaluation, protocol: Protocol, counters: Counters) -> HRStore:
    source, limit, ranks = evaluation.source, evaluation.options.limit, evaluation.ranks
    count = min(limit or len(source.samples), len(source.samples))
    shown = evaluation.options.progress and ranks.is_first
    if ranks.world > 1:
        share = ranks.rank, ranks.world
        with track("decoding", count // ranks.world, show=shown) as advance:
            counters.decoded += fill_hr_cache(source, protocol.hr, share=share, limit=limit, advance=advance)
        ranks.wait()
        if not ranks.is_first:
            ranks.wait()  # the first process tries once more what could not be reached, the others take what it found
    with track("decoding", count, show=shown) as advance:
        hr_store = build_hr_store(source, protocol.hr, limit=limit, retry=ranks.is_first, advance=advance)
    if ranks.world > 1 and ranks.is_first:
        ranks.wait()
    counters.decoded += hr_store.decoded
    _check_originals(hr_store, protocol, evaluation.options.data)
    if not len(hr_store):
        raise SrbenchError(f"none of the images of {source.spec!r} could be read; look at the files")
    score = protocol.score
    if score.psnr_reduction == "batch":
        whole = len(hr_store) // score.psnr_batch * score.psnr_batch
        if whole == 0:
            raise UsageError(
                f"protocol {protocol.name!r} pools PSNR over batches of {score.psnr_batch}, so it"
                f" needs at least as many images; {source.spec!r} has {len(hr_store)} here"
            )
        hr_store = hr_store.subset(whole)
    return hr_store


def _check_originals(hr_store: HRStore, protocol: Protocol, data: str) -> None:
    """Refuse data most of whose originals would be made by enlarging images that are smaller than their LR.

    Raises:
        DataError: Saying how such images are scored.
    """
    fake = assemble.enlarged_beyond_lr(hr_store, protocol)
    if 2 * len(fake) <= len(hr_store):
        return
    lr, hr = (int(np.median(sides)) for sides in (fake[:, 0], fake[:, 1]))
    kind, _, path = data.partition(":")
    small = f"score them as they are with --data small:{path}" if kind in ("folder", "images") else "choose others"
    raise DataError(
        f"--data {data}: {len(fake)} of {len(hr_store)} images are no larger than the LR that protocol"
        f" {protocol.name!r} makes ({lr} pixels): originals of {hr} pixels would be made by enlarging them, so that"
        f" every figure would be of resizing to and fro; {small}, or keep their size with --protocol native"
    )


class _Task:
    """What the stages of a task share."""

    def __init__(
        self, evaluation: Evaluation, protocol: Protocol, hr_store: HRStore, cells: Sequence[PlannedCell]
    ) -> None:
        self._evaluation, self._protocol, self._hr, self._cells = evaluation, protocol, hr_store, cells
        self._files = ExportedFiles(hr_store, protocol, evaluation.options.int8)
        self._written: dict[Path, Status] = {}  # of the cells that this call has written
        self._failed: dict[Path, StoredCell] = {}

    # --- the pass

    @torch.inference_mode()
    def score(self, counters: Counters) -> PassResult:
        """Compute the missing cells; return what all processes have found together."""
        options, settings, ranks = self._evaluation.options, self._evaluation.settings, self._evaluation.ranks
        missing = [cell for cell in self._cells if cell.is_missing]
        if options.force and ranks.is_first:
            for cell in missing:
                discard_partial(cell.folder)
        ranks.wait()
        if not missing:
            return PassResult()
        selectors = self._selectors()
        title = f"{missing[0].key.task}: {len(missing)} cells"
        share = len(ranks.share(len(self._hr)))
        with track(title, share, show=options.progress and ranks.is_first) as advance:
            result = run_pass(
                missing,
                self._hr,
                self._protocol,
                settings,
                ranks=ranks,
                counters=counters,
                advance=advance,
                selectors=selectors,
                files=self._files,
            )
        return self._joined(result, selectors, missing) if ranks.world > 1 else result

    def _joined(
        self,
        result: PassResult,
        selectors: Mapping[str | None, ThumbnailSelector],
        cells: Sequence[PlannedCell],
    ) -> PassResult:
        """Join the results of all processes; of pixels, they send each other only those that are selected."""
        ranks = self._evaluation.ranks
        parts = ranks.gather(selectors)
        selected = {
            name: set(ThumbnailSelector.joined([part[name] for part in parts]).selected()) for name in selectors
        }
        kept = {
            cell.folder: {
                position: images
                for position, images in result.kept[cell.folder].items()
                if position in selected[cell.key.classifier]
            }
            for cell in cells
            if cell.folder in result.kept
        }
        joined = PassResult()
        for each in ranks.gather(PassResult(result.failures, kept)):
            joined.failures.update(each.failures)
            for folder, images in each.kept.items():
                joined.kept.setdefault(folder, {}).update(images)
        return joined

    # --- records

    def write_records(self, failures: Mapping[Path, Failure]) -> None:
        """Time the cells that were computed, and write every record that is new."""
        open_cells = [cell for cell in self._cells if not cell.fresh]
        evaluation = self._evaluation
        watches = Stopwatches(evaluation.source, self._hr, self._protocol, evaluation.settings, self._files)
        surroundings = assemble.Surroundings(
            source=evaluation.source,
            hr_store=self._hr,
            protocol=self._protocol,
            partial=evaluation.options.limit is not None,
            code=code_state(),
            environment=environment(evaluation.settings.device),
            numerics=evaluation.settings.numerics,
            decode_s=self._decode_s(),
        )
        self._drop_leftovers()
        columns = sample_columns(self._hr, self._protocol, evaluation.metadata)
        write_columns(evaluation.out, self._cells[0].key.task, columns)
        with track("timing and records", len(open_cells), show=evaluation.options.progress, unit="cells") as advance:
            for cell in open_cells:
                if cell.skip is not None:
                    self._commit(surroundings, cell, "skipped", failure=Failure(cell.skip))
                elif cell.folder in failures:
                    failure = failures[cell.folder]
                    self._commit(surroundings, cell, failure.status, failure=failure)
                else:
                    self._commit_scored(surroundings, cell, watches)
                advance(1)

    def _decode_s(self) -> float:
        """Return the seconds of decoding all images, which are the same in every record of the task.

        Records that are there already have them, also where the cache has been deleted and filled again since.
        """
        stored = (load_cell(cell.folder).record.dataset.decode_s for cell in self._cells if cell.fresh)
        return next((seconds for seconds in stored if seconds is not None), self._hr.decode_seconds)

    def _commit_scored(self, surroundings: assemble.Surroundings, cell: PlannedCell, watches: Stopwatches) -> None:
        samples = merge_shards(cell.folder, cell.input_hash, range(len(self._hr)))
        sums = merged_sums(cell.folder, cell.input_hash)
        costs = None
        try:
            if self._measures(cell) and cell.loaded is not None and cell.loaded.images is None:
                costs = watches.restoring(cell, cell.loaded)
            timing = self._timing(cell, watches, costs, sums, surroundings.decode_s)
            runtime = None if cell.key.runtime is None else watches.file_of(cell).record
            macs = watches.network_macs(cell.loaded, cell.network) if self._evaluation.options.measure else None
        except Exception as error:  # noqa: BLE001 a method that fails when it is timed is a record; the others go on
            failure = Failure.of(error, "it was scored, but fails when it is timed: ")
            self._commit(surroundings, cell, "error", failure=failure)
            return
        self._commit(surroundings, cell, "ok", scored=assemble.Scored(samples, sums, costs, timing, macs, runtime))

    def _measures(self, cell: PlannedCell) -> bool:
        """Say whether a cell has a timing pass: what a method costs is measured at the protocol's own size alone."""
        return self._evaluation.measures(self._protocol) and cell.key.input_size is None

    def _timing(
        self,
        cell: PlannedCell,
        watches: Stopwatches,
        costs: Costs | None,
        sums: Mapping[str, np.ndarray],
        decode_s: float,
    ) -> TimingPart:
        pass_s = float(sums["pass_s"])
        classifier = cell.scored.classifier
        measured = self._measures(cell)
        at_once = sums.get(f"{LEAST}at_once")
        elsewhere = cell.loaded is not None and cell.loaded.images is not None  # nobody knows what restoring took
        timing = TimingPart(
            pass_s=pass_s,
            pass_batch=None if at_once is None else int(at_once),
            total_time_s=None if elsewhere else decode_s + pass_s,
            classify_ms=watches.classifying(classifier)
            if measured and classifier is not None and cell.key.runtime is None
            else None,
            end_to_end_ms=watches.end_to_end(cell) if measured and not elsewhere else None,
        )
        if costs is None:
            return timing
        return dataclasses.replace(
            timing,
            latency_ms=costs.latency_ms,
            throughput=costs.throughput,
            throughput_batch=costs.batch,
            peak_memory_mb=costs.peak_memory_mb,
            dtype=costs.dtype,
        )

    def _commit(
        self,
        surroundings: assemble.Surroundings,
        cell: PlannedCell,
        status: Status,
        *,
        failure: Failure | None = None,
        scored: assemble.Scored | None = None,
    ) -> None:
        record = assemble.make_record(
            cell,
            surroundings,
            status,
            reason=failure.reason if failure is not None else None,
            traceback=failure.traceback if failure is not None else None,
            scored=scored,
        )
        if status != "error" or not _has_result_of(cell.folder, record):
            commit_cell(cell.folder, record, scored.samples if scored is not None else None)
        if status == "error":
            self._failed[cell.folder] = StoredCell(cell.folder, record)
        self._written[cell.folder] = status

    def results(self) -> list[StoredCell]:
        """Return every cell in the order of the table, those that failed in this call as they failed."""
        return [self._failed.get(cell.folder) or load_cell(cell.folder) for cell in self._cells]

    def _drop_leftovers(self) -> None:
        """Take away what is out of date: rows that said a method had no weights, and shards of finished cells."""
        for cell in self._cells:
            if cell.fresh:  # it was killed after it wrote the record, before it took the shards away
                discard_partial(cell.folder)
            key = cell.key
            if key.weights is not None and cell.skip is None:
                folder = cell_folder(self._evaluation.out, key.task, key.classifier, key.method, None)
                if status_of(folder) == "skipped":
                    shutil.rmtree(folder, ignore_errors=True)

    # --- thumbnails

    def _selectors(self) -> dict[str | None, ThumbnailSelector]:
        """Return by classifier what selects the samples that keep their pixels; it knows what is stored already."""
        selectors = {}
        for classifier, pair in originals_and_baselines(self._cells).items():
            selectors[classifier] = ThumbnailSelector(self._hr, self._smallest_hashes)
            if all(cell.fresh and self._is_ok(cell) for cell in pair):
                _update_from_records(selectors[classifier], pair)
        return selectors

    @torch.inference_mode()
    def write_thumbnails(self, kept: Mapping[Path, Images]) -> None:
        """Store the images of a few samples beside every record that has none yet.

        Args:
            kept: Images that the pass has kept, by the cell's folder; what is missing there is restored once more.
        """
        settings, progress = self._evaluation.settings, self._evaluation.options.progress
        open_cells = self._without_thumbnails()
        with track("keeping pixels", len(open_cells), show=progress, unit="cells") as advance:
            for cell, positions, key in open_cells:
                known = kept.get(cell.folder, {})
                images = {
                    position: known.get(position)
                    or images_of(cell.loaded, position, self._hr, self._protocol, settings)
                    for position in positions
                }
                overlays = self._overlays(cell, images)
                drawn = {position: named | overlays.get(position, {}) for position, named in images.items()}
                write_thumbnails(cell.folder / THUMBNAILS_FILE, drawn, key=key)
                advance(1)

    def _overlays(self, cell: PlannedCell, images: Images) -> dict[int, dict[str, Any]]:
        """Return what the task type draws into images, by position: "overlay", and the original's "truth"."""
        scored, settings = cell.scored, self._evaluation.settings
        is_stale = cell.key.track == "adapted" and cell.adapted is None  # the network of a finished cell is not at hand
        if cell.network is None or scored.outputs is None or is_stale or not scored.task_type.draws:
            return {}
        seen = {position: named["sr"] if "sr" in named else named["hr"] for position, named in images.items()}
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, pixels in seen.items():
            by_size.setdefault((pixels.shape[0], pixels.shape[1]), []).append(position)
        drawn: dict[int, dict[str, Any]] = {}
        for size, positions in by_size.items():
            step = settings.images_a_batch(*size)
            for start in range(0, len(positions), step):
                chosen = positions[start : start + step]
                batch = torch.from_numpy(np.stack([seen[position] for position in chosen])).permute(0, 3, 1, 2)
                image = batch.to(settings.device).float() / 255
                with settings.numerics.active():
                    outputs = in_parts(settings, scored.id or "", cell.network, image)
                for position, part in zip(chosen, self._parts(cell, outputs, size), strict=True):
                    found = {name: each.cpu().numpy() for name, each in part.items()}
                    drawn[position] = self._drawn(cell, position, seen[position], found)
        return drawn

    @staticmethod
    def _parts(cell: PlannedCell, outputs: Sequence[Any], size: tuple[int, int]) -> list[Mapping[str, torch.Tensor]]:
        """Return what a network found in each image of its outputs."""
        task_type = cell.scored.task_type
        predictions = (task_type.prediction(output, seen=size, size=size) for output in outputs)
        return [part for prediction in predictions for part in task_type.split(prediction)]

    def _drawn(
        self, cell: PlannedCell, position: int, pixels: np.ndarray, found: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Return one image `(H, W, 3)`, RGB, uint8 with what was found drawn in, and the original's with the truth."""
        scored = cell.scored
        assert scored.outputs is not None
        drawn = {"overlay": scored.task_type.overlay(pixels, found)}
        placed = self._hr.targets([position]) if cell.loaded is None else None
        if placed is not None:
            drawn["truth"] = scored.task_type.truth_overlay(pixels, placed[0], scored.outputs)
        return {name: each for name, each in drawn.items() if each is not None}

    def _without_thumbnails(self) -> list[tuple[PlannedCell, list[int], str]]:
        """Return the cells that lack images, with the positions they should have and the key to store them under."""
        cells = []
        for classifier, pair in originals_and_baselines(self._cells).items():
            if not all(self._is_ok(cell) for cell in pair):
                continue
            selector = ThumbnailSelector(self._hr, self._smallest_hashes)
            _update_from_records(selector, pair)
            positions = selector.selected()
            for cell in self._cells:
                key = f"{cell.input_hash} {positions}"
                keeps = cell.key.classifier == classifier and thumbnails.keeps_pixels(cell) and self._is_ok(cell)
                if keeps and thumbnails_key(cell.folder / THUMBNAILS_FILE) != key:
                    cells.append((cell, positions, key))
        return cells

    @cached_property
    def _smallest_hashes(self) -> list[int]:
        return thumbnails.smallest_hashes(self._hr)

    def _is_ok(self, cell: PlannedCell) -> bool:
        return self._written.get(cell.folder) == "ok" if not cell.fresh else cell.skip is None


def _has_result_of(folder: Path, failed: Record) -> bool:
    """Say whether a result of the same samples, protocol and network is stored, which a failure must not replace."""
    try:
        stored = load_cell(folder).record
    except RecordError:
        return False
    networks = [each.classifier and dataclasses.replace(each.classifier, macs=None) for each in (stored, failed)]
    return stored.status == "ok" and pairing_key(stored) == pairing_key(failed) and networks[0] == networks[1]


def images_of(
    loaded: LoadedMethod | None, position: int, hr_store: HRStore, protocol: Protocol, settings: PassSettings
) -> dict[str, Any]:
    """Return one sample's images, `(H, W, C)`, RGB, uint8: "sr" as a classifier sees it, or the original's "hr", "lr".

    Raises:
        ContractError: If the method's output is not finite.
    """
    batch = single(position, hr_store, protocol, settings)
    if loaded is None:
        assert batch.lr is not None and batch.hr is not None
        return {"hr": thumbnails.to_pixels(batch.hr), "lr": thumbnails.to_pixels(batch.lr)}
    sr, _ = RestoredBatch(loaded, batch, protocol, settings).at(batch.sr_size)
    check_finite(loaded.name, sr)
    return {"sr": thumbnails.to_pixels(for_classifier(sr, protocol))}


def _update_from_records(selector: ThumbnailSelector, pair: tuple[PlannedCell, PlannedCell]) -> None:
    original, bilinear = (load_cell(cell.folder).samples(thumbnails.COLUMNS) for cell in pair)
    selector.update_from_records(original, bilinear)
