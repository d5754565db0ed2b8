"""Open a dataset by its SPEC, and list what can be opened; the rows stand in the datasets' own modules."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.data import readers, synthetic
from srbench.data.dataset import DatasetInfo
from srbench.data.subset import select_classes, split_spec
from srbench.errors import UnknownNameError, UsageError
from srbench.files.paths import user_path

if TYPE_CHECKING:
    from srbench.data.source import Source

_FIRST = ("demo", "folder", "images")  # what a newcomer looks for; the others follow by name


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Return every kind of dataset, in the order of the guide."""
    return tuple(info for info, _ in _catalogue().values())


def open_source(spec: str, split: str | None = None) -> Source:
    """Open a dataset split.

    Args:
        spec: Such as "demo", "folder:photos", "imagenette" or "pairs:LR_DIR,HR_DIR"; see `list_datasets`. With
            "?classes=a,b" or "?classes=FILE" behind it only those classes are opened.
        split: Name of the split, or None for the dataset's own default.

    Raises:
        UnknownNameError: If there is no such kind of dataset.
        UsageError: If the SPEC lacks its path, or there is no split of that name.
        DataError: If the data are missing, empty or laid out otherwise.
    """
    whole, classes = split_spec(spec)
    kind = _info(spec)
    if classes is not None and not (kind is not None and kind.own_classes):
        return select_classes(open_source(whole, split), classes, spec=spec)
    name, colon, rest = spec.partition(":")
    known = _catalogue()
    if name not in known:
        if user_path(spec).exists():
            raise UsageError(
                f"--data {spec} is a path; say how to read it: folder:{spec} (one folder per class)"
                f" or images:{spec} (without labels), or small:{spec} where they were never large"
            )
        raise UnknownNameError("dataset", name, known)
    info, module = known[name]
    argument = rest if colon else None
    if argument == "" or (argument is None and info.argument and not info.argument.startswith("[")):
        raise UsageError(f"--data {spec} lacks its path; expected {info.syntax}")
    if argument is not None and not info.argument:
        raise UsageError(f"--data {spec}: {name} takes no path; expected {info.syntax}")
    opener = getattr(importlib.import_module(module), info.opener)
    return opener(argument, split) if info.argument else opener(split)


def default_protocol(specs: Sequence[str]) -> str:
    """Return the name of the protocol for datasets of these SPECs where none is named; several must agree on theirs."""
    own = {info.protocol for spec in specs if (info := _info(spec)) is not None}
    return own.pop() if len(own) == 1 else "clean"


def default_task_type(specs: Sequence[str]) -> str:
    """Return what a network is asked for on datasets of these SPECs, "classification" where they differ."""
    own = {info.task_type for spec in specs if (info := _info(spec)) is not None}
    return own.pop() if len(own) == 1 else "classification"


def is_paired(spec: str) -> bool:
    """Say whether LR is part of a dataset, so that none is made of HR."""
    info = _info(spec)
    return info is not None and info.paired


def is_small(spec: str) -> bool:
    """Say whether the images of a dataset are LR as they are, so that there is no HR."""
    info = _info(spec)
    return info is not None and info.small


def is_demo(name: str) -> bool:
    """Say whether a dataset is one of the demonstrations, which weights of their own are shipped for."""
    return name in _catalogue() and name.partition("-")[0] == "demo"


def with_originals() -> str:
    """Name the kinds of data that have large originals, for messages."""
    return ", ".join(info.syntax for info in list_datasets() if not info.small and not info.paired)


def _info(spec: str) -> DatasetInfo | None:
    entry = _catalogue().get(split_spec(spec)[0].partition(":")[0])
    return None if entry is None else entry[0]


@cache
def _catalogue() -> dict[str, tuple[DatasetInfo, str]]:
    """Return the row of every dataset and the name of its module, by the word of the SPEC."""
    rows = {
        info.name: (info, f"{package.__name__}.{module.name}")
        for package in (synthetic, readers)
        for module in pkgutil.iter_modules(package.__path__)
        for info in _rows_of(f"{package.__name__}.{module.name}")
    }
    names = [*_FIRST, *sorted(set(rows) - set(_FIRST))]
    return {name: rows[name] for name in names}


def _rows_of(module: str) -> Iterator[DatasetInfo]:
    """Yield the rows that a module states, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == DatasetInfo.__name__
        ):
            yield DatasetInfo(**{str(each.arg): ast.literal_eval(each.value) for each in node.value.keywords})
