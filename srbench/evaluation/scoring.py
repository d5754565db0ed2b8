"""The one pass: every batch is decoded, degraded and classified once, then every method restores the same pixels."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srbench import metrics, store
from srbench.classifiers import Classifier
from srbench.data.cache import HRStore
from srbench.degrade import degrade, for_classifier, for_metric, restore_size
from srbench.errors import ContractError, RecordError
from srbench.evaluation.contenders import Contender
from srbench.paths import cache_dir
from srbench.protocol import Protocol
from srbench.records import MAX_SCORE_CLASSES
from srbench.resample import to_channels, to_uint8

CHUNK = 256  # samples a shard: what a killed run can lose of each cell
HISTOGRAM_DECADES, HISTOGRAM_BINS = 8, 200


@dataclass(frozen=True)
class ScoredClassifier:
    """A classifier with what the pass must know of it.

    Attributes:
        classifier: The network on images in [0, 1], or None for image metrics alone.
        outputs: Index of the classifier's output for every class of the data, `(K,)`, or None without labels.
        present: The outputs that compete where the protocol says "present", else None for all.
    """

    classifier: Classifier | None
    outputs: np.ndarray | None
    present: np.ndarray | None

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

    contender: Contender | None
    scored: ScoredClassifier
    folder: Path
    input_hash: str
    adapted: torch.nn.Module | None = None


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
        precision: "fp32" or "bf16".
        batch_size: Images a batch.
        seed: Seed of the degradation's noise.
        rank: This process among `world`.
        world: Number of processes.
        channels: Channels of the data. Images always have three; where it is 1 they are equal, also those of SR.
    """

    device: torch.device
    precision: str
    batch_size: int
    seed: int
    rank: int = 0
    world: int = 1
    channels: int = 3


def score(
    cells: Sequence[Cell],
    hr_store: HRStore,
    protocol: Protocol,
    settings: PassSettings,
    *,
    counters: Counters,
    advance: Callable[[int], None],
) -> dict[Path, str]:
    """Compute the missing samples of every cell and write them as shards.

    Args:
        cells: What is to be computed; rows that a cell's folder already holds are left alone.
        hr_store: The HR images.
        protocol: The protocol.
        settings: Device, precision, batch size, seed, rank.
        counters: Raised by what is done.
        advance: Called with the number of samples newly done.

    Returns:
        The sentence of what went wrong, by the folder of each cell that failed.

    Raises:
        RecordError: If results cannot be written; nothing half-written stays.
    """
    failures: dict[Path, str] = {}
    done = {cell.folder: store.done_positions(cell.folder, cell.input_hash) for cell in cells}
    slice_ = np.array_split(np.arange(len(hr_store)), settings.world)[settings.rank]
    for start in range(0, len(slice_), CHUNK):
        chunk = slice_[start : start + CHUNK]
        # A stopped run leaves whole chunks, unless it had another number of ranks: then cells lack different rows.
        by_rows: dict[tuple[int, ...], list[Cell]] = {}
        for cell in cells:
            if cell.folder not in failures:
                rows = tuple(position for position in chunk.tolist() if position not in done[cell.folder])
                by_rows.setdefault(rows, []).append(cell)
        for rows, group in by_rows.items():
            if rows:
                _score_chunk(group, np.array(rows), hr_store, protocol, settings, counters, failures)
        advance(len(chunk))
    return failures


def _score_chunk(
    cells: Sequence[Cell],
    chunk: np.ndarray,
    hr_store: HRStore,
    protocol: Protocol,
    settings: PassSettings,
    counters: Counters,
    failures: dict[Path, str],
) -> None:
    logits_of_hr: dict[str | None, Tensor] = {}
    for scored in {cell.scored.id: cell.scored for cell in cells}.values():
        if scored.classifier is None:
            continue
        try:
            logits_of_hr[scored.id] = _hr_logits(scored.classifier, chunk, hr_store, settings, counters)
        except RecordError:
            raise
        except Exception as error:  # noqa: BLE001 a classifier that fails is a record; the others go on
            known = isinstance(error, ContractError)
            reason = sentence(error) if known else f"classifier {scored.id} fails on HR: {sentence(error)}"
            failures.update({cell.folder: reason for cell in cells if cell.scored.id == scored.id})
    cells = [cell for cell in cells if cell.folder not in failures]
    if not cells:
        return
    rows: dict[Path, _Rows] = {cell.folder: _Rows() for cell in cells}
    by_contender: dict[int, list[Cell]] = {}
    for cell in cells:
        by_contender.setdefault(id(cell.contender), []).append(cell)
    offsets = {int(position): place for place, position in enumerate(chunk)}
    for positions in hr_store.groups(chunk, settings.batch_size):
        batch = _batch(positions, hr_store, protocol, settings, needs_lr=any(cell.contender for cell in cells))
        counters.degraded += len(positions) if batch.lr is not None else 0
        places = [offsets[int(position)] for position in positions]
        for group in by_contender.values():
            alive = [cell for cell in group if cell.folder not in failures]
            if alive:
                _score_group(alive, batch, places, logits_of_hr, protocol, settings, counters, failures, rows)
    for cell in cells:
        if cell.folder not in failures:
            frame, sums = rows[cell.folder].collect()
            store.write_shard(cell.folder, cell.input_hash, frame, sums=sums)


