"""The one pass: every batch is decoded, degraded and classified once, then every method restores the same pixels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srbench import metrics
from srbench.compute.numerics import Numerics
from srbench.data.hr_cache import HRStore
from srbench.errors import ContractError, RecordError
from srbench.evaluation import thumbnails
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.thumbnails import ThumbnailSelector
from srbench.files.atomic import write_bytes
from srbench.imaging.degrade import degrade, for_classifier, for_metric
from srbench.imaging.resample import to_uint8
from srbench.leaderboard import BASELINE
from srbench.networks.classifiers import Classifier
from srbench.paths import cache_dir
from srbench.protocol import Protocol
from srbench.records.samples import samples_frame
from srbench.records.schema import canonical_json
from srbench.records.shards import done_positions, write_shard
from srbench.restore import check_finite, is_finite, not_finite, restore
from srbench.task_types import BatchResult, OutputMap, TaskType

BATCH_IMAGES = {"cuda": 128, "cpu": 8}  # a batch by the type of device, images of 256 x 256
CHUNK = 256  # samples a shard: what a killed run can lose of each cell
PENDING_BYTES = {"cuda": 2**31, "cpu": 2**26}  # of images that wait until it is known which samples may be kept


@dataclass(frozen=True)
class ScoredNetwork:
    """A classifier with what the pass must know of it.

    Attributes:
        classifier: The network on images in [0, 1], or None for image metrics alone.
        kind: What it is asked for.
        answers: How its outputs answer; None without a classifier.
    """

    classifier: Classifier | None
    kind: TaskType
    answers: OutputMap | None

    @property
    def id(self) -> str | None:
        """Id of the classifier, or None."""
        return self.classifier.id if self.classifier is not None else None


@dataclass(frozen=True)
class Cell:
    """One cell that has to be computed.

    Attributes:
        contender: The method, or None for the oracle.
        scored: The classifier.
        folder: Where its record goes.
        input_hash: Hash of all its inputs.
        adapted: The classifier trained along with the method, where there is one.
    """

    contender: LoadedMethod | None
    scored: ScoredNetwork
    folder: Path
    input_hash: str
    adapted: torch.nn.Module | None = None


Images = dict[int, dict[str, np.ndarray]]  # position of the sample -> "hr", "lr", "sr" -> (H, W, C), RGB, uint8


@dataclass(frozen=True)
class PassResult:
    """What a pass leaves besides the shards.

    Attributes:
        failures: The sentence of what went wrong, by the folder of each cell that failed.
        kept: Images of the samples that are likely to be kept, as this pass had them, by the folder of the cell.
    """

    failures: dict[Path, str] = field(default_factory=dict)
    kept: dict[Path, Images] = field(default_factory=dict)


@dataclass
class Counters:
    """What a run really did, so that "once" can be checked.

    Attributes:
        decoded: Images decoded and cropped.
        hr_classified: HR images classified, by classifier.
        degraded: LR images made.
        restored: Images restored, by method@weights.
        sr_classified: SR images classified, by method@weights and classifier.
    """

    decoded: int = 0
    degraded: int = 0
    hr_classified: dict[str, int] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    sr_classified: dict[str, int] = field(default_factory=dict)

    def add(self, group: dict[str, int], key: str, count: int) -> None:
        """Add to one of the counters by name."""
        group[key] = group.get(key, 0) + count


@dataclass(frozen=True)
class PassSettings:
    """How the pass runs.

    Attributes:
        device: Where it runs.
        numerics: Arithmetic of the run.
        batch_size: Images a batch, or None for as many as hold a certain number of pixels.
        seed: Seed of the degradation's noise.
        rank: This process among `world`.
        world: Number of processes.
        channels: Channels of the data. Images always have three; where it is 1 they are equal, also those of SR.
    """

    device: torch.device
    numerics: Numerics
    batch_size: int | None
    seed: int
    rank: int = 0
    world: int = 1
    channels: int = 3

    def images_a_batch(self, height: int, width: int) -> int:
        """Return how many images of this HR size are computed at once."""
        if self.batch_size is not None:
            return self.batch_size
        # As many pixels whatever the size: what is done once a batch would take longer than networks on small images.
        return min(max(BATCH_IMAGES[self.device.type] * 256**2 // (height * width), 1), CHUNK)


def score(
    cells: Sequence[Cell],
    hr_store: HRStore,
    protocol: Protocol,
    settings: PassSettings,
    *,
    counters: Counters,
    advance: Callable[[int], None],
    choices: Mapping[str | None, ThumbnailSelector] | None = None,
) -> PassResult:
    """Compute the missing samples of every cell and write them as shards.

    Args:
        cells: What is to be computed; rows that a cell's folder already holds are left alone.
        hr_store: The HR images.
        protocol: The protocol.
        settings: Device, arithmetic, batch size, seed, rank.
        counters: Raised by what is done.
        advance: Called with the number of samples newly done.
        choices: What tells by classifier which samples keep their pixels; it sees what this pass finds.

    Raises:
        RecordError: If results cannot be written; nothing half-written stays.
    """
    result = PassResult()
    done = {cell.folder: done_positions(cell.folder, cell.input_hash) for cell in cells}
    slice_ = np.array_split(np.arange(len(hr_store)), settings.world)[settings.rank]
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        kept = _Kept(choices or {}, result.kept, PENDING_BYTES[settings.device.type])
        engine = _Pass(hr_store, protocol, settings, counters, kept, result, reader)
        for start in range(0, len(slice_), CHUNK):
            chunk = slice_[start : start + CHUNK]
            # A stopped run leaves whole chunks, unless it had another number of ranks: then cells lack different rows.
            by_rows: dict[tuple[int, ...], list[Cell]] = {}
            for cell in cells:
                if cell.folder not in result.failures:
                    rows = tuple(position for position in chunk.tolist() if position not in done[cell.folder])
                    by_rows.setdefault(rows, []).append(cell)
            for rows, group in by_rows.items():
                if rows:
                    engine.chunk(group, np.array(rows))
            advance(len(chunk))
    return result


class _Pass:
    """What every chunk of a pass shares.

    Nothing in the loop over batches waits for the device: whether values are finite, what they are, how long they took
    and which pixels are kept is looked at when a chunk is written, or when the images that wait for it have become too
    many. Pixels of the next batch are read while this one is computed.
    """

    def __init__(
        self,
        hr_store: HRStore,
        protocol: Protocol,
        settings: PassSettings,
        counters: Counters,
        kept: _Kept,
        result: PassResult,
        reader: ThreadPoolExecutor,
    ) -> None:
        self._store, self._protocol, self._settings, self._counters = hr_store, protocol, settings, counters
        self._kept, self._result, self._reader = kept, result, reader

    def chunk(self, cells: Sequence[Cell], chunk: np.ndarray) -> None:
        """Compute rows that all of these cells lack, and write a shard for each."""
        targets: dict[str | None, _Targets] = {}
        for scored in {cell.scored.id: cell.scored for cell in cells}.values():
            if scored.classifier is None:
                continue
            try:
                targets[scored.id] = self._targets(scored, chunk)
            except RecordError:
                raise
            except Exception as error:  # noqa: BLE001 a classifier that fails is a record; the others go on
                known = isinstance(error, ContractError)
                reason = sentence(error) if known else f"classifier {scored.id} fails on HR: {sentence(error)}"
                self._fail((cell for cell in cells if cell.scored.id == scored.id), reason)
        cells = self._alive(cells)
        if not cells:
            return
        rows = {cell.folder: _Rows() for cell in cells}
        by_contender: dict[int, list[Cell]] = {}
        for cell in cells:
            by_contender.setdefault(id(cell.contender), []).append(cell)
        needs_lr = any(cell.contender for cell in cells)
        for batch in self._batches(chunk, needs_lr=needs_lr):
            self._counters.degraded += len(batch.ids) if batch.lr is not None else 0
            for group in by_contender.values():
                self._restored(self._alive(group), batch, targets, rows)
            if self._kept.full:
                self._kept.settle(self._alive(cells), rows)
        self._kept.settle(self._alive(cells), rows)
        for cell in cells:
            try:
                rows[cell.folder].check()
            except ContractError as error:
                self._fail([cell], sentence(error))
        for cell in self._alive(cells):
            frame, sums = rows[cell.folder].collect(cell.scored.kind.own_columns)
            write_shard(cell.folder, cell.input_hash, frame, sums=sums)

    def _alive(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell.folder not in self._result.failures]

    def _fail(self, cells: Iterable[Cell], reason: str) -> None:
        self._result.failures.update({cell.folder: reason for cell in cells})

    def _batches(self, chunk: np.ndarray, *, needs_lr: bool) -> Iterator[_Batch]:
        """Yield the chunk batch by batch, while a thread reads one ahead."""
        groups = self._store.groups(chunk, self._settings.images_a_batch)
        places = {int(position): place for place, position in enumerate(chunk)}
        ahead = [self._reader.submit(_read, group, self._store, self._settings, lr=needs_lr) for group in groups[:1]]
        for number, positions in enumerate(groups):
            pixels = ahead.pop().result()
            for group in groups[number + 1 : number + 2]:
                ahead.append(self._reader.submit(_read, group, self._store, self._settings, lr=needs_lr))
            index = torch.tensor([places[int(position)] for position in positions])
            yield _batch(positions, pixels, index, self._store, self._protocol, self._settings, needs_lr=needs_lr)

    def _targets(self, scored: ScoredNetwork, chunk: np.ndarray) -> _Targets:
        assert scored.classifier is not None and scored.answers is not None
        logits = self._hr_logits(scored.classifier, chunk).to(self._settings.device)
        found = scored.kind.targets(self._store.samples.take(chunk), scored.answers)
        return _Targets(logits, None if found is None else torch.from_numpy(found).to(self._settings.device))

    def _hr_logits(self, classifier: Classifier, chunk: np.ndarray) -> Tensor:
        """Return logits of the chunk's HR images, `(len(chunk), K)` float32, from the cache if it has them."""
        settings = self._settings
        key = hashlib.sha256(
            f"{self._store.key}|{classifier.info.sha256}|{canonical_json(settings.numerics.to_json())}".encode()
        ).hexdigest()
        rows = hashlib.sha256(np.ascontiguousarray(chunk, dtype=np.int64).tobytes()).hexdigest()[:16]
        path = cache_dir() / "logits" / key / f"{int(chunk[0]):08d}-{int(chunk[-1]) + 1:08d}-{rows}.npy"
        cached = _load_array(path)
        if cached is not None and cached.shape == (len(chunk), classifier.info.n_classes):
            return torch.from_numpy(cached)
        logits = torch.empty(len(chunk), classifier.info.n_classes, device=settings.device)
        for batch in self._batches(chunk, needs_lr=False):
            with settings.numerics.active():
                out = classifier(batch.hr)
            logits[batch.places] = out.float()
            self._counters.add(self._counters.hr_classified, classifier.id, len(batch.ids))
        _check_finite(logits, classifier.id)
        array = logits.cpu().numpy()
        write_bytes(path, lambda stream: np.save(stream, array, allow_pickle=False))
        return logits

    def _restored(
        self,
        cells: Sequence[Cell],
        batch: _Batch,
        targets: Mapping[str | None, _Targets],
        rows: Mapping[Path, _Rows],
    ) -> None:
        """Restore a batch by one method, score it, and classify it for each of the method's cells."""
        if not cells:
            return
        contender, protocol, settings = cells[0].contender, self._protocol, self._settings
        restoring: list[_Stopwatch] = []
        finite: list[tuple[str, Tensor]] = []
        try:
            if contender is None:
                sr, quality = batch.hr, _perfect(batch, protocol)
            else:
                sr, watch = _restore(contender, batch, protocol, settings)
                restoring = [watch]
                finite = [(not_finite(contender.name), is_finite(sr))]
                self._counters.add(self._counters.restored, _name(contender), len(batch.ids))
                sr, quality = _quality(sr, batch, protocol, output=contender.method.info.output)  # type: ignore[union-attr]
        except RecordError:
            raise
        except Exception as error:  # noqa: BLE001 a method that fails is a record; the others go on
            self._fail(cells, sentence(error))
            return
        self._kept.offer(cells, sr, batch)
        for cell in cells:
            try:
                logits, classifying = self._classified(cell, sr, batch, targets)
                found = BatchResult({})
                if logits is not None and cell.scored.answers is not None:
                    known = targets[cell.scored.id]
                    target = None if known.target is None else known.target[batch.places]
                    found = cell.scored.kind.columns(logits, known.logits[batch.places], target, cell.scored.answers)
            except Exception as error:  # noqa: BLE001 as above: one classifier that fails is one record
                self._fail([cell], sentence(error))
                continue
            flags = [] if logits is None else [(_not_finite_logits(cell.scored.id), is_finite(logits))]
            watches = [*restoring, *classifying]
            rows[cell.folder].add(batch, quality, found, watches=watches, finite=[*finite, *flags])

    def _classified(
        self, cell: Cell, sr: Tensor, batch: _Batch, targets: Mapping[str | None, _Targets]
    ) -> tuple[Tensor | None, list[_Stopwatch]]:
        scored = cell.scored
        if scored.classifier is None:
            return None, []
        if cell.contender is None:
            return targets[scored.id].logits[batch.places], []
        network = cell.adapted if cell.adapted is not None else scored.classifier
        with _Stopwatch(self._settings.device) as watch, self._settings.numerics.active():
            logits = network(sr)
        self._counters.add(self._counters.sr_classified, f"{_name(cell.contender)} {scored.id}", len(batch.ids))
        return logits.float(), [watch]


