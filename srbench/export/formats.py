"""A graph as a file: ONNX, or torch.export's own format."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from srbench.compute.numerics import tf32_allowed
from srbench.errors import SrbenchError, UsageError, sentence
from srbench.export.graph import INPUT, LOGITS, SR, ExportError, Graph
from srbench.export.session import METADATA
from srbench.export.sizes import LrSize

if TYPE_CHECKING:
    from onnx import ModelProto

SUFFIXES = (".onnx", ".pt2")
_OPSET = 20
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_packages() -> None:
    """Refuse to begin where a package of the extra `export` is missing.

    Raises:
        UsageError: Naming it.
    """
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"the package {name} is missing ({error}); install what ONNX needs with: pip install"
                " 'srbench-resizing[export]'"
            ) from None


def onnx_model(graph: Graph, lr_size: LrSize, *, name: str) -> ModelProto:
    """Return the graph as ONNX with a dynamic batch; its last output is SR, also where there are logits.

    Raises:
        ExportError: If torch cannot trace it.
    """
    outputs = [SR] if graph.network is None else [LOGITS, SR]
    with _quiet():
        try:
            program = torch.onnx.export(
                graph,
                (graph.example(2),),
                dynamo=True,
                opset_version=_OPSET,
                dynamic_shapes={"lr": _axes(lr_size)},
                input_names=[INPUT],
                output_names=outputs,
                verbose=False,
            )
        except Exception as error:
            raise ExportError(_untraceable(name, error)) from error
    assert program is not None
    return program.model_proto


def ending_with(model: ModelProto, name: str) -> ModelProto:
    """Return a copy that has one output, "logits" or "sr", and computes nothing that is for the other one alone."""
    import onnx

    short = onnx.ModelProto()
    short.CopyFrom(model)
    kept = [output for output in short.graph.output if output.name == name]
    del short.graph.output[:]
    short.graph.output.extend(kept)
    needed, nodes = {name}, []
    for node in reversed(short.graph.node):  # ONNX keeps them in the order of computation
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    del short.graph.node[:]
    short.graph.node.extend(reversed(nodes))
    constants = [constant for constant in short.graph.initializer if constant.name in needed]
    del short.graph.initializer[:]
    short.graph.initializer.extend(constants)
    return short


def onnx_bytes(model: ModelProto, metadata: Mapping[str, Any]) -> bytes:
    """Return the file of a model that carries its metadata.

    Raises:
        ExportError: If it is no valid ONNX.
    """
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata, sort_keys=True)})
    model.producer_name, model.producer_version = "srbench", str(metadata["srbench"])
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):  # where in the code each came from
        del part.metadata_props[:]
        part.doc_string = ""
    del model.graph.value_info[:]
    data = model.SerializeToString()
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the graph that torch made is no valid ONNX: {sentence(error)}") from error
    return data


def torch_bytes(graph: Graph, lr_size: LrSize, *, name: str, metadata: Mapping[str, Any]) -> bytes:
    """Return the graph as a file of torch.export, with the metadata as the extra file `srbench.json`.

    Raises:
        ExportError: If torch cannot trace it.
    """
    with _quiet(), io.BytesIO() as stream:
        try:
            program = torch.export.export(graph, (graph.example(2),), dynamic_shapes={"lr": _axes(lr_size)})
            torch.export.save(program, stream, extra_files={f"{METADATA}.json": json.dumps(metadata, sort_keys=True)})
        except SrbenchError:
            raise
        except Exception as error:
            raise ExportError(_untraceable(name, error)) from error
        return stream.getvalue()


def _axes(lr_size: LrSize) -> dict[int, Any]:
    axes: dict[int, Any] = {0: torch.export.Dim("n")}
    if not lr_size.fixed:
        for axis, side in ((1, "height"), (2, "width")):
            axes[axis] = torch.export.Dim(side, min=lr_size.low[axis - 1], max=lr_size.high[axis - 1])
    return axes


def _untraceable(name: str, error: Exception) -> str:
    cause = error.__cause__ or error  # ONNX's exporter wraps what went wrong in a page of advice
    return (
        f"{name} cannot be exported: torch cannot trace it as one graph ({sentence(cause)});"
        " its forward must be made of tensor operations alone"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch and onnxscript say about themselves, forbid TF32 and keep no gradients."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            tf32_allowed(False),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
