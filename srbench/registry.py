"""Names to methods, found by where their files lie: no list is kept by hand.

A method is a file or a folder of `srbench.baselines` or `srbench.methods`, an entry point in the group
`srbench.methods`, or a file given with `--plugin`. Nothing is imported before its name is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from srbench.errors import SrbenchError, UnknownNameError, UsageError
from srbench.files.paths import user_path
from srbench.method import Method, MethodInfo

ENTRY_POINT_GROUP = "srbench.methods"
_HOMES = ("srbench.baselines", "srbench.methods")


def listed(given: Any) -> list[Any]:
    """Return what a caller gave as a list; a string, a path or a number alone is a list of one."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return [given]
    return list(given)


class BrokenMethodError(UsageError):
    """A method's file that cannot be imported, or holds no method, or takes a name that is taken."""


@dataclass(frozen=True)
class _Entry:
    origin: str
    load: Callable[[], ModuleType | type[Method]]


class Registry:
    """The methods that can be reached by name."""

    def __init__(self, plugins: Path | str | Iterable[Path | str] = ()) -> None:
        """Collect the names; nothing is imported yet.

        Args:
            plugins: Further files, or one, each a method under its stem.

        Raises:
            UsageError: If a plugin is no Python file, or its name is taken.
        """
        self._entries: dict[str, _Entry] = {}
        self._classes: dict[str, type[Method]] = {}
        self.problems: dict[str, str] = {}
        for home in _HOMES:
            package = importlib.import_module(home)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    self._add(
                        module.name,
                        _Entry(f"{home}.{module.name}", partial(importlib.import_module, f"{home}.{module.name}")),
                    )
        for point in entry_points(group=ENTRY_POINT_GROUP):
            self._add(point.name, _Entry(f"entry point {point.value}", point.load))
        for plugin in listed(plugins):
            self._add_plugin(user_path(plugin))

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> type[Method]:
        """Return the class of a method.

        Raises:
            UnknownNameError: If there is none of that name.
            BrokenMethodError: If its file cannot be imported or holds no method.
        """
        if name not in self._entries:
            raise UnknownNameError("method", name, self._entries)
        if name not in self._classes:
            self._classes[name] = self._load(name)
        return self._classes[name]

    def working(self) -> dict[str, type[Method]]:
        """Return every method that can be imported; what is broken goes to `problems` and hides nothing else."""
        methods = {}
        for name in self.names():
            try:
                methods[name] = self.get(name)
            except SrbenchError as error:
                self.problems[name] = str(error)
        return methods

    def _add(self, name: str, entry: _Entry) -> None:
        if name in self._entries:
            self.problems[f"{name} ({entry.origin})"] = (
                f"the name {name!r} is taken by {self._entries[name].origin}; {entry.origin} is left out, rename it"
            )
            return
        self._entries[name] = entry

    def _add_plugin(self, path: Path) -> None:
        if not path.is_file() or path.suffix != ".py" or not path.stem.isidentifier():
            raise UsageError(f"--plugin takes a Python file whose stem is the method's name, got {path}")
        if path.stem in self._entries:
            raise UsageError(
                f"--plugin {path.name}: the name {path.stem!r} is taken by {self._entries[path.stem].origin};"
                " rename the file"
            )
        self._add(path.stem, _Entry(path.name, partial(_import_file, path)))

    def _load(self, name: str) -> type[Method]:
        entry = self._entries[name]
        try:
            loaded = entry.load()
        except Exception as error:
            raise BrokenMethodError(
                f"method {name!r} ({entry.origin}) cannot be imported: {type(error).__name__}: {error};"
                " mend the file or remove it"
            ) from error
        if isinstance(loaded, ModuleType):
            candidates = _own_methods(loaded)
        else:
            candidates = [loaded] if isinstance(loaded, type) and issubclass(loaded, Method) else []
        if len(candidates) != 1:
            raise BrokenMethodError(
                f"method {name!r} ({entry.origin}) holds {len(candidates)} subclasses of srbench.method.Method,"
                " expected exactly one"
            )
        if not isinstance(getattr(candidates[0], "info", None), MethodInfo):
            raise BrokenMethodError(
                f"method {name!r} ({entry.origin}) has no `info = MethodInfo(...)`; add it to the class"
            )
        return candidates[0]


def _own_methods(module: ModuleType) -> list[type[Method]]:
    classes = {  # keyed by class: a second name for the same class is not a second method
        value: None
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value is not Method
        and not key.startswith("_")
        and (value.__module__ == module.__name__ or value.__module__.startswith(f"{module.__name__}."))
    }
    return list(classes)


def _import_file(path: Path) -> ModuleType:
    name = f"srbench_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