class _Kept:
    """The pixels of samples that are likely to be kept; images wait until it is known which these are."""

    def __init__(self, choices: Mapping[str | None, ThumbnailSelector], kept: dict[Path, Images], budget: int) -> None:
        self._choices, self._kept, self._budget = choices, kept, budget
        self._pending: list[tuple[list[Cell], np.ndarray, dict[str, Tensor]]] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether the images that wait take as much memory as they may."""
        return self._bytes >= self._budget

    def offer(self, cells: Sequence[Cell], sr: Tensor, batch: _Batch) -> None:
        """Take a batch of one method, as these cells' classifiers see it."""
        cells = [cell for cell in cells if cell.scored.id in self._choices]
        if (
            not cells
            or not thumbnails.keeps_pixels(cells[0].contender)
            or max(batch.hr.shape[-2:]) > thumbnails.MAX_SIDE
        ):
            return
        images = {"sr": sr}
        if cells[0].contender is None:
            if batch.lr is None:
                return
            images = {"hr": batch.hr, "lr": batch.lr}
        self._pending.append((cells, batch.positions, images))
        self._bytes += sum(image.nbytes for image in images.values())

    def settle(self, cells: Sequence[Cell], rows: Mapping[Path, _Rows]) -> None:
        """Let the choices see what the batches that wait have shown, and take or drop their pixels."""
        if not self._pending:
            return
        for classifier, choice in self._choices.items():
            ours = [cell for cell in cells if cell.scored.id == classifier]
            original = next((cell for cell in ours if cell.contender is None), None)
            bilinear = next((cell for cell in ours if cell.contender and cell.contender.name == BASELINE), None)
            if original is not None and bilinear is not None:
                seen, restored = rows[original.folder].unseen(), rows[bilinear.folder].unseen()
                choice.see(
                    seen["position"],
                    label=seen.get("label"),
                    original=seen.get("pred"),
                    bilinear=restored.get("pred"),
                    psnr=restored.get("psnr"),
                )
        wanted = {classifier: choice.candidates() for classifier, choice in self._choices.items()}
        for takers, positions, images in self._pending:
            for place, position in enumerate(positions.tolist()):
                folders = [cell.folder for cell in takers if position in wanted[cell.scored.id]]
                if folders:
                    pixels = {name: _pixels(image[place : place + 1]) for name, image in images.items()}
                    for folder in folders:
                        self._kept.setdefault(folder, {})[position] = pixels
        self._pending, self._bytes = [], 0
        for cell in cells:
            for position in self._kept.get(cell.folder, {}).keys() - wanted.get(cell.scored.id, frozenset()):
                del self._kept[cell.folder][position]


