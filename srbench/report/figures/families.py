"""Groups tables that differ in one choice only, and follows each method through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from srbench.files.strict import canonical_json
from srbench.records.schema import Record
from srbench.report.figures.scope import Entry, Scope


@dataclass(frozen=True)
class Series:
    """One method through several tables; None where a table lacks it."""

    label: str
    entries: tuple[Entry | None, ...]

    @property
    def first(self) -> Entry:
        """The entry of the first table that has the method."""
        return next(entry for entry in self.entries if entry is not None)


def families(
    scopes: Sequence[Scope], free: Sequence[tuple[str, str]], place: Callable[[Record], Any]
) -> list[list[Scope]]:
    """Group scopes of one classifier whose tasks differ in the `free` fields alone, in order of `place`."""
    families: dict[str, dict[Any, Scope]] = {}
    for scope in scopes:
        where = place(scope.record)
        if where is None:
            continue
        record = scope.record
        fixed = {
            part: {name: value for name, value in values.items() if (part, name) not in free}
            for part, values in record.protocol.fields.items()
        }
        key = canonical_json(
            [fixed, record.dataset.sample_list_sha256, record.dataset.n, scope.partial, scope.classifier]
        )
        families.setdefault(key, {}).setdefault(where, scope)
    return [[family[at] for at in sorted(family)] for family in families.values() if len(family) > 1]


def series_of(family: Sequence[Scope]) -> list[Series]:
    """Follow every method through the tables of a family.

    Weights may be made for one table each; they are one line where no table holds two of the same method.
    """
    groups: dict[tuple[str, str], list[list[Entry]]] = {}
    for at, scope in enumerate(family):
        for entry in scope.entries:
            if entry.row.role != "oracle":
                places = groups.setdefault((entry.row.method, entry.row.track), [[] for _ in family])
                places[at].append(entry)
    done = []
    for (method, track), places in groups.items():
        names = list(dict.fromkeys(entry.row.weights for place in places for entry in place))
        suffix = f", {track}" if sum(other[0] == method for other in groups) > 1 else ""
        if all(len(place) <= 1 for place in places):
            label = (f"{method} ({names[0]})" if names[0] else method) if len(names) == 1 else method
            done.append(Series(label + suffix, tuple(place[0] if place else None for place in places)))
            continue
        for name in names:
            own = [next((entry for entry in place if entry.row.weights == name), None) for place in places]
            done.append(Series((f"{method} ({name})" if name else method) + suffix, tuple(own)))
    return done
