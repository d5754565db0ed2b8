"""What a file holds against what is declared for it, and networks built by name: RRDB, and those of BasicSR."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Mapping

import torch
from spandrel import ImageModelDescriptor
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from srbench.errors import UnknownNameError, UsageError, WeightsError
from srbench.training.networks import start_as_bilinear
from srbench.weights import NamedWeights, WeightsFile

BASICSR = "basicsr:"
_PROBE_SIDE = 16


def check_declared(descriptor: ImageModelDescriptor, loaded: WeightsFile, declared: Mapping[str, NamedWeights]) -> None:
    """Compare what a file holds with what its name or its card says.

    Raises:
        WeightsError: If architecture or factor differ.
    """
    ref = loaded.ref
    named = next((item for item in declared.values() if item.uri == ref.uri), None)
    actual = (descriptor.architecture.id, descriptor.scale)
    architecture = named.architecture if named else None
    factor = named.factor if named else ref.card.factor if ref.card else None
    expected = (architecture or actual[0], factor or actual[1])
    if actual != expected:
        raise WeightsError(
            f"weights {ref.label!r} are declared as {expected[0]} x{expected[1]}, but {ref.path.name} holds {actual[0]}"
            f" x{actual[1]}; fetch the right file, or give this one by its path"
        )


def build_rrdb(blocks: int, features: int, factor: int) -> nn.Module:
    """Build an untrained RRDB network in spandrel's key names; its growth is 32, and it starts as bilinear."""
    network = ESRGAN(num_filters=features, num_blocks=blocks, scale=factor)
    start_as_bilinear(network.model)
    return network


def build_basicsr(spec: str, factor: int) -> nn.Module:
    """Build one of BasicSR's architectures.

    Args:
        spec: "basicsr:NAME" or "basicsr:NAME(option=value, ...)"; the options are those of BasicSR's class.
        factor: Enlargement, handed on where the class has such an option.

    Raises:
        UsageError: If BasicSR is not installed, or refuses the options, or the network is not super-resolution.
        UnknownNameError: If it has no such architecture.
    """
    name, options = _parse(spec)
    registry = _basicsr_registry()
    if name not in registry:
        raise UnknownNameError("BasicSR architecture", name, registry.keys())
    network_class = registry.get(name)
    defaults = {"num_in_ch": 3, "num_out_ch": 3, "upscale": factor, "scale": factor}
    taken = inspect.signature(network_class).parameters
    arguments = {key: value for key, value in defaults.items() if key in taken} | options
    try:
        network = network_class(**arguments)
        with torch.inference_mode():
            output = network.eval()(torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE))
    except Exception as error:  # noqa: BLE001 a foreign class may refuse in any way
        raise UsageError(
            f"BasicSR cannot build or run {spec} ({type(error).__name__}: {error}); give its options as"
            f" {BASICSR}{name}(option=value, ...), it takes {', '.join(taken)}"
        ) from None
    expected = (1, 3, _PROBE_SIDE * factor, _PROBE_SIDE * factor)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UsageError(f"{spec} does not enlarge RGB images by {factor}: expected {expected}, got {got}")
    return network.train()


def _parse(spec: str) -> tuple[str, dict[str, object]]:
    try:
        node = ast.parse(spec.removeprefix(BASICSR), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            return node.func.id, {str(item.arg): ast.literal_eval(item.value) for item in node.keywords if item.arg}
    except (SyntaxError, ValueError):
        pass
    raise UsageError(f"an architecture of BasicSR is written basicsr:NAME or basicsr:NAME(option=value), got {spec!r}")


def _basicsr_registry() -> Mapping[str, type[nn.Module]]:
    # BasicSR 1.4.2 imports a module of torchvision that 0.17 removed; what it wants from there lives on here.
    removed = "torchvision.transforms.functional_tensor"
    sys.modules.setdefault(removed, importlib.import_module("torchvision.transforms.functional"))
    try:
        importlib.import_module("basicsr.archs")
        return importlib.import_module("basicsr.utils.registry").ARCH_REGISTRY
    except ImportError as error:
        raise UsageError(
            f"architectures of BasicSR need the extra 'basicsr' ({error}); pip install 'srbench-resizing[basicsr]'"
        ) from None