def images_of(
    contender: LoadedMethod | None, position: int, hr_store: HRStore, protocol: Protocol, settings: PassSettings
) -> dict[str, np.ndarray]:
    """Return one sample's images, `(H, W, C)`, RGB, uint8: "sr" as the classifier sees it, or the oracle's "hr", "lr".

    They are what the pass made of it: the degradation depends on the sample's id, not on its batch.
    """
    positions = np.array([position])
    pixels = _read(positions, hr_store, settings, lr=True)
    batch = _batch(positions, pixels, torch.zeros(1, dtype=torch.int64), hr_store, protocol, settings, needs_lr=True)
    if contender is None:
        assert batch.lr is not None
        return {"hr": _pixels(batch.hr), "lr": _pixels(batch.lr)}
    sr, _ = _restore(contender, batch, protocol, settings)
    check_finite(contender.name, sr)
    return {"sr": _pixels(for_classifier(sr, protocol))}


def _pixels(image: Tensor) -> np.ndarray:
    return to_uint8(image)[0].permute(1, 2, 0).cpu().numpy()


@dataclass(frozen=True)
class _Batch:
    positions: np.ndarray
    places: Tensor  # rows of the chunk, int64, on the device
    ids: list[str]
    hr: Tensor
    lr: Tensor | None
    sr_size: tuple[int, int]
    reference: metrics.HrStatistics


