"""`srbench bench`: how fast methods and a classifier run, beside what the device reaches on a matrix product.

Nothing is scored here. Every figure is taken apart from any other work: inputs on the device, warm-up, repeats.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from srbench.bench.exported import ExportedCalls
from srbench.bench.image import image_file
from srbench.compute.devices import use_device
from srbench.compute.numerics import Numerics
from srbench.compute.progress import track
from srbench.compute.timing import (
    MatrixProduct,
    count_macs,
    count_parameters,
    measure,
    measure_matrix_product,
    peak_memory,
)
from srbench.errors import UsageError, is_out_of_memory, sentence
from srbench.evaluation.costs import milliseconds, rate
from srbench.evaluation.loaded_methods import LoadedMethod, choose_for_timing
from srbench.evaluation.options import BATCH_IMAGES, PassSettings
from srbench.evaluation.runtimes import check_names
from srbench.files.atomic import check_out_dir, sweep_beside, write_json
from srbench.imaging.colour import to_channels
from srbench.imaging.decode import decode
from srbench.imaging.degrade import for_classifier
from srbench.imaging.resample import resize, to_uint8
from srbench.method import Method
from srbench.networks.classifiers import Classifier
from srbench.networks.loading import load_classifier
from srbench.protocol import load_protocol
from srbench.records.provenance import code_state, environment
from srbench.records.schema import CodeState, Environment, Spread, named
from srbench.registry import Registry
from srbench.restore import check_finite, restore

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
BUDGET_S = 1.0  # of each single measurement, warm-up included
DEFAULT_SIZE = (81, 81)  # the LR of a 256-pixel image at scale 0.32
DEFAULT_FACTOR = 4.0
PROTOCOL = "clean"  # whose kernel brings a native factor to the size asked for, and whose rounding the classifier sees

Stage = Literal["restore", "classify", "end_to_end"]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Case:
    """What is measured: one stage at one size and batch.

    Attributes:
        stage: "restore": the method and the way to SR size; "classify": the classifier on images of SR size;
            "end_to_end": from image files, decoded one after another, to logits, or to 8-bit SR without a classifier.
        method: Name of the method, as an exported file "bilinear[onnx]", or None for the classifier alone.
        weights: Label of its weights, or None.
        classifier: Id of the classifier, or None.
        lr_size: Height and width of LR, pixels.
        sr_size: Height and width asked of the method, pixels.
        batch: Images at once.
        runtime: What runs the exported file; None is torch.
    """

    stage: Stage
    method: str | None
    weights: str | None
    classifier: str | None
    lr_size: tuple[int, int]
    sr_size: tuple[int, int]
    batch: int
    runtime: str | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        case: What was measured.
        status: "ok", or "error" with its reason.
        reason: Why it failed, or None.
        latency_ms: Milliseconds an image.
        images_per_s: Images a second.
        repeats: Timed calls.
        peak_memory_mb: Most memory that the networks and their inputs took on the device, 10^6 bytes; None where the
            device does not tell.
        parameters: Of all networks of the stage.
        macs: Multiply-accumulates an image, of all networks of the stage; None where they cannot be counted.
        flops_per_s: Floating-point operations a second, two a multiply-accumulate; None where none are counted.
        share: `flops_per_s` over that of the matrix product of the same run.
        compile_s: Seconds of the first call of a compiled network; None where nothing was compiled.
    """

    case: Case
    status: Literal["ok", "error"]
    reason: str | None = None
    latency_ms: Spread | None = None
    images_per_s: Spread | None = None
    repeats: int | None = None
    peak_memory_mb: float | None = None
    parameters: int | None = None
    macs: int | None = None
    flops_per_s: float | None = None
    share: float | None = None
    compile_s: float | None = None

    @property
    def flops(self) -> int | None:
        """Floating-point operations an image, two a multiply-accumulate."""
        return None if self.macs is None else 2 * self.macs

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types, one level deep but for the spreads."""
        fields = dataclasses.asdict(self)
        case = fields.pop("case")
        case |= {"lr_size": list(self.case.lr_size), "sr_size": list(self.case.sr_size)}
        return case | fields | {"flops": self.flops}


@dataclass(frozen=True)
class BenchResult:
    """What a benchmark found.

    Attributes:
        rows: One a case, in the order in which they were measured.
        matrix_product: What the same device reaches on a large matrix product in the same precision and run.
        precision: "fp32", "tf32" or "bf16".
        compiled: The networks went through torch.compile.
        environment: Device, threads, versions.
        code: Version and commit.
    """

    rows: tuple[Row, ...]
    matrix_product: MatrixProduct
    precision: str
    compiled: bool
    environment: Environment
    code: CodeState

    @property
    def failed(self) -> list[Row]:
        """The rows that could not be measured."""
        return [row for row in self.rows if row.status == "error"]

    @property
    def frame(self) -> pd.DataFrame:
        """One line a row; spreads as three columns."""
        import pandas as pd

        return pd.json_normalize([row.to_json() for row in self.rows], sep="_")

    def to_json(self) -> dict[str, Any]:
        """Return the whole result as plain JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "precision": self.precision,
            "compiled": self.compiled,
            "matrix_product": dataclasses.asdict(self.matrix_product),
            "environment": dataclasses.asdict(self.environment),
            "code": dataclasses.asdict(self.code),
            "rows": [row.to_json() for row in self.rows],
        }


