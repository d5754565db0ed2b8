"""8-bit integers instead of floats: static quantisation of convolutions and dense layers, part by part.

Activations have one scale a tensor, taken from calibration images; weights have one a channel. What stands between,
such as the matrices of a resize, the rounding and the normalisation, stays in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from srbench.export.graph import INPUT
from srbench.export.parity import Images

if TYPE_CHECKING:
    from onnx import ModelProto

_LAYERS = ("Conv", "Gemm")
# A layer's output is rounded behind these, not before: ReLU6 keeps 6 of the 50 that a layer's output may span.
_ACTIVATIONS = ("Clip", "Relu")
_DEPTH = 4  # words of a layer's name that name its part: network.network.blocks.3


@dataclass(frozen=True)
class Quantised:
    """A quantised graph.

    Attributes:
        model: The graph.
        parts: All parts that can be quantised.
        fallen: Those that stayed in float32, in the order in which they fell back.
        lost: What it loses on held-out calibration images, as `fall_back` was told to count it.
    """

    model: ModelProto
    parts: tuple[str, ...]
    fallen: tuple[str, ...]
    lost: float


class Quantiser:
    """Quantises one graph by one set of calibration images, whatever parts are left out."""

    def __init__(self, model: ModelProto, calibration: Images, *, per_channel: bool = True) -> None:
        """Run the calibration images through the float graph and keep the range of every tensor.

        Args:
            model: The float graph.
            calibration: LR, `(H, W, C)`, RGB, uint8.
            per_channel: Give each channel of a weight its scale, or the whole weight one.
        """
        import onnx
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        self._per_channel = per_channel
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "float.onnx"
            self._model = onnx.shape_inference.infer_shapes(model)
            onnx.save(self._model, str(path))
            calibrator = create_calibrator(
                path,
                [*_LAYERS, *_ACTIVATIONS],
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.MinMax,
                providers=["CPUExecutionProvider"],
            )
            calibrator.collect_data(_Reader(calibration))
            self._ranges = calibrator.compute_data()
            del calibrator
        self.nodes: dict[str, list[str]] = {}
        part_of: dict[str, str] = {}  # the tensor that a layer makes -> its part
        for node in self._model.graph.node:
            if node.op_type in _LAYERS:
                part_of[node.output[0]] = _part(node.input[1])
                self.nodes.setdefault(part_of[node.output[0]], []).append(node.name)
            elif node.op_type in _ACTIVATIONS and node.input[0] in part_of:
                self.nodes[part_of[node.input[0]]].append(node.name)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order of the graph."""
        return tuple(self.nodes)

    def without(self, left_out: Sequence[str] = ()) -> ModelProto:
        """Return the graph with every part in 8 bits but those that are left out."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        wanted = [node for part, nodes in self.nodes.items() if part not in left_out for node in nodes]
        if not wanted:
            return copy
        quantizer = QDQQuantizer(
            copy,
            self._per_channel,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            self._ranges,
            wanted,
            [],
            [*_LAYERS, *_ACTIVATIONS],
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        made: ModelProto = quantizer.model.model
        return made


def fall_back(
    quantiser: Quantiser,
    run: Callable[[ModelProto], Callable[[NDArray[np.uint8]], NDArray[Any]]],
    float_model: ModelProto,
    held_out: Images,
    *,
    lost: Callable[[NDArray[Any], NDArray[Any]], float],
    allowed: float,
) -> Quantised:
    """Return the graph with as few parts in float32 as lose no more than is allowed on held-out images.

    The parts fall back one after another, that one first which on its own moves the logits most.

    Args:
        quantiser: The graph and its calibration.
        run: Returns what computes the logits `(N, K)` of a graph.
        float_model: The float graph.
        held_out: LR that took no part in the calibration, `(H, W, C)`, RGB, uint8.
        lost: Returns what is lost, a share of the images, from the logits `(N, K)` of a quantised and the float graph.
        allowed: What may be lost.
    """
    exact = _logits(run(float_model), held_out)
    fallen: list[str] = []
    order: Iterator[str] | None = None
    while True:
        model = quantiser.without(fallen)
        share = lost(_logits(run(model), held_out), exact)
        if share <= allowed or len(fallen) == len(quantiser.parts):
            return Quantised(model, quantiser.parts, tuple(fallen), share)
        if order is None:
            order = iter(_by_damage(quantiser, run, held_out[: max(4, len(held_out) // 8)], exact))
        fallen.append(next(order))


def _by_damage(
    quantiser: Quantiser,
    run: Callable[[ModelProto], Callable[[NDArray[np.uint8]], NDArray[Any]]],
    images: Images,
    exact: NDArray[Any],
) -> list[str]:
    damage = {}
    for part in quantiser.parts:
        alone = quantiser.without([other for other in quantiser.parts if other != part])
        damage[part] = float(((_logits(run(alone), images) - exact[: len(images)]) ** 2).mean())
    return sorted(quantiser.parts, key=lambda part: -damage[part])


def _logits(call: Callable[[NDArray[np.uint8]], NDArray[Any]], images: Images) -> NDArray[Any]:
    return np.concatenate([call(image[None]) for image in images])


def _part(weight: str) -> str:
    """Return the part that a weight belongs to, by its name in the network."""
    return ".".join(weight.removesuffix(".weight").split(".")[:_DEPTH])


class _Reader:
    """Hands the calibration images to ONNX Runtime, one at a time."""

    def __init__(self, images: Images) -> None:
        self._rest = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._rest, None)
        return None if image is None else {INPUT: image[None]}

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> dict[str, NDArray[np.uint8]]:
        following = self.get_next()
        if following is None:
            raise StopIteration
        return following
