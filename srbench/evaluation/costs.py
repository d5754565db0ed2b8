"""The timing pass, separate from the one that scores: latency, throughput, peak memory, parameters and MACs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from srbench.compute.memory import halved_until_it_fits
from srbench.compute.timing import Timing, count_macs, measure, peak_memory
from srbench.data.geometry import crop_hr
from srbench.data.hr_cache import HRStore
from srbench.data.source import Source
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.options import CHUNK, PassSettings
from srbench.evaluation.plan import PlannedCell
from srbench.evaluation.runtimes import ExportedFile, ExportedFiles, eight_bits
from srbench.evaluation.sizes import SMALL_SIDE
from srbench.export.session import Session
from srbench.files.strict import canonical_json
from srbench.imaging.colour import to_channels
from srbench.imaging.degrade import degrade, for_classifier, restore_size
from srbench.imaging.sizes import at_side
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.records.schema import Spread
from srbench.restore import restore

BUDGET_S = 0.2  # of each single measurement; a cell has four, so it stays under a second


@dataclass(frozen=True)
class Costs:
    """What restoring costs, whatever the classifier.

    Attributes:
        latency_ms: Restoring one image at batch 1.
        throughput: Images a second at `batch`.
        batch: Images a batch of the throughput.
        peak_memory_mb: Peak memory of the method, its weights and its input at `batch`, 10^6 bytes, or None where the
            device does not tell.
        macs: Multiply-accumulates an image, or None where they cannot be counted.
        dtype: Precision.
    """

    latency_ms: Spread
    throughput: Spread
    batch: int
    peak_memory_mb: float | None
    macs: int | None
    dtype: str


class Stopwatches:
    """Measures methods and classifiers on the first image of a task; each once, however many cells share it."""

    def __init__(
        self, source: Source, hr_store: HRStore, protocol: Protocol, settings: PassSettings, files: ExportedFiles
    ) -> None:
        """Take the first image as the sample that everything is timed on.

        Args:
            source: The data, for the end-to-end time with decoding.
            hr_store: The HR images.
            protocol: The protocol.
            settings: Device, arithmetic and batch size.
            files: The exported files, for cells with a runtime.
        """
        self._files = files
        self._source, self._store, self._protocol, self._settings = source, hr_store, protocol, settings
        self._index = [sample.id for sample in source.samples].index(hr_store.samples[0].id)
        self._hr = hr_store.batch([0]).to(settings.device).float() / 255  # LR, where images are small by nature
        self._sr_size = protocol.sr_size(self._hr.shape[-2], self._hr.shape[-1])
        if protocol.is_small:
            self._sr_size = at_side(self._sr_size, SMALL_SIDE)
        self._costs: dict[object, Costs] = {}
        self._classify: dict[str, Spread] = {}
        self._network_macs: dict[tuple[int, tuple[int, ...]], int | None] = {}

    @torch.inference_mode()
    def restoring(self, cell: PlannedCell, loaded: LoadedMethod) -> Costs:
        """Return what a method costs on its own; equal weights under two names are measured once."""
        key = _same_work(loaded)
        if key not in self._costs:
            assert loaded.method is not None
            method = loaded.method
            one = self._lr(self._hr)
            run: Callable[[Tensor], object] = partial(self._restore, loaded)
            dtype = self._settings.numerics.arithmetic
            if loaded.runtime is not None:
                file = self.file_of(cell)
                run, dtype = partial(_run, file.restoring), "int8" if file.calibration is not None else dtype
            images = self._settings.images_a_batch(*(self._sr_size if self._protocol.is_small else self._size))
            images = min(images, max(len(self._store), CHUNK))  # the pass has no larger batch, whatever is asked for
            images = min(images, self._settings.limits.smallest(loaded.title) or images)
            single = self._measure(lambda: run(one), 1)

            def at_once(count: int) -> tuple[Timing, float | None]:
                many = one.expand(count, -1, -1, -1).contiguous()
                with peak_memory(self._settings.device, method, many) as peak:
                    timing = self._measure(lambda: run(many), count)
                return timing, peak.mb

            batched, peak_mb = halved_until_it_fits(at_once, images, self._settings.device)
            self._costs[key] = Costs(
                latency_ms=milliseconds(single),
                throughput=rate(batched),
                batch=batched.batch_size,
                peak_memory_mb=peak_mb if loaded.runtime is None else None,
                macs=count_macs(method, to_channels(one, method.info.channels), self._sr_size),
                dtype=dtype,
            )
        return self._costs[key]

    @torch.inference_mode()
    def classifying(self, classifier: Classifier) -> Spread:
        """Return milliseconds an image of a classifier alone, at batch 1, on HR, or on images of its own size."""
        if classifier.id not in self._classify:
            image = self._hr
            if self._protocol.is_small:
                image = restore_size(image, at_side(self._size, classifier.usual_side), self._protocol.sr)
            with self._settings.numerics.active():
                timing = self._measure(lambda: classifier(image), 1)
            self._classify[classifier.id] = milliseconds(timing)
        return self._classify[classifier.id]

    @torch.inference_mode()
    def network_macs(self, loaded: LoadedMethod | None, network: torch.nn.Module | None) -> int | None:
        """Return the multiply-accumulates of a classifier on an image as it is shown to it, None without one."""
        if network is None:
            return None
        seen = self._hr
        if loaded is not None:
            chooses = loaded.method is not None and loaded.cls.info.output != "hr"
            shape = (*seen.shape[:2], *self._sr_size)
            seen = self._restore(loaded, self._lr(seen)) if chooses else seen.new_empty(shape)
        known = id(network), tuple(seen.shape)
        if known not in self._network_macs:
            self._network_macs[known] = count_macs(network, seen)
        return self._network_macs[known]

    @torch.inference_mode()
    def end_to_end(self, cell: PlannedCell) -> Spread:
        """Return milliseconds an image from the file to the logits, at batch 1."""
        loaded, classifier = cell.loaded, cell.network

        def once() -> None:
            image = crop_hr(self._source.read(self._index), self._store.geometry)
            hr = image[None].to(self._settings.device).float() / 255
            if cell.key.runtime is not None:
                _run(self.file_of(cell).shipped, self._lr(hr))
                return
            seen = hr if loaded is None else for_classifier(self._restore(loaded, self._lr(hr)), self._protocol)
            if classifier is not None:
                with self._settings.numerics.active():
                    classifier(seen)

        return milliseconds(self._measure(once, 1))

    def file_of(self, cell: PlannedCell) -> ExportedFile:
        """Return the exported file of a cell, at the protocol's own size or the cell's."""
        lr = self._lr(self._hr)
        size = self._sr_size if cell.side is None else at_side(self._sr_size, cell.side)
        assert cell.loaded is not None
        return self._files.of(cell.loaded, cell.scored.classifier, cell.network, (lr.shape[-2], lr.shape[-1]), size)

    @property
    def _size(self) -> tuple[int, int]:
        return self._hr.shape[-2], self._hr.shape[-1]

    def _lr(self, hr: Tensor) -> Tensor:
        if self._protocol.is_small:
            return hr
        real = self._store.lr_batch([0])
        if real is not None:
            return real.to(self._settings.device).float() / 255
        ids, grey = [self._store.samples[0].id], self._settings.channels == 1
        return degrade(hr, self._protocol.lr, sample_ids=ids, seed=self._settings.seed, grey=grey)

    def _restore(self, loaded: LoadedMethod, lr: Tensor) -> Tensor:
        assert loaded.method is not None
        return restore(
            loaded.method,
            lr,
            self._sr_size,
            restoration=self._protocol.sr,
            numerics=self._settings.numerics,
            channels=self._settings.channels,
            name=loaded.name,
        )

    def _measure(self, call: Callable[[], object], batch_size: int) -> Timing:
        return measure(call, device=self._settings.device, batch_size=batch_size, budget_s=BUDGET_S)


def _same_work(loaded: LoadedMethod) -> object:
    """Return what two methods have in common that cost the same by definition: name, weights and their arguments."""
    weights = loaded.weights
    if weights is None or not weights.ref.sha256:
        return id(loaded)
    return loaded.name, loaded.runtime, loaded.track, weights.ref.sha256, canonical_json(dict(weights.ref.arguments))


def _run(session: Session, lr: Tensor) -> None:
    session(eight_bits(lr))


def milliseconds(timing: Timing) -> Spread:
    """Return milliseconds an image."""
    scale = 1e3 / timing.batch_size
    return Spread(timing.median_s * scale, timing.p10_s * scale, timing.p90_s * scale)


def rate(timing: Timing) -> Spread:
    """Return images a second."""
    # the slow tail in seconds is the low tail in images a second
    return Spread(*(timing.batch_size / seconds for seconds in (timing.median_s, timing.p90_s, timing.p10_s)))