@dataclass(frozen=True)
class _Targets:
    """What one classifier's scores of a chunk are held against, on the device."""

    logits: Tensor  # of HR, (len(chunk), K), float32
    target: Tensor | None  # what the data say, as the kind of task has it, (len(chunk), ...)


def _read(
    positions: np.ndarray, hr_store: HRStore, settings: PassSettings, *, lr: bool
) -> tuple[Tensor, Tensor | None]:
    """Return HR and, where it is asked for and there is one, the real LR, both uint8, ready to be copied."""
    found = hr_store.batch(positions), hr_store.lr_batch(positions) if lr else None
    if settings.device.type != "cuda":
        return found
    # from page-locked memory a GPU fetches them while it computes
    return found[0].pin_memory(), None if found[1] is None else found[1].pin_memory()


def _batch(
    positions: np.ndarray,
    pixels: tuple[Tensor, Tensor | None],
    places: Tensor,
    hr_store: HRStore,
    protocol: Protocol,
    settings: PassSettings,
    *,
    needs_lr: bool,
) -> _Batch:
    hr = _to_float(pixels[0], settings.device)
    ids = [sample.id for sample in hr_store.samples.take(positions)]
    lr = None
    if needs_lr:
        real = pixels[1]
        lr = (
            _to_float(real, settings.device)
            if real is not None
            else degrade(hr, protocol.lr, sample_ids=ids, seed=settings.seed, grey=settings.channels == 1)
        )
    places = (places.pin_memory() if settings.device.type == "cuda" else places).to(settings.device, non_blocking=True)
    reference = metrics.HrStatistics(hr, channels=protocol.score.channels, crop_border=protocol.score.crop_border)
    return _Batch(positions, places, ids, hr, lr, protocol.sr_size(hr.shape[-2], hr.shape[-1]), reference)


