"""Runtimes: methods and networks scored as the exported files that ship, beside torch on the same LR.

A runtime is a field of a cell's key. Its row is named after method and runtime, `darionet[onnx-int8]`, and stands
beside torch's own. A file is made when a batch first needs it, by the code of `srbench export`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.compute.numerics import Numerics
from srbench.data.catalogue import open_source
from srbench.data.hr_cache import HRStore
from srbench.data.source import sample_list_sha256
from srbench.errors import UnknownNameError, UsageError
from srbench.evaluation.exporting import deployment_of
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.lr_images import LrImages, pixel_hash, read_lr
from srbench.evaluation.options import EvalOptions
from srbench.evaluation.quantising import Int8Options, check_apart, quantised_graph, quantised_metadata
from srbench.export import formats
from srbench.export.graph import LOGITS, SR, Deployment, Graph
from srbench.export.session import Session
from srbench.export.sizes import LrSize
from srbench.imaging.resample import to_uint8
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.records.schema import RuntimePart
from srbench.registry import listed

if TYPE_CHECKING:
    from onnx import ModelProto

RUNTIMES: Final = {"onnx": "fp32", "onnx-int8": "int8"}  # what `--runtime` takes -> the precision of the file
_INT8 = "onnx-int8"

Size = tuple[int, int]


def check(options: EvalOptions, device: torch.device, numerics: Numerics, *, has_network: bool) -> None:
    """Refuse what no exported file can do, before anything is computed.

    Raises:
        UsageError: If a runtime does not exist, lacks a package or its calibration images, or computes in another
            arithmetic than the rows beside it.
    """
    names = listed(options.runtimes)
    check_names(names, device, numerics)
    if (_INT8 in names) != (options.int8 is not None):
        raise UsageError(f"--runtime {_INT8} and --calibrate SPEC go together; give both, or neither")
    if _INT8 in names and not has_network:
        raise UsageError(f"--runtime {_INT8} is calibrated by the decisions of a network; give --classifier SPEC")


def check_names(names: Sequence[str], device: torch.device, numerics: Numerics) -> None:
    """Refuse runtimes that do not exist or cannot run here.

    Raises:
        UsageError: Saying what to do.
    """
    for name in names:
        if name not in RUNTIMES:
            raise UnknownNameError("runtime", name, RUNTIMES)
    if not names:
        return
    if device.type != "cpu" or numerics != Numerics(device="cpu"):
        raise UsageError(
            f"--runtime {names[0]} runs on the CPU beside torch in fp32; add --device cpu and leave --precision out"
        )
    formats.check_packages()


def with_files(
    loaded: Sequence[LoadedMethod], runtimes: Sequence[str], asked: Sequence[str] | None
) -> list[LoadedMethod]:
    """Return the methods of a run, each that was asked for followed by itself in every runtime.

    Args:
        loaded: The methods.
        runtimes: Names of the runtimes.
        asked: Names of the methods that were asked for, or None for all of them.
    """
    return list(_with_files(loaded, list(dict.fromkeys(runtimes)), asked))


def _with_files(
    loaded: Sequence[LoadedMethod], runtimes: Sequence[str], asked: Sequence[str] | None
) -> Iterator[LoadedMethod]:
    for each in loaded:
        yield each
        if each.method is not None and each.skip is None and (asked is None or each.name in asked):
            yield from (dataclasses.replace(each, runtime=name) for name in runtimes)


def why_no_file(loaded: LoadedMethod, protocol: Protocol, hr_store: HRStore, *, channels: int) -> str | None:
    """Say why a task cannot be scored by one exported file, or return None if it can.

    Args:
        loaded: The method.
        protocol: The protocol of the task.
        hr_store: Its images.
        channels: Channels of the data.
    """
    if protocol.is_small:
        return "an exported file takes LR of one size, and images that are small by nature have many"
    if protocol.lr.none or not (protocol.lr.eight_bit or protocol.lr.given):
        return f"an exported file takes LR of 8 bits, and protocol {protocol.name!r} has none"
    if channels == 1 or loaded.cls.info.channels != 3:
        return "an exported file takes colour images here, and these are grey"
    shapes = hr_store.shapes if hr_store.lr_shapes is None else hr_store.lr_shapes
    sizes = len(np.unique(shapes, axis=0))
    if sizes > 1:
        return f"an exported file takes LR of one size, and these images have {sizes}; a protocol that crops makes one"
    return None


def inputs(options: EvalOptions) -> dict[str, dict[str, Any]]:
    """Return by runtime what the values of its files depend on beyond method and network, as plain JSON types."""
    names = listed(options.runtimes)
    known: dict[str, dict[str, Any]] = {name: {"runtime": name} for name in names}
    if options.int8 is not None:
        samples = open_source(options.int8.calibrate, options.int8.split).samples[: options.int8.images]
        known[_INT8] |= {"int8": dataclasses.asdict(options.int8), "calibration": sample_list_sha256(samples)}
    return known


@dataclass(frozen=True)
class ExportedFile:
    """A method and a network as one graph.

    Attributes:
        model: The graph; its outputs are the logits, where there is a network, and SR.
        metadata: What its file says about itself.
        threads: Threads of the runtime.
        float32_parts: Parts of an int8 graph that stayed in float32.
        calibration: What an int8 graph was calibrated on, or None.
    """

    model: ModelProto
    metadata: dict[str, Any]
    threads: int
    float32_parts: tuple[str, ...] = ()
    calibration: Int8Options | None = None

    @cached_property
    def whole(self) -> Session:
        """The graph with SR beside the logits, which PSNR and SSIM need."""
        return self._session(self.model)

    @cached_property
    def shipped(self) -> Session:
        """What `srbench export` writes: the logits alone, or SR without a network."""
        return self._session(formats.ending_with(self.model, LOGITS)) if LOGITS in self.whole.outputs else self.whole

    @cached_property
    def restoring(self) -> Session:
        """The method's part, which ends with SR."""
        return self._session(formats.ending_with(self.model, SR)) if LOGITS in self.whole.outputs else self.whole

    def __call__(self, lr: Tensor, *, with_sr: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return logits `(N, K)`, None without a network, and SR `(N, 3, H, W)`, float32, None if it is not asked for.

        Args:
            lr: `(N, 3, h, w)`, RGB, float32, on the levels of 8 bits.
            with_sr: Whether SR is asked for.
        """
        session = self.whole if with_sr else self.shipped
        outputs = dict(zip(session.outputs, session(eight_bits(lr)), strict=True))
        logits, sr = outputs.get(LOGITS), outputs.get(SR)
        return (
            None if logits is None else torch.from_numpy(logits).float(),
            None
            if sr is None
            else torch.from_numpy(sr).permute(0, 3, 1, 2).float() / (255 if sr.dtype == np.uint8 else 1),
        )

    @property
    def record(self) -> RuntimePart:
        """What a record says of it."""
        import onnxruntime

        int8 = self.calibration
        return RuntimePart(
            library=f"onnxruntime {onnxruntime.__version__}",
            precision="fp32" if int8 is None else "int8",
            file_mb=self.shipped.megabytes,
            restoring_mb=self.restoring.megabytes,
            float32_parts=self.float32_parts,
            calibration=None if int8 is None else {"spec": int8.calibrate, "split": int8.split, "images": int8.images},
        )

    def _session(self, model: ModelProto) -> Session:
        return Session(formats.onnx_bytes(model, self.metadata), threads=self.threads)


def eight_bits(lr: Tensor) -> NDArray[np.uint8]:
    """Return LR `(N, 3, h, w)` as a file takes it, `(N, h, w, 3)`, uint8."""
    return np.ascontiguousarray(to_uint8(lr).permute(0, 2, 3, 1).numpy())


def export_float(
    loaded: LoadedMethod, network: Classifier | None, protocol: Protocol, lr_size: Size, sr_size: Size
) -> ExportedFile:
    """Return a method, and the network behind it, as a float graph of one LR size.

    Raises:
        ExportError: If there is no such graph.
    """
    with torch.inference_mode(False):
        return _float_file(_deployment(loaded, network, network, protocol, lr_size, sr_size))


def _float_file(deployment: Deployment) -> ExportedFile:
    model = formats.onnx_model(Graph(deployment), deployment.lr_size, name=deployment.name)
    return ExportedFile(model, deployment.metadata(), torch.get_num_threads())


def _deployment(
    loaded: LoadedMethod,
    base: Classifier | None,
    network: nn.Module | None,
    protocol: Protocol,
    lr_size: Size,
    sr_size: Size,
) -> Deployment:
    # Weights that lie channels last, as the pass has them, would put operators into the graph that `srbench export`,
    # which loads them anew, does not put there.
    method, behind = copy.deepcopy((loaded.method, network))
    for each in (method, behind):
        if each is not None:
            each.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return deployment_of(
        dataclasses.replace(loaded, method=method),
        base,
        behind,
        protocol,
        lr_size=LrSize(lr_size, lr_size),
        sr_size=None if loaded.cls.info.output == "lr" else sr_size,
    )


class ExportedFiles:
    """The files of a task, each made once."""

    def __init__(self, hr_store: HRStore, protocol: Protocol, int8: Int8Options | None) -> None:
        """Prepare for a task.

        Args:
            hr_store: Its images, none of which may calibrate a file.
            protocol: Its protocol.
            int8: How int8 files are quantised.
        """
        self._store, self._protocol, self._int8 = hr_store, protocol, int8
        self._made: dict[object, ExportedFile] = {}
        self._test_hashes: frozenset[str] | None = None

    def of(
        self, loaded: LoadedMethod, base: Classifier | None, network: nn.Module | None, lr_size: Size, sr_size: Size
    ) -> ExportedFile:
        """Return the file of a method and a network.

        Args:
            loaded: A method with a runtime.
            base: What names the network's outputs, or None.
            network: What decides: `base`, or the copy of it that was trained along with the method.
            lr_size: Height and width of LR.
            sr_size: Those of SR.

        Raises:
            ExportError: If there is no such file.
            DataError: If a test image would calibrate it.
        """
        key = id(loaded), None if base is None else base.id, lr_size, sr_size
        if key not in self._made:
            with torch.inference_mode(False):
                deployment = _deployment(loaded, base, network, self._protocol, lr_size, sr_size)
                file = _float_file(deployment)
                self._made[key] = self._quantised(file, deployment) if loaded.runtime == _INT8 else file
        return self._made[key]

    def _quantised(self, file: ExportedFile, deployment: Deployment) -> ExportedFile:
        assert self._int8 is not None
        calibration = self._calibration(deployment, self._int8)
        quantised = quantised_graph(file.model, file.metadata, calibration, self._int8, threads=file.threads)
        metadata = file.metadata | quantised_metadata(quantised)
        return ExportedFile(quantised.model, metadata, file.threads, quantised.fallen, self._int8)

    def _calibration(self, deployment: Deployment, int8: Int8Options) -> LrImages:
        if self._test_hashes is None:
            self._test_hashes = frozenset(
                pixel_hash(self._store.batch([position])) for position in range(len(self._store))
            )
        images = read_lr(deployment, int8.calibrate, int8.split, int8.images)
        check_apart(images, self._test_hashes)
        return images
