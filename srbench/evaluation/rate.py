"""`srbench rate`: what should be sent? Every side and quality of a codec, restored and classified, against bytes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.compute.devices import use_device
from srbench.compute.numerics import Numerics
from srbench.compute.progress import track
from srbench.data.catalogue import default_protocol, open_source
from srbench.data.hr_cache import HRStore, build_hr_store
from srbench.errors import DataError, UsageError
from srbench.evaluation.batches import Batch
from srbench.evaluation.loaded_methods import LoadedMethod, choose
from srbench.evaluation.options import PassSettings
from srbench.evaluation.restored import RestoredBatch
from srbench.files.atomic import check_out_dir, write_json
from srbench.files.paths import user_path
from srbench.imaging.compression import decode, encode
from srbench.imaging.degrade import degrade, for_classifier, restore_size
from srbench.imaging.resample import to_uint8
from srbench.imaging.sizes import at_side, sweep
from srbench.leaderboard.sendings import RATE_FILE, WHOLE
from srbench.metrics.stats import bootstrap_means, cross_fitted, interval, second_half
from srbench.metrics.stats.bd_rate import Point, bd_rate, frontier
from srbench.networks.classifiers import Classifier, label_map
from srbench.networks.loading import load_classifier
from srbench.protocol import CODECS, Codec, Degradation, Protocol, load_protocol
from srbench.registry import Registry

_BATCH = 8


@dataclass(frozen=True)
class Setting:
    """One way of sending an image.

    Attributes:
        side: Shortest side of what is sent, pixels.
        codec: "jpeg", "webp" or "avif".
        quality: From 1 to 100.
        method: What restores it, with the label of its weights; `WHOLE` where it is sent at HR size.
    """

    side: int
    codec: Codec
    quality: int
    method: str

    @property
    def label(self) -> str:
        """What a person reads."""
        return f"{self.side} px {self.codec} q{self.quality}, {self.method}"


@dataclass(frozen=True)
class Scored:
    """What a setting costs and what it is worth.

    Attributes:
        setting: The setting.
        sizes: Bytes of each image, `(n,)`.
        right: Whether each is classified rightly, `(n,)`, at the input size that is best on the other half.
        input_sizes: The two best input sizes, one a half.
        low: Lower end of the accuracy's interval of 95 %.
        high: Upper end.
    """

    setting: Setting
    sizes: NDArray[np.int64]
    right: NDArray[np.bool_]
    input_sizes: tuple[int, int]
    low: float
    high: float

    @property
    def point(self) -> Point:
        """Mean bytes and accuracy."""
        return float(self.sizes.mean()), float(self.right.mean())


@dataclass(frozen=True)
class RateResult:
    """What a call found.

    Attributes:
        scored: Every setting.
        ids: Ids of the images.
        network: Id of the network.
        protocol: Its name and fingerprint.
    """

    scored: tuple[Scored, ...]
    ids: tuple[str, ...]
    network: str
    protocol: tuple[str, str]

    @property
    def frontier(self) -> list[Scored]:
        """The settings that no other beats in bytes and accuracy at once, the fewest bytes first."""
        kept = set(frontier([each.point for each in self.scored]))
        first = {each.point: each for each in reversed(self.scored) if each.point in kept}
        return [first[point] for point in sorted(kept)]

    def cheapest(self, accuracy: float) -> Scored | None:
        """Return the setting of fewest bytes whose accuracy is at least this, or None."""
        enough = [each for each in self.scored if each.point[1] >= accuracy]
        return min(enough, key=lambda each: (each.point[0], each.setting.label), default=None)

    def curves(self) -> dict[str, list[Point]]:
        """Return the points of every method and codec, by "method, codec"."""
        curves: dict[str, list[Point]] = {}
        for each in self.scored:
            curves.setdefault(f"{each.setting.method}, {each.setting.codec}", []).append(each.point)
        return curves

    def deltas(self) -> list[tuple[str, str, float]]:
        """Return the BD-rate of every pair of curves that share a range of accuracy: reference, other, share."""
        pairs = itertools.combinations(self.curves().items(), 2)
        found = [(first, second, bd_rate(mine, its)) for (first, mine), (second, its) in pairs]
        return [(first, second, share) for first, second, share in found if share is not None]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON types, bytes and decisions of every sample included."""
        on_frontier = {each.setting for each in self.frontier}
        return {
            "schema_version": 1,
            "network": self.network,
            "protocol": {"name": self.protocol[0], "fingerprint": self.protocol[1]},
            "ids": list(self.ids),
            "settings": [
                dataclasses.asdict(each.setting)
                | {
                    "mean_bytes": each.point[0],
                    "accuracy": each.point[1],
                    "ci": [each.low, each.high],
                    "best_input_sizes": list(each.input_sizes),
                    "frontier": each.setting in on_frontier,
                    "bytes": each.sizes.tolist(),
                    "right": each.right.astype(int).tolist(),
                }
                for each in self.scored
            ],
            "bd_rate": [{"reference": a, "other": b, "share": share} for a, b, share in self.deltas()],
        }

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return the frontier as a table: setting, bytes, accuracy, interval, input sizes."""
        return [
            (
                each.setting.label,
                f"{each.point[0]:,.0f}",
                f"{each.point[1]:.4f}",
                f"{each.low:.3f}..{each.high:.3f}",
                " / ".join(str(size) for size in dict.fromkeys(each.input_sizes)),
            )
            for each in self.frontier
        ]


def rate(
    methods: Sequence[str] = ("bilinear",),
    *,
    data: str,
    classifier: str,
    sides: Sequence[int],
    codecs: Sequence[str] = ("jpeg",),
    qualities: Sequence[int] = (30, 60, 90),
    split: str | None = None,
    protocol: str | None = None,
    weights: Mapping[str, Sequence[str]] | None = None,
    limit: int | None = None,
    device: str = "auto",
    out: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> RateResult:
    """Send every image at every side and quality, and classify what can be made of it.

    Args:
        methods: What restores images that are sent smaller than HR.
        data: SPEC of a labelled dataset.
        classifier: SPEC of the network.
        sides: Shortest sides of what is sent, pixels; that of HR sends the image as it is.
        codecs: "jpeg", "webp", "avif".
        qualities: From 1 to 100.
        split: Name of the split, or None for the dataset's own default.
        protocol: Name or file; its geometry, resampling, return to size and rounding hold. None is the dataset's own.
        weights: Names or files by method.
        limit: Take only so many images.
        device: "auto", "cpu" or "cuda".
        out: Folder of rate.json, or None.
        plugins: Files of further methods.
        progress: Show a progress bar on a terminal.

    Raises:
        UsageError: If the call is wrong.
        DataError: If the data have no labels that the network knows.
    """
    _check(sides, codecs, qualities)
    folder = None if out is None else user_path(out)
    if folder is not None:
        check_out_dir(folder)
    where = use_device(device)
    rules = load_protocol(protocol or default_protocol([data]))
    source = open_source(data, split)
    network = load_classifier(classifier).to(where)
    if source.classes is None or source.has_targets:
        raise DataError(f"the data {data!r} have no labels of whole images, so no accuracy can be held against bytes")
    outputs = label_map(network.info, source.classes)
    loaded = choose(
        list(methods),
        Registry(plugins),
        given=weights or {},
        classifiers=[network],
        protocol=rules,
        dataset=source.name,
    )
    ready = [each for each in loaded if each.name in set(methods) and each.method is not None]
    for each in ready:
        if each.track == "adapted":
            raise UsageError(f"{each.name} ({each.label}) brings a network of its own; rate takes one network for all")
        assert each.method is not None
        each.method.to(where)
    store = build_hr_store(source, rules.hr, limit=limit)
    settings = PassSettings(
        device=where, numerics=Numerics.of(where, "fp32"), batch_size=_BATCH, seed=0, channels=source.channels
    )
    sender = _Sender(store, rules, network, ready, settings)
    assert store.labels is not None
    wanted = outputs[store.labels]
    ids = [sample.id for sample in store.samples]
    second = second_half(ids)
    scored: list[Scored] = []
    total = len(sides) * len(codecs) * len(qualities)
    with track("rate", total, show=progress, unit="settings") as advance:
        for side, codec, quality in itertools.product(sides, codecs, qualities):
            for setting, sizes, decided in sender.send(side, codec, quality):  # type: ignore[arg-type]
                by_size = {size: choices == wanted for size, choices in decided.items()}
                best = cross_fitted(by_size, second, usual=max(by_size))  # the protocol's own is the largest
                if best is None:
                    raise DataError(f"{len(ids)} images are too few to halve; take more, --limit {limit} cuts them")
                low, high = interval(bootstrap_means(best.right[:, None].astype(np.float64), seed=0)[:, 0])
                scored.append(Scored(setting, sizes, best.right, best.best, low, high))
            advance(1)
    result = RateResult(tuple(scored), tuple(ids), network.id, (rules.name, rules.fingerprint))
    if folder is not None:
        write_json(folder / RATE_FILE, result.to_json())
    return result


class _Sender:
    """What every setting shares."""

    def __init__(
        self,
        store: HRStore,
        protocol: Protocol,
        network: Classifier,
        methods: Sequence[LoadedMethod],
        settings: PassSettings,
    ) -> None:
        self._store, self._protocol, self._network, self._methods = store, protocol, network, methods
        self._settings = settings

    @torch.inference_mode()
    def send(
        self, side: int, codec: Codec, quality: int
    ) -> list[tuple[Setting, NDArray[np.int64], dict[int, NDArray[np.int64]]]]:
        """Return for each method: setting, bytes of every image, and its decisions by input size."""
        sizes = np.zeros(len(self._store), dtype=np.int64)
        decided: dict[str, dict[int, NDArray[np.int64]]] = {}
        for positions in self._store.groups(np.arange(len(self._store)), _BATCH):
            hr = self._store.batch(positions).float() / 255
            sent = shrunk(hr, side, self._protocol)
            data = [encode(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), codec, quality) for image in sent]
            sizes[positions] = [len(each) for each in data]
            pixels = torch.from_numpy(np.stack([decode(each) for each in data])).permute(0, 3, 1, 2)
            lr = pixels.to(self._settings.device).float() / 255
            own = self._protocol.sr_size(hr.shape[-2], hr.shape[-1])
            low = side if side < min(own) else min(own) // 2
            inputs = sorted({*sweep(low, min(own)), min(own)})
            for name, images in self._restored(lr, positions, own, [at_side(own, size) for size in inputs]):
                by_size = decided.setdefault(name, {})
                for size, image in zip(inputs, images, strict=True):
                    with self._settings.numerics.active():
                        choices = self._network(for_classifier(image, self._protocol)).argmax(1).cpu().numpy()
                    by_size.setdefault(size, np.zeros(len(self._store), dtype=np.int64))[positions] = choices
        return [(Setting(side, codec, quality, name), sizes, by_size) for name, by_size in decided.items()]

    def _restored(
        self, lr: Tensor, positions: NDArray[np.int64], own: tuple[int, int], wanted: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[str, Iterator[Tensor]]]:
        """Yield, for each method, SR `(N, 3, H, W)`, RGB, float32, at the wanted sizes of LR `(N, 3, h, w)`, [0, 1]."""
        if lr.shape[-2:] == own:
            yield WHOLE, (restore_size(lr, size, self._protocol.sr) for size in wanted)
            return
        ids = [sample.id for sample in self._store.samples.take(positions)]
        rows = torch.arange(len(ids), device=lr.device)
        batch = Batch(positions, rows, ids, hr=None, lr=lr, sr_size=own, statistics=None)
        for each in self._methods:
            sr = RestoredBatch(each, batch, self._protocol, self._settings)
            yield f"{each.name} ({each.label})" if each.label else each.name, (sr.at(size)[0] for size in wanted)


def shrunk(hr: Tensor, side: int, protocol: Protocol) -> Tensor:
    """Return what is encoded, `(N, 3, h, w)`, RGB, uint8: HR `(N, 3, H, W)`, [0, 1], brought to a shortest side.

    Of the protocol's degradation the resampling alone takes part: codec, blur and noise are no choice of a sender.
    """
    if side >= min(hr.shape[-2:]):
        return to_uint8(hr.clone())
    lr = protocol.lr
    plain = Degradation(lr_side=side, kernel=lr.kernel, antialias=lr.antialias, border=lr.border)
    return to_uint8(degrade(hr, plain))


def _check(sides: Sequence[int], codecs: Sequence[str], qualities: Sequence[int]) -> None:
    if not sides or min(sides) < 1:
        raise UsageError(f"--side takes numbers of pixels of at least 1, got {list(sides) or 'none'}")
    for codec in codecs:
        if codec not in CODECS:
            raise UsageError(f"--codec takes {', '.join(CODECS)}, got {codec!r}")
    if not qualities or not all(1 <= quality <= 100 for quality in qualities):
        raise UsageError(f"--quality takes numbers from 1 to 100, got {list(qualities) or 'none'}")