def _to_float(pixels: Tensor, device: torch.device) -> Tensor:
    return pixels.to(device, non_blocking=True).float().div_(255)


def _restore(
    contender: LoadedMethod, batch: _Batch, protocol: Protocol, settings: PassSettings
) -> tuple[Tensor, _Stopwatch]:
    assert contender.method is not None and batch.lr is not None
    watch = _Stopwatch(settings.device)
    # a clone, since a method that writes to its input must not change what the others see
    sr = restore(
        contender.method,
        batch.lr.clone(),
        batch.sr_size,
        restoration=protocol.sr,
        numerics=settings.numerics,
        channels=settings.channels,
        name=contender.name,
        watch=watch,
    )
    return sr, watch


def _not_finite_logits(classifier: str | None) -> str:
    return f"classifier {classifier} returned NaN or infinite logits; check its weights"


def _check_finite(logits: Tensor, classifier: str | None) -> None:
    if not bool(is_finite(logits)):
        raise ContractError(_not_finite_logits(classifier))


def _quality(sr: Tensor, batch: _Batch, protocol: Protocol, *, output: str) -> tuple[Tensor, dict[str, Any]]:
    """Return SR as a classifier sees it, and what it is worth as an image."""
    seen = for_classifier(sr, protocol)
    if output == "lr" or tuple(sr.shape[-2:]) != tuple(batch.hr.shape[-2:]) or protocol.lr.none:
        return seen, {}
    alike = (protocol.sr.clamp, protocol.sr.round) == (protocol.score.clamp, protocol.score.round)
    compared = seen if alike else for_metric(sr, protocol)
    mse = batch.reference.mse(compared)
    return seen, {"mse": mse, "psnr": metrics.psnr_from_mse(mse), "ssim": batch.reference.ssim(compared)}


