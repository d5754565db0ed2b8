"""`srbench export --precision int8`: calibrated on training images, judged on others, written if it loses little."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srbench.compute.timing import measure
from srbench.errors import DataError, UsageError
from srbench.evaluation.lr_images import LrImages
from srbench.export import formats
from srbench.export.graph import ExportError
from srbench.export.int8 import Quantised, Quantiser, fall_back
from srbench.export.session import Session
from srbench.metrics.stats import bootstrap_means, interval

if TYPE_CHECKING:
    from onnx import ModelProto

_HELD_OUT = 2  # one in so many calibration images decides what falls back
_CHANGED = 0.03  # share of decisions that may change on them where nobody says which are right


@dataclass(frozen=True)
class Int8Options:
    """How a graph is quantised.

    Attributes:
        calibrate: SPEC of training images.
        split: Name of their split, or None for the dataset's own default.
        images: How many of them are taken.
        per_tensor: One scale for each whole weight and no falling back, to see what that costs.
        gate: Points of accuracy (or of equal decisions, without labels) that may be lost.
    """

    calibrate: str
    split: str | None = None
    images: int = 192
    per_tensor: bool = False
    gate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            UsageError: Naming the option.
        """
        if self.images < 2 * _HELD_OUT:
            raise UsageError(f"--calibrate-images takes a number of at least {2 * _HELD_OUT}, got {self.images}")
        if not 0 <= self.gate <= 100:
            raise UsageError(f"--gate takes points of accuracy from 0 to 100, got {self.gate:g}")


@dataclass(frozen=True)
class Int8Report:
    """What 8 bits cost.

    Attributes:
        measure: "accuracy", or "equal decisions" where the images have no labels that the network knows.
        n: Images that it was judged on.
        exact: The measure of the float graph.
        quantised: That of the quantised one.
        loss: Their paired difference, a share.
        low: Lower end of its interval of 95 %.
        high: Upper end.
        parts: Parts that can be quantised.
        fallen: Parts that stayed in float32.
        float_mb: Size of the float file, 10^6 bytes.
        float_ms: Its milliseconds an image, median, taken in the same run.
        int8_ms: Those of the quantised file.
        int8_mb: Its size, 10^6 bytes.
    """

    measure: str
    n: int
    exact: float
    quantised: float
    loss: float
    low: float
    high: float
    parts: int
    fallen: tuple[str, ...]
    float_mb: float
    float_ms: float
    int8_mb: float
    int8_ms: float

    @property
    def lines(self) -> list[str]:
        """Return sentences for a person."""
        stayed = f"in float32 stayed {', '.join(self.fallen)}" if self.fallen else "no part fell back to float32"
        slower = "" if self.int8_ms < self.float_ms else "; on this machine 8 bits save no time"
        return [
            f"int8 has {self.measure} {self.quantised:.4f}, float32 {self.exact:.4f}, on {self.n} images: it loses"
            f" {100 * self.loss:.2f} points ({100 * self.low:.2f} to {100 * self.high:.2f}, paired)",
            f"{self.parts - len(self.fallen)} of {self.parts} parts are int8; {stayed}",
            f"ONNX Runtime takes {self.int8_ms:.1f} ms an image instead of {self.float_ms:.1f}, the file"
            f" {self.int8_mb:.2f} MB instead of {self.float_mb:.2f}{slower}",
        ]

    def metadata(self) -> dict[str, Any]:
        """Return what the file says of its cost."""
        return {"int8_loss": {"measure": self.measure, "n": self.n, "points": round(100 * self.loss, 3)}}


@dataclass(frozen=True)
class Int8File:
    """A quantised file.

    Attributes:
        content: Its bytes.
        report: What it costs.
        metadata: What it says about itself.
    """

    content: bytes
    report: Int8Report
    metadata: dict[str, Any] = field(default_factory=dict)