def images_of(
    contender: Contender | None, position: int, hr_store: HRStore, protocol: Protocol, settings: PassSettings
) -> dict[str, np.ndarray]:
    """Return one sample's images, `(H, W, C)`, RGB, uint8: "sr" as the classifier sees it, or the oracle's "hr", "lr".

    They are what the pass made of it: the degradation depends on the sample's id, not on its batch.
    """
    batch = _batch(np.array([position]), hr_store, protocol, settings, needs_lr=True)
    if contender is None:
        assert batch.lr is not None
        return {"hr": _pixels(batch.hr), "lr": _pixels(batch.lr)}
    sr, _ = _restore(contender, batch, protocol, settings)
    return {"sr": _pixels(for_classifier(sr, protocol))}


def _pixels(image: Tensor) -> np.ndarray:
    return to_uint8(image)[0].permute(1, 2, 0).cpu().numpy()


@dataclass(frozen=True)
class _Batch:
    positions: np.ndarray
    ids: list[str]
    labels: np.ndarray | None
    hr: Tensor
    lr: Tensor | None
    sr_size: tuple[int, int]


def _batch(
    positions: np.ndarray, hr_store: HRStore, protocol: Protocol, settings: PassSettings, *, needs_lr: bool
) -> _Batch:
    hr = _to_float(hr_store.batch(positions), settings.device)
    ids = [hr_store.samples[int(position)].id for position in positions]
    lr = None
    if needs_lr:
        real = hr_store.lr_batch(positions)
        lr = (
            _to_float(real, settings.device)
            if real is not None
            else degrade(hr, protocol.lr, sample_ids=ids, seed=settings.seed, grey=settings.channels == 1)
        )
    labels = hr_store.labels[positions] if hr_store.labels is not None else None
    return _Batch(positions, ids, labels, hr, lr, protocol.sr_size(hr.shape[-2], hr.shape[-1]))


def _to_float(pixels: Tensor, device: torch.device) -> Tensor:
    return pixels.to(device, non_blocking=True).float().div_(255)


def _score_group(
    cells: Sequence[Cell],
    batch: _Batch,
    places: list[int],
    logits_of_hr: dict[str | None, Tensor],
    protocol: Protocol,
    settings: PassSettings,
    counters: Counters,
    failures: dict[Path, str],
    rows: dict[Path, _Rows],
) -> None:
    contender = cells[0].contender
    try:
        if contender is None:
            sr, restore_s, quality = batch.hr, 0.0, _perfect(batch, protocol)
        else:
            sr, restore_s = _restore(contender, batch, protocol, settings)
            counters.add(counters.restored, _name(contender), len(batch.ids))
            quality = _quality(sr, batch, protocol, output=contender.method.info.output)  # type: ignore[union-attr]
            sr = for_classifier(sr, protocol)
    except RecordError:
        raise
    except Exception as error:  # noqa: BLE001 a method that fails is a record; the others go on
        failures.update({cell.folder: sentence(error) for cell in cells})
        return
    for cell in cells:
        try:
            columns, scores, sums, classify_s = _classify(cell, sr, batch, places, logits_of_hr, settings, counters)
        except Exception as error:  # noqa: BLE001 as above: one classifier that fails is one record
            failures[cell.folder] = sentence(error)
            continue
        sums["pass_s"] = np.float64(restore_s + classify_s)
        rows[cell.folder].add(batch, quality | columns, scores, sums)


def _restore(contender: Contender, batch: _Batch, protocol: Protocol, settings: PassSettings) -> tuple[Tensor, float]:
    method, lr = contender.method, batch.lr
    assert method is not None and lr is not None
    # a clone, since a method that writes to its input must not change what the others see
    lr = to_channels(lr.clone(), method.info.channels)
    with _Stopwatch(settings.device) as watch, autocast(settings):
        sr = method(lr, batch.sr_size)
    check_output(contender.name, method.info, sr, lr, batch.sr_size)
    with _Stopwatch(settings.device) as back:
        sr = as_data(sr.float(), settings)
        if method.info.output == "hr":
            sr = restore_size(sr, batch.sr_size, protocol)
    return sr, watch.seconds + back.seconds


