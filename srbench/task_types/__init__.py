"""What a network is asked for, whatever the data and the method: a class, a rating, a map of classes, or boxes.

A *task* is a dataset split and a protocol. What the network behind SR answers there is its *task type*. A task type is
one module of this package with one subclass of `TaskType`, found by itself; nothing else of the harness asks which one
it is. See `srbench.task_types.base` for its four parts.
"""

from __future__ import annotations

import importlib
import pkgutil

from srbench.errors import UnknownNameError
from srbench.task_types.base import BatchResult, OutputMap, TaskType
from srbench.task_types.paired import CellSamples, Comparison, Interval, PairedCells, put_interval

__all__ = [
    "BatchResult",
    "CellSamples",
    "Comparison",
    "Interval",
    "OutputMap",
    "PairedCells",
    "TaskType",
    "put_interval",
    "task_type",
    "task_type_names",
]


def task_type(name: str) -> TaskType:
    """Return the task type of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in _TYPES:
        raise UnknownNameError("task type", name, _TYPES)
    return _TYPES[name]


def task_type_names() -> tuple[str, ...]:
    """Return the names of the task types."""
    return tuple(_TYPES)


def _discover() -> dict[str, TaskType]:
    # Importing torch takes seconds, so none of these modules does it before it is given tensors.
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    classes = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, TaskType) and value.__module__ == module.__name__
    ]
    return {each.name: each() for each in classes if each is not TaskType}


_TYPES = _discover()