def bench(
    methods: Sequence[str] | None = None,
    *,
    sizes: Sequence[tuple[int, int]] = (DEFAULT_SIZE,),
    factor: float = DEFAULT_FACTOR,
    batch_sizes: Sequence[int] = (),
    device: str = "auto",
    precision: str = "fp32",
    compiled: bool = False,
    classifier: str | None = None,
    weights: Mapping[str, Sequence[str]] | None = None,
    runtimes: Sequence[str] = (),
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> BenchResult:
    """Measure methods at sizes and batches, at batch 1 always.

    Args:
        methods: Names, or None for every method.
        sizes: Heights and widths of LR, pixels.
        factor: SR side / LR side; a method of another native factor is brought to that size as in an evaluation.
        batch_sizes: Throughput batches beside batch 1; none chooses by the device.
        device: "auto", "cpu" or "cuda".
        precision: "auto" (fp32), "fp32", "tf32" (on a GPU) or "bf16".
        compiled: Send methods and classifier through torch.compile first.
        classifier: SPEC of a classifier, for `classify` and `end_to_end`, or None.
        weights: Names or files by method, or "untrained"; without, those that are here, else an untrained network.
        runtimes: What runs methods and classifier as exported files too: "onnx".
        plugins: Files of further methods.
        progress: Show a progress bar on a terminal.

    Returns:
        The rows; what could not be measured is among them.

    Raises:
        UsageError: If the call is wrong; nothing has been measured then.
    """
    where = use_device(device)
    numerics = Numerics.of(where, precision)
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"--factor takes SR side / LR side, a number above 0 such as 4, got {factor:g}")
    for batch in batch_sizes:
        if batch < 1:
            raise UsageError(f"--batch-size takes a whole number of at least 1, got {batch}")
    for height, width in sizes:
        if min(height, width, _scaled(height, factor), _scaled(width, factor)) < 1:
            raise UsageError(f"LR of {height} x {width} pixels and SR at {factor:g} times that need a pixel or more")
    if "onnx-int8" in runtimes:
        raise UsageError(
            "how fast int8 is depends on what falls back on the calibration images, so `srbench eval --runtime"
            " onnx-int8` and `srbench export --precision int8` say it; bench takes --runtime onnx"
        )
    check_names(runtimes, where, numerics)
    if runtimes and compiled:
        raise UsageError("--compile is for torch, and --runtime for exported files beside it; give one of them")
    if methods is not None and not methods:
        raise UsageError("no method was named; name some, or leave them out for all of them")
    batches = tuple(dict.fromkeys([1, *(batch_sizes or [BATCH_IMAGES[where.type]])]))
    settings = PassSettings(device=where, numerics=numerics, batch_size=max(batches), seed=0)
    registry = Registry(plugins)
    loaded_methods = choose_for_timing(methods, registry, given=weights or {}, protocol=load_protocol(PROTOCOL))
    loaded_classifier = load_classifier(classifier) if classifier is not None else None
    lr_sr = [((h, w), (_scaled(h, factor), _scaled(w, factor))) for h, w in dict.fromkeys(sizes)]
    before = measure_matrix_product(where, numerics, budget_s=BUDGET_S)
    with tempfile.TemporaryDirectory() as folder:
        runner = _Bench(
            loaded_methods, loaded_classifier, lr_sr, batches, settings, compiled, tuple(runtimes), Path(folder)
        )
        rows = list(runner.rows(progress=progress))
    after = measure_matrix_product(where, numerics, budget_s=BUDGET_S)
    # What else the machine does may slow the yardstick too; the better of the two is nearer to what the device can do.
    product = max(before, after, key=lambda each: each.flops_per_s)
    return BenchResult(
        rows=tuple(
            row if row.flops_per_s is None else dataclasses.replace(row, share=row.flops_per_s / product.flops_per_s)
            for row in rows
        ),
        matrix_product=product,
        precision=numerics.name,
        compiled=compiled,
        environment=environment(where),
        code=code_state(),
    )


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width of `H` or `HxW`, pixels.

    Raises:
        UsageError: If it is neither.
    """
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    if match is None or int(match[1]) < 1 or int(match[2] or match[1]) < 1:
        raise UsageError(f"--size takes the size of LR in pixels, H or HxW such as 81 or 56x84, got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def check_out_file(path: Path) -> None:
    """Refuse an --out that cannot become a JSON file.

    Raises:
        UsageError: If it is a folder, has another ending, or its folder cannot be written.
    """
    if path.suffix != ".json" or path.is_dir():
        raise UsageError(f"--out takes a file that ends in .json, got {path}")
    check_out_dir(path.parent)
    sweep_beside([path])


def write(result: BenchResult, path: Path) -> None:
    """Write a result as JSON.

    Raises:
        RecordError: If the file cannot be written.
    """
    write_json(path, result.to_json())


class _Bench:
    """The measurements of one call: case by case, with one network on the device at a time."""

    def __init__(
        self,
        loaded_methods: Sequence[LoadedMethod],
        classifier: Classifier | None,
        sizes: Sequence[tuple[tuple[int, int], tuple[int, int]]],
        batches: Sequence[int],
        settings: PassSettings,
        compiled: bool,
        runtimes: Sequence[str],
        folder: Path,
    ) -> None:
        self._runtimes = runtimes
        self._methods, self._classifier, self._sizes, self._batches = loaded_methods, classifier, sizes, batches
        self._settings, self._compiled, self._folder = settings, compiled, folder
        self._device = settings.device
        self._protocol = load_protocol(PROTOCOL)
        self._ready_classifier = (
            self._ready(classifier) if classifier is not None else None
        )  # the classifier as it runs

    @torch.inference_mode()
    def rows(self, *, progress: bool) -> Iterator[Row]:
        stages = 2 * len(self._methods) + (self._classifier is not None)
        total = len(self._sizes) * len(self._batches) * stages * (1 + len(self._runtimes))
        with track("timing", total, show=progress, unit="measurements") as advance:
            for lr_size, sr_size in self._sizes:
                path = image_file(self._folder, lr_size)
                lr = decode(path)[None].to(self._device).float() / 255
                if self._classifier is not None:
                    yield from _counted(self._classifier_rows(self._classifier, lr, sr_size), advance)
                for loaded in self._methods:
                    yield from _counted(self._method_rows(loaded, path, lr, sr_size), advance)

    def _classifier_rows(self, classifier: Classifier, lr: Tensor, sr_size: tuple[int, int]) -> Iterator[Row]:
        sr = resize(lr, sr_size, "bilinear").clamp(0, 1)
        macs = count_macs(classifier, sr)
        for batch in self._batches:
            self._forget()
            many = _repeated(sr, batch)
            case = self._case("classify", None, lr, sr_size, batch)
            yield self._row(case, partial(self._classified, many), macs, [classifier], inputs=[many])
        for runtime in self._runtimes:
            calls = ExportedCalls.of_network(classifier, self._protocol, sr_size)
            for batch in self._batches:
                case = self._case("classify", None, lr, sr_size, batch, runtime)
                yield self._row(case, partial(calls.classify, _repeated(sr, batch)), macs, [classifier])

    def _method_rows(self, loaded: LoadedMethod, path: Path, lr: Tensor, sr_size: tuple[int, int]) -> Iterator[Row]:
        assert loaded.method is not None
        method = loaded.method
        network = self._ready(method)
        macs = count_macs(method, to_channels(lr, method.info.channels), sr_size)
        all_macs, networks = macs, [method] if self._classifier is None else [method, self._classifier]
        if self._classifier is not None:
            seen = torch.empty(1, 3, *sr_size)
            if method.info.output != "hr":  # its SR has a size of its own
                seen = self._restored(loaded.name, method, lr.clone(), sr_size)
            classifier_macs = count_macs(self._classifier, seen)
            all_macs = None if macs is None or classifier_macs is None else macs + classifier_macs
        for batch in self._batches:
            self._forget()
            many = _repeated(lr, batch)
            yield self._row(
                self._case("restore", loaded, lr, sr_size, batch),
                partial(self._restored, loaded.name, network, many, sr_size),
                macs,
                [method],
                inputs=[many],
                first=partial(self._checked, loaded.name, network, many, sr_size),
            )
            yield self._row(
                self._case("end_to_end", loaded, lr, sr_size, batch),
                partial(self._from_files, loaded.name, network, [path] * batch, sr_size),
                all_macs,
                networks,
            )
        for runtime in self._runtimes:
            calls = ExportedCalls(loaded, self._classifier, self._protocol, (lr.shape[-2], lr.shape[-1]), sr_size)
            for batch in self._batches:
                case = self._case("restore", loaded, lr, sr_size, batch, runtime)
                yield self._row(case, partial(calls.restore, _repeated(lr, batch)), macs, [method])
                case = self._case("end_to_end", loaded, lr, sr_size, batch, runtime)
                yield self._row(case, partial(calls.from_files, [path] * batch), all_macs, networks)
        method.to("cpu")

    def _row(
        self,
        case: Case,
        call: Callable[[], object],
        macs: int | None,
        networks: Sequence[nn.Module],
        *,
        inputs: Sequence[Tensor] = (),
        first: Callable[[], object] | None = None,
    ) -> Row:
        """Measure one case, after a first call that finds out whether it runs at all.

        Args:
            case: What is measured.
            call: The measured call.
            macs: Multiply-accumulates an image.
            networks: The networks that take part.
            inputs: What the call works on, where that lies on the device already.
            first: The first call, where it is another one.
        """
        try:
            began = time.perf_counter()
            (first or call)()
            first_s = time.perf_counter() - began
            with peak_memory(self._device, *networks, *inputs) as peak:
                timing = measure(call, device=self._device, batch_size=case.batch, budget_s=BUDGET_S)
        except Exception as error:  # noqa: BLE001 whatever a network, a compiler or a full device raises is a row
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if is_out_of_memory(error):
                return Row(case, "error", f"the memory does not hold {case.batch} at once; give a smaller --batch-size")
            return Row(case, "error", sentence(error))
        images_per_s = rate(timing)
        return Row(
            case=case,
            status="ok",
            latency_ms=milliseconds(timing),
            images_per_s=images_per_s,
            repeats=timing.repeats,
            peak_memory_mb=peak.mb,
            parameters=sum(count_parameters(network) for network in networks),
            macs=macs,
            flops_per_s=2 * macs * images_per_s.median if macs else None,
            compile_s=first_s if self._compiled and case.stage != "end_to_end" else None,
        )

    def _case(
        self,
        stage: Stage,
        loaded: LoadedMethod | None,
        lr: Tensor,
        sr_size: tuple[int, int],
        batch: int,
        runtime: str | None = None,
    ) -> Case:
        return Case(
            stage=stage,
            method=named(loaded.name, runtime) if loaded is not None else None,
            weights=loaded.label if loaded is not None else None,
            classifier=self._classifier.id if self._classifier is not None and stage != "restore" else None,
            lr_size=(lr.shape[-2], lr.shape[-1]),
            sr_size=sr_size,
            batch=batch,
            runtime=runtime,
        )

    def _ready(self, network: Network) -> Network:
        # as the evaluation prepares them
        network.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(network, dynamic=False) if self._compiled else network  # type: ignore[return-value]

    def _forget(self) -> None:
        """Forget what was compiled: beyond a few shapes of one network, torch.compile silently compiles no more."""
        if self._compiled:
            torch.compiler.reset()

    def _checked(self, name: str, network: Method, lr: Tensor, size: tuple[int, int]) -> None:
        check_finite(name, self._restored(name, network, lr, size))

    def _restored(self, name: str, network: Method, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return restore(network, lr, size, restoration=self._protocol.sr, numerics=self._settings.numerics, name=name)

    def _classified(self, image: Tensor) -> Tensor:
        assert self._ready_classifier is not None
        with self._settings.numerics.active():
            return self._ready_classifier(image)

    def _from_files(self, name: str, network: Method, paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
        pixels = torch.stack([decode(path) for path in paths])
        lr = pixels.to(self._device, non_blocking=True).float() / 255
        sr = for_classifier(self._restored(name, network, lr, size), self._protocol)
        return self._classified(sr).cpu() if self._ready_classifier is not None else to_uint8(sr).cpu()


def _counted(rows: Iterator[Row], advance: Callable[[int], None]) -> Iterator[Row]:
    for row in rows:
        advance(1)
        yield row


def _repeated(image: Tensor, batch: int) -> Tensor:
    return image.expand(batch, -1, -1, -1).contiguous()


def _scaled(side: int, factor: float) -> int:
    return math.floor(side * factor + 1e-9)