def as_data(sr: Tensor, settings: PassSettings) -> Tensor:
    """Return SR `(N, 1 or 3, H, W)` with three channels; of grey data they are equal, whatever a network made of it."""
    return to_channels(to_channels(sr, 1) if settings.channels == 1 else sr, 3)


def check_output(name: str, info: Any, sr: Tensor, lr: Tensor, size: tuple[int, int]) -> None:
    """Hold a method's output against its contract.

    Raises:
        ContractError: Naming what was expected and what came.
    """
    height, width = lr.shape[-2:]
    if info.output == "lr":
        wanted = (height, width)
    else:
        wanted = size if info.factor == "any" else (height * info.factor, width * info.factor)
    expected = (lr.shape[0], lr.shape[1], *wanted)
    if not isinstance(sr, Tensor) or tuple(sr.shape) != expected:
        got = tuple(sr.shape) if isinstance(sr, Tensor) else type(sr).__name__
        raise ContractError(f"expected sr of shape {expected} from {name!r}, got {got}")
    if not sr.is_floating_point():
        raise ContractError(f"expected a floating-point sr from {name!r}, got {sr.dtype}")
    if not bool(torch.isfinite(sr).all()):
        raise ContractError(f"expected finite values from {name!r}, got NaN or infinity; check its weights")


def _check_finite(logits: Tensor, classifier: str | None) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise ContractError(f"classifier {classifier} returned NaN or infinite logits; check its weights")


