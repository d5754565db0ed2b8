"""`srbench export`: names become networks, networks a graph, the graph a file that was held against torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srbench.errors import UsageError
from srbench.evaluation.loaded_methods import LoadedMethod, load_method
from srbench.evaluation.lr_images import read_lr
from srbench.evaluation.one_method import choose_weights, weights_notes
from srbench.evaluation.quantising import Int8Options, Int8Report, quantise
from srbench.export import formats
from srbench.export.graph import LOGITS, Deployment, ExportError, Graph
from srbench.export.parity import Parity, Reference, check_faithful, compare
from srbench.export.session import Session
from srbench.export.sizes import LrSize, parse_lr_size
from srbench.files.atomic import check_out_dir, sweep_beside, write_content
from srbench.files.paths import user_path
from srbench.method import TaskInfo
from srbench.networks.classifiers import Classifier
from srbench.networks.loading import load_classifier
from srbench.protocol import Protocol, load_protocol
from srbench.registry import Registry

_DEFAULT_IMAGES = 16


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: The file.
        metadata: What the file says about itself.
        parity: How far it is from torch; None for a `.pt2`, which torch itself runs.
        notes: Sentences for a person.
        int8: What 8-bit integers cost, or None.
    """

    path: Path
    metadata: dict[str, Any]
    parity: Parity | None
    notes: tuple[str, ...] = ()
    int8: Int8Report | None = None

    def summary(self) -> str:
        """Return one line."""
        return f"wrote {self.path} ({self.path.stat().st_size / 1e6:.1f} MB)"


def export(
    method: str,
    *,
    out: Path | str,
    lr_size: str,
    weights: str | None = None,
    classifier: str | None = None,
    input_size: int | None = None,
    protocol: str = "clean",
    data: str = "demo",
    split: str | None = None,
    limit: int | None = None,
    int8: Int8Options | None = None,
    plugins: Sequence[Path | str] = (),
) -> ExportResult:
    """Write a method, with or without the network behind it, as one graph, and hold it against torch.

    Args:
        method: Registry name of the method.
        out: File that ends in `.onnx`, or in `.pt2` for torch.export's own format.
        lr_size: Size of LR in pixels: `81`, `56x84`, or `64-128` for a range, which methods of a fixed factor take.
        weights: Name or file of the method's weights; None takes those on this computer if only one set can be meant.
        classifier: SPEC of the network behind; None ends the graph with SR.
        input_size: Shortest side of SR, pixels; None takes the protocol's, and with a range the method's own factor.
        protocol: Name or file of the protocol, whose `sr` part stands in the graph.
        data: SPEC of the images that torch and the runtime are compared on.
        split: Name of their split, or None for the dataset's own default.
        limit: Take only so many of them; None takes all, or 16 of the demo's.
        int8: Quantise the graph to 8-bit integers so, or None for float32.
        plugins: Files of further methods.

    Returns:
        The file and the comparison.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
        ExportError: If the graph cannot be made, is not faithful, or loses more by 8 bits than it may; nothing has been
            written then.
        SrbenchError: If data cannot be read or the file cannot be written.
    """
    path = user_path(out)
    if path.suffix not in formats.SUFFIXES or path.is_dir():
        raise UsageError(f"--out takes a file that ends in {' or '.join(formats.SUFFIXES)}, got {path}")
    check_out_dir(path.parent)
    sweep_beside([path])
    if int8 is not None and path.suffix != ".onnx":
        raise UsageError(f"--precision int8 is written as .onnx, got {path}")
    if path.suffix == ".onnx":
        formats.check_packages()
    deployment, notes = _deployment(method, parse_lr_size(lr_size), weights, classifier, input_size, protocol, plugins)
    metadata = deployment.metadata()
    graph = Graph(deployment)
    if path.suffix == ".pt2":
        content = formats.torch_bytes(graph, deployment.lr_size, name=method, metadata=metadata)
        write_content(path, content)
        return ExportResult(path, metadata, None, notes)
    if int8 is not None and deployment.network is None:
        raise UsageError("--precision int8 is judged by the decisions of a network; name it with --classifier SPEC")
    test = read_lr(deployment, data, split, limit if limit is not None or data != "demo" else _DEFAULT_IMAGES)
    whole = formats.onnx_model(graph, deployment.lr_size, name=method)
    short = whole if deployment.network is None else formats.ending_with(whole, LOGITS)
    threads, probe = torch.get_num_threads(), None
    content = formats.onnx_bytes(short, metadata)
    if deployment.network is not None:
        probe = Session(formats.onnx_bytes(whole, metadata), threads=threads)
    parity = compare(Reference(deployment), Session(content, threads=threads), test.images, probe=probe)
    check_faithful(parity, method)
    report = None
    if int8 is not None:
        calibration = read_lr(deployment, int8.calibrate, int8.split, int8.images)
        quantised = quantise(short, metadata, test, calibration, int8, threads=threads)
        content, report, metadata = quantised.content, quantised.report, quantised.metadata
    write_content(path, content)
    return ExportResult(path, metadata, parity, notes, report)


