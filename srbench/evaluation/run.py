"""`srbench.evaluate`: every method, classifier and scale of a call, as records and a leaderboard."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from srbench import leaderboard
from srbench.compute.devices import use_device
from srbench.compute.numerics import Numerics
from srbench.compute.process import give_back_freed_memory
from srbench.data.catalogue import default_protocol, open_source
from srbench.data.hr_cache import HRStore, build_hr_store
from srbench.data.source import Source, sample_list_sha256
from srbench.errors import SrbenchError, UsageError
from srbench.evaluation import assemble, thumbnails
from srbench.evaluation.costs import Costs, Stopwatches
from srbench.evaluation.loaded_methods import LoadedMethod, choose
from srbench.evaluation.scoring import (
    Cell,
    Counters,
    Images,
    PassResult,
    PassSettings,
    ScoredNetwork,
    images_of,
    score,
    sentence,
)
from srbench.evaluation.thumbnails import ThumbnailSelector
from srbench.files.atomic import check_out_dir, sweep_temporary
from srbench.leaderboard import BASELINE, ORACLE, Leaderboard, tables
from srbench.method import TaskInfo
from srbench.networks.classifiers import Classifier
from srbench.networks.loading import demo_classifiers, load_classifier
from srbench.paths import cache_dir
from srbench.progress import track
from srbench.protocol import Protocol, load_protocol
from srbench.records.cells import StoredCell, cell_folder, commit_cell, find_records, is_fresh, load_cell, status_of
from srbench.records.provenance import code_state, environment
from srbench.records.schema import SCHEMA_VERSION, CellKey, Metric, Record, TimingPart, hash_inputs
from srbench.records.shards import discard_partial, merge_shards, merged_sums
from srbench.records.thumbnails import THUMBNAILS_FILE, thumbnails_key, write_thumbnails
from srbench.registry import Registry
from srbench.task_types import task_type


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation leaves behind.

    Attributes:
        out: The folder that holds `records/` and `leaderboard.{json,csv,md}`.
        board: The leaderboard with its notes.
        cells: Every cell of this call, in the order of the table.
        counters: What was really decoded, classified and restored.
        rank: This process among those of torchrun; what is said to a person is said by the first.
    """

    out: Path
    board: Leaderboard
    cells: tuple[StoredCell, ...]
    counters: Counters
    rank: int = 0

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a cell."""
        return self.board.frame

    @property
    def per_class(self) -> pd.DataFrame:
        """F1 of every class and its differences."""
        return self.board.per_class

    @property
    def samples(self) -> pd.DataFrame:
        """The samples of every cell that is ok, under each other."""
        frames = []
        for cell in self.cells:
            if cell.record.status == "ok":
                key = cell.record.cell
                frame = cell.samples()
                frame.insert(0, "task", key.task)
                frame.insert(1, "classifier", key.classifier)
                frame.insert(2, "method", key.method)
                frame.insert(3, "weights", key.weights)
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @property
    def failed(self) -> list[Record]:
        """The records of the cells that failed."""
        return [cell.record for cell in self.cells if cell.record.status == "error"]


@dataclass(frozen=True)
class _Call:
    """A call of `evaluate`, resolved: everything that can be wrong with it has been looked at."""

    source: Source
    protocols: list[Protocol]
    classifiers: list[Classifier]
    loaded_methods: dict[str, list[LoadedMethod]]
    out: Path
    settings: PassSettings
    limit: int | None
    force: bool
    progress: bool
    measure: bool
    warnings: tuple[str, ...]


def evaluate(
    methods: Sequence[str] | Literal["all"] = "all",
    *,
    data: str = "demo",
    split: str | None = None,
    classifiers: Sequence[str] = (),
    protocol: str | Protocol | None = None,
    scales: Sequence[float] = (),
    weights: Mapping[str, Sequence[str]] | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    out: Path | str | None = None,
    force: bool = False,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
    measure: bool = True,
) -> EvaluationResult:
    """Score methods on one dataset under one protocol, at one or several scales, with one or several classifiers.

    Args:
        methods: Names, or "all".
        data: SPEC of the dataset.
        split: Name of the split, or None for the dataset's own default.
        classifiers: SPECs; none means the demo's own on `demo`, and image metrics alone on unlabelled data and pairs.
        protocol: A protocol, its name or file; None is the dataset's own (`clean` but for the demo and the lenses).
        scales: LR side / HR side; several make several tasks. None keeps the protocol's own.
        weights: Names or files by method.
        limit: Take only so many images; the cells are marked partial and never ranked.
        batch_size: Images a batch; None chooses by the device and the size of the images.
        device: "auto", "cpu" or "cuda".
        precision: "auto" (fp32 when scoring), "fp32", "tf32" (on a GPU) or "bf16".
        seed: Seed of the degradation's noise.
        out: Folder of the results; None is out/<dataset>.
        force: Compute every cell anew.
        plugins: Files of further methods.
        progress: Show progress bars on a terminal.
        measure: Run the timing pass for cells that are computed.

    Returns:
        The records, the leaderboard and what was really done. Cells that failed are among the records.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
        SrbenchError: If data cannot be read or results cannot be written.
    """
    call = _resolve(
        methods,
        data=data,
        split=split,
        classifiers=classifiers,
        protocol=protocol,
        scales=scales,
        weights=weights or {},
        limit=limit,
        batch_size=batch_size,
        device=device,
        precision=precision,
        seed=seed,
        out=out,
        force=force,
        plugins=plugins,
        progress=progress,
        measure=measure,
    )
    counters = Counters()
    cells: list[StoredCell] = []
    if call.settings.rank == 0:
        sweep_temporary(call.out)
        sweep_temporary(cache_dir() / "logits", older_than_s=3600.0)
    _barrier(call.settings)
    for each in call.protocols:
        cells += _Task(call, each, counters).run()
    found, problems = find_records([call.out])
    board = leaderboard.build(found, seed=seed, warnings=[*call.warnings, *problems])
    if call.settings.rank == 0:
        tables.write(board, call.out)
    return EvaluationResult(call.out, board, tuple(cells), counters, call.settings.rank)


def _resolve(
    methods: Sequence[str] | Literal["all"],
    *,
    data: str,
    split: str | None,
    classifiers: Sequence[str],
    protocol: str | Protocol | None,
    scales: Sequence[float],
    weights: Mapping[str, Sequence[str]],
    limit: int | None,
    batch_size: int | None,
    device: str,
    precision: str,
    seed: int,
    out: Path | str | None,
    force: bool,
    plugins: Sequence[Path | str],
    progress: bool,
    measure: bool,
) -> _Call:
    registry = Registry(plugins)
    names = None if methods == "all" else list(methods)
    if names is not None and not names:
        raise UsageError("no method was named; name some, or ask for all of them")
    for name in names or ():
        registry.get(name)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit takes a whole number of at least 1, got {limit}")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size takes a whole number of at least 1, got {batch_size}")
    base = protocol if isinstance(protocol, Protocol) else None
    if isinstance(protocol, str):
        base = load_protocol(protocol)
    settings = _settings(device, precision, batch_size, seed)
    source = open_source(data, split)
    settings = dataclasses.replace(settings, channels=source.channels)
    if base is None:
        base = load_protocol(default_protocol([data]))
    if source.factor is not None:
        base = base.of_pairs(source.factor)
    protocols = [base.at_scale(scale) for scale in dict.fromkeys(scales)] if scales else [base]
    folder = Path(out) if out is not None else Path("out") / source.name
    check_out_dir(folder)
    loaded = _classifiers(classifiers, source)
    for classifier in loaded:
        # channels_last: the same sums in another order (1e-5 in the logits), 1.1 to 1.6 x as fast on a CPU
        classifier.to(settings.device).to(memory_format=torch.channels_last)
        task_type(source.task_type).answers(classifier.info, source)
    loaded_methods = {
        each.fingerprint: choose(names, registry, given=weights, classifiers=loaded, protocol=each, dataset=source.name)
        for each in protocols
    }
    for group in loaded_methods.values():
        for contender in group:
            if contender.method is not None:
                contender.method.to(settings.device).to(memory_format=torch.channels_last)
    return _Call(
        source=source,
        protocols=protocols,
        classifiers=loaded,
        loaded_methods=loaded_methods,
        out=folder,
        settings=settings,
        limit=limit,
        force=force,
        progress=progress,
        measure=measure,
        warnings=tuple(f"left out: {problem}" for problem in registry.problems.values()),
    )


def _classifiers(specs: Sequence[str], source: Source) -> list[Classifier]:
    if not specs:
        if source.name == "demo":
            specs = demo_classifiers()
        elif source.labelled and not source.paired:  # pairs have their image metrics in any case
            raise UsageError(
                f"the data {source.spec!r} is labelled, so a classifier is needed to score it;"
                " give --classifier SPEC (a name of `srbench list classifiers`, or a TOML card),"
                " or read the images without labels as images:PATH"
            )
    loaded = [load_classifier(spec) for spec in dict.fromkeys(specs)]
    ids = [classifier.id for classifier in loaded]
    twice = sorted({each for each in ids if ids.count(each) > 1})
    if twice:
        raise UsageError(f"two classifiers have the id {twice[0]!r}; rename one of the cards")
    return loaded


def _settings(device: str, precision: str, batch_size: int | None, seed: int) -> PassSettings:
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed takes a whole number from 0 to 2^63 - 1, got {seed}")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    kind = use_device(device).type
    numerics = Numerics.of(kind, precision)
    where = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # third-party methods may draw from it
    random.seed(seed)
    return PassSettings(
        device=where,
        numerics=numerics,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world=world,
    )


def _barrier(settings: PassSettings) -> None:
    if settings.world > 1:
        torch.distributed.barrier()


@dataclass
class _Planned:
    """A cell of the task: computed, found fresh, or skipped."""

    key: CellKey
    contender: LoadedMethod | None
    scored: ScoredNetwork
    folder: Path
    input_hash: str
    skip: str | None
    fresh: bool
    adapted: torch.nn.Module | None = field(default=None, repr=False)


def _gathered(
    result: PassResult,
    choices: Mapping[str | None, ThumbnailSelector],
    cells: Sequence[_Planned],
    world: int,
) -> PassResult:
    """Return what all ranks have found together; of pixels, they send each other only those that are chosen."""
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, choices)
    chosen = {name: set(ThumbnailSelector.joined([part[name] for part in parts]).chosen()) for name in choices}
    kept = {
        cell.folder: {
            position: images
            for position, images in result.kept[cell.folder].items()
            if position in chosen[cell.key.classifier]
        }
        for cell in cells
        if cell.folder in result.kept
    }
    found: list[Any] = [None] * world
    torch.distributed.all_gather_object(found, PassResult(result.failures, kept))
    whole = PassResult()
    for each in found:
        whole.failures.update(each.failures)
        for folder, images in each.kept.items():
            whole.kept.setdefault(folder, {}).update(images)
    return whole


def _stands_elsewhere(item: _Planned, row: Sequence[_Planned]) -> bool:
    """Say whether adapted weights of another classifier are skipped where the method has weights for this one."""
    return (
        item.skip is not None
        and item.key.track == "adapted"
        and any(
            other.key.method == item.key.method and other.key.track == "adapted" and not other.skip for other in row
        )
    )


class _Task:
    """One dataset split under one protocol: plan, pass, timing, records."""

    def __init__(self, call: _Call, protocol: Protocol, counters: Counters) -> None:
        self._call, self._protocol, self._counters = call, protocol, counters
        self._status: dict[Path, str] = {}  # of the cells that this call has written
        self._hr = self._open_hr()
        self._id = self._name()

    def run(self) -> list[StoredCell]:
        planned = self._plan()
        missing = [item for item in planned if not item.fresh and item.skip is None]
        result = self._score(missing, self._choices(planned))
        _barrier(self._call.settings)
        give_back_freed_memory()
        if self._call.settings.rank == 0:
            self._write(planned, result.failures)
            give_back_freed_memory()
            self._keep_pixels(planned, result.kept)
            give_back_freed_memory()
        _barrier(self._call.settings)
        return [load_cell(item.folder) for item in planned]

    def _open_hr(self) -> HRStore:
        call = self._call
        count = min(call.limit or len(call.source.samples), len(call.source.samples))
        if call.settings.rank != 0:
            _barrier(call.settings)  # rank 0 fills the cache, the others find it full
        with track("decoding", count, show=call.progress and call.settings.rank == 0) as advance:
            hr = build_hr_store(call.source, self._protocol.hr, limit=call.limit, advance=advance)
        if call.settings.rank == 0:
            _barrier(call.settings)
        self._counters.decoded += hr.decoded
        if not len(hr):
            raise SrbenchError(f"none of the images of {call.source.spec!r} could be read; look at the files")
        score_fields = self._protocol.score
        if score_fields.psnr_reduction == "batch":
            whole = len(hr) // score_fields.psnr_batch * score_fields.psnr_batch
            if whole == 0:
                raise UsageError(
                    f"protocol {self._protocol.name!r} pools PSNR over batches of {score_fields.psnr_batch}, so it"
                    f" needs at least as many images; {call.source.spec!r} has {len(hr)} here"
                )
            hr = hr.subset(whole)
        return hr

    def _name(self) -> str:
        # Ids must not collide: another fingerprint or sample list is another task, also under the same names.
        moving = f"{self._protocol.fingerprint}|{sample_list_sha256(self._hr.samples)}|{self._call.source.spec}"
        tag = hashlib.sha256(moving.encode()).hexdigest()[:6]
        source = self._call.source
        limited = f"-limit{self._call.limit}" if self._call.limit is not None else ""
        return f"{source.name}-{source.split}-{self._protocol.name}-{self._protocol.scale_label}{limited}-{tag}"

    def _plan(self) -> list[_Planned]:
        planned = []
        classifiers: list[Classifier | None] = [*self._call.classifiers]
        for classifier in classifiers or [None]:
            scored = self._scored(classifier)
            row = [self._cell(contender, scored) for contender in self._call.loaded_methods[self._protocol.fingerprint]]
            planned += [self._cell(None, scored), *(item for item in row if not _stands_elsewhere(item, row))]
        return planned

    def _scored(self, classifier: Classifier | None) -> ScoredNetwork:
        source = self._call.source
        kind = task_type(source.task_type)
        if classifier is None:
            return ScoredNetwork(None, kind, None)
        present = self._protocol.score.logits == "present"
        return ScoredNetwork(classifier, kind, kind.answers(classifier.info, source, present=present))

    def _cell(self, contender: LoadedMethod | None, scored: ScoredNetwork) -> _Planned:
        classifier = scored.classifier
        skip = contender.skip_reason(self._info(classifier)) if contender is not None else None
        if contender is not None and skip is None and classifier is None and contender.cls.info.output == "lr":
            skip = "without a classifier there is nothing to score where LR is not upscaled"
        key = CellKey(
            task=self._id,
            method=contender.name if contender is not None else ORACLE,
            weights=contender.label if contender is not None else None,
            classifier=scored.id,
            track=contender.track if contender is not None else "frozen",
        )
        folder = cell_folder(self._call.out, key.task, key.classifier, key.method, key.weights)
        input_hash = self._hash(contender, classifier, skip)
        fresh = not self._call.force and is_fresh(folder, input_hash)
        item = _Planned(key, contender, scored, folder, input_hash, skip, fresh)
        if contender is not None and contender.track == "adapted" and skip is None and not fresh:
            assert classifier is not None
            item.adapted = contender.adapted_network(classifier)
        return item

    def _info(self, classifier: Classifier | None) -> TaskInfo:
        return TaskInfo(
            name=self._id,
            protocol=self._protocol,
            classifier=classifier.id if classifier is not None else None,
            classifier_sha256=classifier.info.weights_sha256 if classifier is not None else None,
            classifier_input_size=classifier.info.input_size if classifier is not None else None,
            channels=self._call.source.channels,
        )

    def _hash(self, contender: LoadedMethod | None, classifier: Classifier | None, skip: str | None) -> str:
        loaded = contender.weights if contender is not None else None
        return hash_inputs(
            {
                "method": contender.name if contender is not None else ORACLE,
                "version": contender.cls.info.version if contender is not None else assemble.ORACLE_VERSION,
                "weights": loaded.ref.sha256 if loaded else None,
                "parameters": {key: repr(value) for key, value in loaded.parameters.items()} if loaded else {},
                "classifier": classifier.info.sha256 if classifier is not None else None,
                "classes": list(classifier.info.classes or ()) if classifier is not None else None,
                "samples": self._hr.key,
                "protocol": self._protocol.fingerprint,
                "numerics": self._call.settings.numerics.to_json(),
                "seed": self._call.settings.seed if self._protocol.lr.noise_sigma else None,
                "skip": skip,
            }
            # not a part of colour data's hash, so that the cells of before stay fresh
            | ({} if self._call.source.channels == 3 else {"channels": self._call.source.channels})
        )

    @torch.inference_mode()
    def _score(self, missing: Sequence[_Planned], choices: Mapping[str | None, ThumbnailSelector]) -> PassResult:
        call = self._call
        if call.force and call.settings.rank == 0:
            for item in missing:
                discard_partial(item.folder)
        _barrier(call.settings)
        if not missing:
            return PassResult()
        share = len(np.array_split(np.arange(len(self._hr)), call.settings.world)[call.settings.rank])
        cells = [Cell(item.contender, item.scored, item.folder, item.input_hash, item.adapted) for item in missing]
        title = f"{self._id}: {len(cells)} cells"
        with track(title, share, show=call.progress and call.settings.rank == 0) as advance:
            result = score(
                cells,
                self._hr,
                self._protocol,
                call.settings,
                counters=self._counters,
                advance=advance,
                choices=choices,
            )
        if call.settings.world > 1:
            result = _gathered(result, choices, missing, call.settings.world)
        return result

    def _choices(self, planned: Sequence[_Planned]) -> dict[str | None, ThumbnailSelector]:
        """Return by classifier what tells which samples keep their pixels; it has seen what is stored already."""
        choices = {}
        for classifier, yardsticks in self._yardsticks(planned).items():
            choices[classifier] = ThumbnailSelector(self._hr, self._hashed)
            if all(item.fresh and self._is_ok(item) for item in yardsticks):
                self._see_stored(choices[classifier], yardsticks)
        return choices

    def _yardsticks(self, planned: Sequence[_Planned]) -> dict[str | None, tuple[_Planned, _Planned]]:
        """Return by classifier the cells of the original and of frozen bilinear, by which samples are chosen."""
        cells = {(item.key.classifier, item.key.method): item for item in planned if item.key.track == "frozen"}
        return {
            classifier: (item, cells[classifier, BASELINE])
            for (classifier, method), item in cells.items()
            if method == ORACLE and (classifier, BASELINE) in cells
        }

    @cached_property
    def _hashed(self) -> list[int]:
        return thumbnails.smallest_hashes(self._hr)

    def _see_stored(self, choice: ThumbnailSelector, yardsticks: tuple[_Planned, _Planned]) -> None:
        original, bilinear = (load_cell(item.folder).samples(thumbnails.COLUMNS) for item in yardsticks)
        choice.see_all(original, bilinear)

    def _write(self, planned: Sequence[_Planned], failures: Mapping[Path, str]) -> None:
        open_cells = [item for item in planned if not item.fresh]
        timed = [item for item in open_cells if item.skip is None and item.folder not in failures]
        watches = Stopwatches(self._call.source, self._hr, self._protocol, self._call.settings)
        self._code, self._environment = code_state(), environment(self._call.settings.device)
        self._drop_leftovers(planned)
        with track("timing and records", len(open_cells), show=self._call.progress, unit="cells") as advance:
            for item in open_cells:
                if item.skip is not None:
                    self._commit(item, status="skipped", reason=item.skip)
                elif item.folder in failures:
                    self._commit(item, status="error", reason=failures[item.folder])
                else:
                    self._commit_scored(item, watches, n_cells=len(timed))
                advance(1)

    @torch.inference_mode()
    def _keep_pixels(self, planned: Sequence[_Planned], restored: Mapping[Path, Images]) -> None:
        """Store the images of a few samples beside every record that has none yet.

        Args:
            planned: The cells.
            restored: SR that the pass has kept, by the cell's folder; what is missing there is restored once more.
        """
        open_cells: list[tuple[_Planned, list[int], str]] = []
        for classifier, yardsticks in self._yardsticks(planned).items():
            if not all(self._is_ok(item) for item in yardsticks):
                continue
            choice = ThumbnailSelector(self._hr, self._hashed)
            self._see_stored(choice, yardsticks)
            positions = choice.chosen()
            for item in planned:
                key = f"{item.input_hash} {positions}"
                keeps = (
                    item.key.classifier == classifier and thumbnails.keeps_pixels(item.contender) and self._is_ok(item)
                )
                if keeps and thumbnails_key(item.folder / THUMBNAILS_FILE) != key:
                    open_cells.append((item, positions, key))
        with track("keeping pixels", len(open_cells), show=self._call.progress, unit="cells") as advance:
            for item, positions, key in open_cells:
                known = restored.get(item.folder, {})
                images = {
                    position: known.get(position)
                    or images_of(item.contender, position, self._hr, self._protocol, self._call.settings)
                    for position in positions
                }
                write_thumbnails(item.folder / THUMBNAILS_FILE, images, key=key)
                advance(1)

    def _is_ok(self, item: _Planned) -> bool:
        return self._status.get(item.folder) == "ok" if not item.fresh else item.skip is None

    def _drop_leftovers(self, planned: Sequence[_Planned]) -> None:
        """Take away what is out of date: rows that said a method had no weights, and shards of finished cells."""
        for item in planned:
            if item.fresh:  # it was killed after it wrote the record, before it took the shards away
                discard_partial(item.folder)
            key = item.key
            if key.weights is not None and item.skip is None:
                folder = cell_folder(self._call.out, key.task, key.classifier, key.method, None)
                if status_of(folder) == "skipped":
                    shutil.rmtree(folder, ignore_errors=True)

    def _commit_scored(self, item: _Planned, watches: Stopwatches, *, n_cells: int) -> None:
        samples = merge_shards(item.folder, item.input_hash, range(len(self._hr)))
        sums = merged_sums(item.folder, item.input_hash)
        costs = None
        try:
            if self._call.measure and item.contender is not None:
                costs = watches.restoring(item.contender)
            timing = self._timing(item, watches, costs, sums, n_cells)
        except Exception as error:  # noqa: BLE001 a method that fails when it is timed is a record; the others go on
            self._commit(item, status="error", reason=f"it was scored, but fails when it is timed: {sentence(error)}")
            return
        self._commit(
            item,
            status="ok",
            samples=samples,
            costs=costs,
            timing=timing,
            histograms=item.scored.kind.histograms(sums),
        )

    def _timing(
        self,
        item: _Planned,
        watches: Stopwatches,
        costs: Costs | None,
        sums: Mapping[str, np.ndarray],
        n_cells: int,
    ) -> TimingPart:
        pass_s = float(sums["pass_s"])
        share = self._hr.decode_seconds / n_cells
        classifier = item.scored.classifier
        measured = self._call.measure
        network = item.adapted if item.adapted is not None else classifier
        return TimingPart(
            pass_s=pass_s,
            decode_share_s=share,
            total_time_s=pass_s + share,
            latency_ms=costs.latency_ms if costs else None,
            classify_ms=watches.classifying(classifier) if measured and classifier is not None else None,
            end_to_end_ms=watches.end_to_end(item.contender, network) if measured else None,
            throughput=costs.throughput if costs else None,
            throughput_batch=costs.batch if costs else None,
            peak_memory_mb=costs.peak_memory_mb if costs else None,
            dtype=costs.dtype if costs else None,
        )

    def _commit(
        self,
        item: _Planned,
        *,
        status: Literal["ok", "skipped", "error"],
        reason: str | None = None,
        samples: pd.DataFrame | None = None,
        costs: Costs | None = None,
        timing: TimingPart | None = None,
        histograms: dict[str, Any] | None = None,
    ) -> None:
        quality = assemble.why_no_quality(item.contender, self._protocol)
        computed: dict[str, Metric] = {}
        per_class = None
        if samples is not None:
            computed = assemble.metrics_of(
                samples, self._protocol, item.scored, why_no_quality=quality, histograms=histograms
            )
            if item.scored.answers is not None:
                per_class = item.scored.kind.per_class(samples, item.scored.answers, self._call.source.classes)
        record = Record(
            schema_version=SCHEMA_VERSION,
            cell=item.key,
            status=status,
            reason=reason,
            partial=self._call.limit is not None,
            input_hash=item.input_hash,
            protocol=assemble.protocol_part(self._protocol),
            code=self._code,
            environment=self._environment,
            numerics=self._call.settings.numerics,
            method=assemble.method_part(item.contender, costs),
            classifier=assemble.classifier_part(item.scored.classifier, item.key.track),
            dataset=assemble.dataset_part(self._call.source, self._hr, self._protocol),
            metrics=computed,
            per_class=per_class,
            score_histograms=histograms,
            timing=timing or TimingPart(),
            training=_training(item.contender),
            created=assemble.now(),
        )
        commit_cell(item.folder, record, samples)
        self._status[item.folder] = status


def _training(contender: LoadedMethod | None) -> dict[str, Any] | None:
    card = contender.weights.ref.card if contender is not None and contender.weights is not None else None
    if card is None:
        return None
    return {"recipe": card.recipe, "data": card.data, "history": card.extra.get("history"), "command": card.command}