def quantise(
    model: ModelProto,
    metadata: Mapping[str, Any],
    test: LrImages,
    calibration: LrImages,
    options: Int8Options,
    *,
    threads: int,
) -> Int8File:
    """Quantise a graph that ends with logits, and hold it against the gate.

    Args:
        model: The float graph.
        metadata: What its file says about itself.
        test: Images that it is judged on.
        calibration: Training images.
        options: How.
        threads: Threads of the runtime.

    Raises:
        DataError: If calibration and test share an image.
        ExportError: If more is lost than the gate allows.
    """
    check_apart(calibration, test.hashes)
    quantised = quantised_graph(model, metadata, calibration, options, threads=threads)
    exact = Session(formats.onnx_bytes(model, metadata), threads=threads)
    coarse = Session(formats.onnx_bytes(quantised.model, metadata), threads=threads)
    decided = [
        np.array([int(session(image[None])[0][0].argmax()) for image in test.images]) for session in (exact, coarse)
    ]
    one = test.images[0][None]
    ms = [
        1e3 * measure(lambda session=session: session(one), device="cpu", batch_size=1).median_s  # type: ignore[misc]
        for session in (exact, coarse)
    ]
    lost = losses(decided[1], decided[0], test.outputs)
    accuracy = 1.0 if test.outputs is None else float((decided[0] == test.outputs).mean())
    low, high = interval(bootstrap_means(lost[:, None], seed=0)[:, 0])
    report = Int8Report(
        measure="accuracy" if test.outputs is not None else "equal decisions",
        n=len(lost),
        exact=accuracy,
        quantised=accuracy - float(lost.mean()),
        loss=float(lost.mean()),
        low=low,
        high=high,
        parts=len(quantised.parts),
        fallen=quantised.fallen,
        float_mb=exact.megabytes,
        float_ms=ms[0],
        int8_mb=coarse.megabytes,
        int8_ms=ms[1],
    )
    if 100 * report.loss > options.gate + 1e-9:
        raise ExportError(
            f"{report.lines[0]}, and --gate allows {options.gate:g}; nothing was written:"
            " ship float32, calibrate on more images like yours, or raise --gate"
        )
    about = dict(metadata) | quantised_metadata(quantised) | report.metadata()
    return Int8File(formats.onnx_bytes(quantised.model, about), report, about)


def quantised_graph(
    model: ModelProto, metadata: Mapping[str, Any], calibration: LrImages, options: Int8Options, *, threads: int
) -> Quantised:
    """Return a graph in 8 bits, as far as the calibration images allow; no other image takes part.

    Args:
        model: The float graph; its first output is the logits.
        metadata: What its file says about itself.
        calibration: Training images.
        options: How.
        threads: Threads of the runtime.

    Raises:
        ExportError: If every part would have to stay in float32.
    """
    held_out = calibration.images[::_HELD_OUT]
    seen = [image for number, image in enumerate(calibration.images) if number % _HELD_OUT]
    quantiser = Quantiser(model, seen, per_channel=not options.per_tensor)

    def run(graph: ModelProto) -> Any:
        session = Session(formats.onnx_bytes(graph, metadata), threads=threads)
        return lambda lr: session(lr)[0]

    outputs = None if calibration.outputs is None else calibration.outputs[::_HELD_OUT]
    allowed = _CHANGED if outputs is None else options.gate / 100
    quantised = fall_back(
        quantiser,
        run,
        model,
        held_out,
        lost=lambda coarse, exact: float(losses(coarse.argmax(1), exact.argmax(1), outputs).mean()),
        allowed=1.0 if options.per_tensor else allowed,
    )
    if len(quantised.fallen) == len(quantised.parts):
        raise ExportError(
            "every part would have to stay in float32, so there is no int8 graph: ship float32, or"
            " calibrate on images like yours"
        )
    return quantised


def quantised_metadata(quantised: Quantised) -> dict[str, Any]:
    """Return what a file says of its integers."""
    return {"precision": "int8", "float32_parts": list(quantised.fallen)}


def losses(
    coarse: NDArray[np.integer[Any]], exact: NDArray[np.integer[Any]], outputs: NDArray[np.integer[Any]] | None
) -> NDArray[np.float64]:
    """Return what 8 bits cost on each image, `(n,)`: 1 for a right decision lost, -1 for one won, else 0.

    Args:
        coarse: Decisions of the quantised graph, `(n,)`.
        exact: Those of the float graph.
        outputs: What is right, or None where nobody says: then what the float graph decides.
    """
    right = exact if outputs is None else outputs
    return (exact == right).astype(np.float64) - (coarse == right)


def check_apart(calibration: LrImages, hashes: Collection[str]) -> None:
    """Refuse calibration images that are test images too, by the hashes of their pixels.

    Raises:
        DataError: Saying how many.
    """
    shared = set(calibration.hashes) & set(hashes)
    if shared:
        raise DataError(
            f"{len(shared)} of the {len(calibration.hashes)} calibration images are images of --data too;"
            " calibrate on training images that no test uses"
        )