def _perfect(batch: _Batch, protocol: Protocol) -> dict[str, Any]:
    n = len(batch.ids)
    if protocol.lr.none:
        return {}
    return {"mse": torch.zeros(n), "psnr": torch.full((n,), torch.inf), "ssim": torch.ones(n)}


def _load_array(path: Path) -> np.ndarray | None:
    """Read a cached array, or return None where there is none or it is damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


class _Rows:
    """Per-sample values of one cell and chunk; they stay on the device until the chunk is written."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._positions: list[np.ndarray] = []
        self._columns: dict[str, list[Tensor]] = {}
        self._scores: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}
        self._watches: list[_Stopwatch] = []
        self._finite: dict[str, list[Tensor]] = {}
        self._shown = 0  # batches that `unseen` has returned

    def add(
        self,
        batch: _Batch,
        quality: Mapping[str, Tensor],
        found: BatchResult,
        *,
        watches: Sequence[_Stopwatch],
        finite: Sequence[tuple[str, Tensor]],
    ) -> None:
        """Add a batch; `finite` is what to say of values that are not, and whether they are."""
        self._ids += batch.ids
        self._positions.append(batch.positions)
        for name, values in (*quality.items(), *found.columns.items()):
            self._columns.setdefault(name, []).append(values.detach())
        if found.scores is not None:
            self._scores.append(found.scores.detach())
        for name, value in found.sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._watches += watches
        for reason, flag in finite:
            self._finite.setdefault(reason, []).append(flag)

    def check(self) -> None:
        """Look whether everything was finite, what came first in the pipe first.

        Raises:
            ContractError: If not.
        """
        for reason, flags in self._finite.items():
            if not bool(torch.stack(flags).all()):
                raise ContractError(reason)

    def unseen(self) -> dict[str, np.ndarray]:
        """Return what the choice of kept samples looks at, of the batches that were added since the last call."""
        first, self._shown = self._shown, len(self._positions)
        names = [name for name in thumbnails.COLUMNS if name in self._columns]
        return {name: _fetched(self._columns[name][first:]) for name in names} | {
            "position": np.concatenate(self._positions[first:])
        }

    def collect(self, task_columns: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
        """Return the rows as they are stored, with the sums; `task_columns` as `samples_frame` has them."""
        columns: dict[str, Any] = {name: _fetched(values) for name, values in self._columns.items()}
        columns |= {"position": np.concatenate(self._positions), "sample_id": self._ids}
        scores = torch.cat(self._scores).float().cpu().numpy() if self._scores else None
        sums: dict[str, Any] = {name: value.cpu().numpy() for name, value in self._sums.items()}
        sums["pass_s"] = np.float64(sum(watch.seconds for watch in self._watches))
        return samples_frame(columns, task_columns=task_columns, scores=scores), sums


def _fetched(values: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([value.reshape(-1) for value in values]).cpu().numpy()


class _Stopwatch:
    """Seconds that the device spends on a block: on a GPU between two events, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
        self._seconds = 0.0

    def __enter__(self) -> _Stopwatch:
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


def _name(contender: LoadedMethod) -> str:
    return f"{contender.name}@{contender.label}" if contender.label else contender.name


def sentence(error: Exception) -> str:
    """Return the first line of an error, with its type where it is not one of ours."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return text if isinstance(error, ContractError) else f"{type(error).__name__}: {text}"
