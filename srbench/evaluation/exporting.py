"""`srbench export`: names become networks, networks a graph, the graph a file that was held against torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from srbench.data.catalogue import open_source
from srbench.data.hr_cache import build_hr_store
from srbench.errors import UsageError
from srbench.evaluation.loaded_methods import LoadedMethod, load_method
from srbench.evaluation.one_method import choose_weights, weights_notes
from srbench.export import formats
from srbench.export.graph import Deployment, ExportError, Graph
from srbench.export.parity import Parity, Reference, check_faithful, compare
from srbench.export.session import Session
from srbench.export.sizes import LrSize, parse_lr_size
from srbench.files.atomic import check_out_dir, write_bytes
from srbench.imaging.degrade import degrade
from srbench.imaging.resample import to_uint8
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
    """

    path: Path
    metadata: dict[str, Any]
    parity: Parity | None
    notes: tuple[str, ...] = ()

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
        plugins: Files of further methods.

    Returns:
        The file and the comparison.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
        ExportError: If the graph cannot be made or is not faithful; nothing has been written then.
        SrbenchError: If data cannot be read or the file cannot be written.
    """
    path = Path(out)
    if path.suffix not in formats.SUFFIXES or path.is_dir():
        raise UsageError(f"--out takes a file that ends in {' or '.join(formats.SUFFIXES)}, got {path}")
    check_out_dir(path.parent)
    if path.suffix == ".onnx":
        formats.check_packages()
    deployment, notes = _deployment(method, parse_lr_size(lr_size), weights, classifier, input_size, protocol, plugins)
    metadata = deployment.metadata()
    graph = Graph(deployment)
    if path.suffix == ".pt2":
        content = formats.torch_bytes(graph, deployment.lr_size, name=method, metadata=metadata)
        write_bytes(path, lambda file: _write(file, content))
        return ExportResult(path, metadata, None, notes)
    images = lr_images(deployment, data, split, limit if limit is not None or data != "demo" else _DEFAULT_IMAGES)
    whole = formats.onnx_model(graph, deployment.lr_size, name=method)
    threads, probe = torch.get_num_threads(), None
    content = formats.onnx_bytes(whole if deployment.network is None else formats.without_sr(whole), metadata)
    if deployment.network is not None:
        probe = Session(formats.onnx_bytes(whole, metadata), threads=threads)
    parity = compare(Reference(deployment), Session(content, threads=threads), images, probe=probe)
    check_faithful(parity, method)
    write_bytes(path, lambda file: _write(file, content))
    return ExportResult(path, metadata, parity, notes)


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
    deployment = Deployment(
        name=name,
        method=loaded.method,
        weights=loaded.label,
        weights_sha256=None if loaded.weights is None else loaded.weights.ref.sha256,
        network=behind,
        network_info=None if network is None else network.info,
        protocol=rules,
        lr_size=lr_size,
        sr_size=_sr_size(loaded, lr_size, input_size, rules),
    )
    return deployment, weights_notes(ref)


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


def lr_images(deployment: Deployment, data: str, split: str | None, limit: int | None) -> list[NDArray[np.uint8]]:
    """Return LR of a dataset, `(H, W, C)`, RGB, uint8, degraded as the protocol says to the sizes of the graph.

    Raises:
        SrbenchError: If the data cannot be read.
    """
    protocol = deployment.protocol
    store = build_hr_store(open_source(data, split), protocol.hr, limit=limit)
    channels = deployment.method.info.channels
    sizes = deployment.lr_size.examples
    images = []
    for position in range(len(store)):
        height, width = sizes[position % len(sizes)]
        hr = store.batch([position]).float() / 255
        side = max(height, width)
        to_side = dataclasses.replace(protocol.lr, scale=None, lr_side=side, none=False, given=False)
        lr = to_uint8(degrade(hr, to_side, sample_ids=[store.samples[position].id]))[0]
        top, left = (lr.shape[1] - height) // 2, (lr.shape[2] - width) // 2
        window = lr[:channels, top : top + height, left : left + width]
        images.append(np.ascontiguousarray(window.permute(1, 2, 0).numpy()))
    return images


def _write(file: Any, content: bytes) -> None:
    file.write(content)