def _deployment(
    name: str,
    lr_size: LrSize,
    weights: str | None,
    classifier: str | None,
    input_size: int | None,
    protocol: str,
    plugins: Sequence[Path | str],
) -> tuple[Deployment, tuple[str, ...]]:
    registry = Registry(plugins)
    cls = registry.get(name)
    rules = load_protocol(protocol)
    network = load_classifier(classifier) if classifier is not None else None
    ref = choose_weights(name, cls, weights, network)
    loaded = load_method(name, cls, ref, rules)
    assert loaded.method is not None
    behind = _network(loaded, network, rules)
    sr_size = _sr_size(loaded, lr_size, input_size, rules)
    return deployment_of(loaded, network, behind, rules, lr_size=lr_size, sr_size=sr_size), weights_notes(ref)


def deployment_of(
    loaded: LoadedMethod,
    base: Classifier | None,
    network: nn.Module | None,
    protocol: Protocol,
    *,
    lr_size: LrSize,
    sr_size: tuple[int, int] | None,
) -> Deployment:
    """Return what ships of a method and a network.

    Args:
        loaded: The method.
        base: What names the outputs, or None where SR itself is the output.
        network: What sees SR: `base`, or the copy of it that was trained along with the method.
        protocol: The protocol.
        lr_size: Sizes of LR.
        sr_size: Height and width of SR, pixels; None keeps the method's own factor.
    """
    assert loaded.method is not None
    return Deployment(
        name=loaded.name,
        method=loaded.method,
        weights=loaded.label,
        weights_sha256=None if loaded.weights is None else loaded.weights.ref.sha256,
        network=network,
        network_info=None if base is None else base.info,
        protocol=protocol,
        lr_size=lr_size,
        sr_size=sr_size,
    )


def _network(loaded: LoadedMethod, network: Classifier | None, protocol: Protocol) -> nn.Module | None:
    """Return what stands behind the method: the network, or the one that was trained along with the weights."""
    assert loaded.method is not None
    if network is None:
        if loaded.method.info.output == "lr":
            raise UsageError(f"{loaded.name} hands LR on as it is, so without --classifier there is nothing to export")
        return None
    task = TaskInfo(
        name="export",
        protocol=protocol,
        classifier=network.id,
        classifier_sha256=network.info.weights_sha256,
        classifier_input_size=network.info.input_size,
        channels=loaded.method.info.channels,
    )
    reason = loaded.skip_reason(task)
    if reason is not None:
        raise ExportError(f"{loaded.name} cannot be exported with {network.id}: {reason}")
    return loaded.adapted_network(network) if loaded.track == "adapted" else network


def _sr_size(
    loaded: LoadedMethod, lr_size: LrSize, input_size: int | None, protocol: Protocol
) -> tuple[int, int] | None:
    """Return height and width of SR: the input size is the shortest side, the other one keeps the aspect of LR."""
    assert loaded.method is not None
    if input_size is not None and input_size < 1:
        raise UsageError(f"--input-size takes a number of pixels of at least 1, got {input_size}")
    if loaded.method.info.output == "lr" or (input_size is None and not lr_size.fixed):
        return None
    side = input_size
    if side is None:
        fixed = protocol.hr.fixed_side
        side = None if fixed is None else min(protocol.sr_size(fixed, fixed))
    if side is None:
        return None
    height, width = lr_size.low
    short = min(height, width)
    return round(height * side / short), round(width * side / short)