def autocast(settings: PassSettings) -> torch.autocast:
    """Return the autocast context of a precision."""
    return torch.autocast(settings.device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")


def _quality(sr: Tensor, batch: _Batch, protocol: Protocol, *, output: str) -> dict[str, Any]:
    if output == "lr" or tuple(sr.shape[-2:]) != tuple(batch.hr.shape[-2:]) or protocol.lr.none:
        return {}
    seen = for_metric(sr, protocol)
    options = {"channels": protocol.score.channels, "crop_border": protocol.score.crop_border}
    mse = metrics.mse_per_image(seen, batch.hr, **options)  # type: ignore[arg-type]
    ssim = metrics.ssim_per_image(seen, batch.hr, **options)  # type: ignore[arg-type]
    return {"mse": mse, "psnr": metrics.psnr_from_mse(mse), "ssim": ssim}


def _perfect(batch: _Batch, protocol: Protocol) -> dict[str, Any]:
    n = len(batch.ids)
    if protocol.lr.none:
        return {}
    return {"mse": torch.zeros(n), "psnr": torch.full((n,), torch.inf), "ssim": torch.ones(n)}


def _classify(
    cell: Cell,
    sr: Tensor,
    batch: _Batch,
    places: list[int],
    logits_of_hr: dict[str | None, Tensor],
    settings: PassSettings,
    counters: Counters,
) -> tuple[dict[str, Any], Tensor | None, dict[str, Any], float]:
    scored = cell.scored
    if scored.classifier is None:
        return {}, None, {}, 0.0
    hr_logits = logits_of_hr[scored.id][places].to(settings.device)
    if cell.contender is None:
        logits, seconds = hr_logits, 0.0
    else:
        network = cell.adapted if cell.adapted is not None else scored.classifier
        with _Stopwatch(settings.device) as watch, autocast(settings):
            logits = network(sr)
        logits, seconds = logits.float(), watch.seconds
        counters.add(counters.sr_classified, f"{_name(cell.contender)} {scored.id}", len(batch.ids))
    _check_finite(logits, scored.id)
    columns, scores, sums = _columns(scored, logits, hr_logits, batch.labels)
    return columns, scores, sums, seconds


def _columns(
    scored: ScoredClassifier, logits: Tensor, hr_logits: Tensor, labels: np.ndarray | None
) -> tuple[dict[str, Any], Tensor | None, dict[str, Any]]:
    present = None
    if scored.present is not None:
        present = torch.from_numpy(scored.present).to(logits.device)
        logits, hr_logits = logits[:, present], hr_logits[:, present]

    def named(index: Tensor) -> Tensor:
        return present[index] if present is not None else index

    columns: dict[str, Any] = {
        "pred": named(logits.argmax(1)),
        "hr_pred": named(hr_logits.argmax(1)),
        "confidence": metrics.confidence(logits),
        "logit_mse_to_hr": metrics.logit_mse(logits, hr_logits),
        "kl_to_hr": metrics.kl_to_hr(logits, hr_logits),
    }
    probabilities = logits.softmax(1)
    scores = probabilities if logits.shape[1] <= MAX_SCORE_CLASSES else None
    sums: dict[str, Any] = {}
    if labels is not None and scored.outputs is not None:
        target = torch.from_numpy(scored.outputs[labels]).to(logits.device)
        columns["label"] = target
        if scored.present is not None:
            target = torch.from_numpy(np.searchsorted(scored.present, scored.outputs[labels])).to(logits.device)
        columns["cross_entropy"] = metrics.cross_entropy(logits, target)
        columns["top5_hit"] = metrics.topk_hit(logits, target)
        if scores is None:
            sums = _histograms(probabilities, target)
    return columns, scores, sums


def _histograms(probabilities: Tensor, target: Tensor) -> dict[str, np.ndarray]:
    """Count one-vs-rest scores, pooled over classes, in bins of log10(p), for ROC curves of many classes."""
    depth = probabilities.clamp_min(10.0**-HISTOGRAM_DECADES).log10().add(HISTOGRAM_DECADES)
    bins = depth.mul(HISTOGRAM_BINS / HISTOGRAM_DECADES).long().clamp_(0, HISTOGRAM_BINS - 1)
    hits = bins.gather(1, target[:, None]).flatten()
    positives = torch.bincount(hits, minlength=HISTOGRAM_BINS)
    everything = torch.bincount(bins.flatten(), minlength=HISTOGRAM_BINS)
    return {
        "score_positives": positives.cpu().numpy(),
        "score_negatives": (everything - positives).cpu().numpy(),
    }


def _hr_logits(
    classifier: Classifier, chunk: np.ndarray, hr_store: HRStore, settings: PassSettings, counters: Counters
) -> Tensor:
    """Return logits of the chunk's HR images, `(len(chunk), K)` float32 on the CPU, from the cache if it has them."""
    key = hashlib.sha256(
        f"{hr_store.key}|{classifier.info.sha256}|{settings.precision}|{settings.device.type}".encode()
    ).hexdigest()
    rows = hashlib.sha256(np.ascontiguousarray(chunk, dtype=np.int64).tobytes()).hexdigest()[:16]
    path = cache_dir() / "logits" / key / f"{int(chunk[0]):08d}-{int(chunk[-1]) + 1:08d}-{rows}.npy"
    cached = _load_array(path)
    if cached is not None and cached.shape == (len(chunk), classifier.info.n_classes):
        return torch.from_numpy(cached)
    logits = torch.empty(len(chunk), classifier.info.n_classes)
    offsets = {int(position): place for place, position in enumerate(chunk)}
    for positions in hr_store.groups(chunk, settings.batch_size):
        hr = _to_float(hr_store.batch(positions), settings.device)
        with autocast(settings):
            out = classifier(hr)
        _check_finite(out, classifier.id)
        logits[[offsets[int(position)] for position in positions]] = out.float().cpu()
        counters.add(counters.hr_classified, classifier.id, len(positions))
    store.write_bytes(path, lambda stream: np.save(stream, logits.numpy(), allow_pickle=False))
    return logits


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
        self._sums: dict[str, Any] = {}

    def add(self, batch: _Batch, columns: dict[str, Any], scores: Tensor | None, sums: dict[str, Any]) -> None:
        self._ids += batch.ids
        self._positions.append(batch.positions)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values.detach())
        if scores is not None:
            self._scores.append(scores.detach())
        for name, value in sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def collect(self) -> tuple[Any, dict[str, Any]]:
        columns: dict[str, Any] = {
            name: torch.cat([value.reshape(-1) for value in values]).cpu().numpy()
            for name, values in self._columns.items()
        }
        columns |= {"position": np.concatenate(self._positions), "sample_id": self._ids}
        scores = torch.cat(self._scores).float().cpu().numpy() if self._scores else None
        return store.samples_frame(columns, scores=scores), self._sums


class _Stopwatch:
    """Wall-clock seconds of a block, after all work queued on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0

    def __enter__(self) -> _Stopwatch:
        self._wait()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self._wait()
        self.seconds = time.perf_counter() - self._start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _name(contender: Contender) -> str:
    return f"{contender.name}@{contender.label}" if contender.label else contender.name


def sentence(error: Exception) -> str:
    """Return the first line of an error, with its type where it is not one of ours."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return text if isinstance(error, ContractError) else f"{type(error).__name__}: {text}"
