"""What `srbench list` shows: methods, classifiers, datasets, protocols, weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from srbench.protocol import load_protocol, preset_names

if TYPE_CHECKING:
    from srbench.registry import Registry


_BETWEEN = 3  # characters between two columns of a table
_NARROWEST = 8  # characters that a column has at least, where the terminal allows it


@dataclass(frozen=True)
class Listing:
    """A table of names.

    Attributes:
        headers: Column titles.
        rows: One tuple a line, as long as `headers`.
        notes: Sentences to stand below.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def methods(plugins: Sequence[Path | str] = ()) -> Listing:
    """Return every registered method with its kind, factor, weights and recipes."""
    from srbench import weights

    registry = _registry(plugins)
    rows = tuple(
        (
            name,
            cls.info.role,
            "any" if cls.info.factor == "any" else f"x{cls.info.factor}",
            "\n".join(weights.names(name, cls.weights)) or "-",
            "\n".join(sorted(cls.recipes)) or "-",
        )
        for name, cls in registry.working().items()
    )
    return Listing(("method", "role", "factor", "weights", "recipes"), rows, _problems(registry))


def classifiers() -> Listing:
    """Return the classifiers that ship or were trained here, and the forms of the others."""
    from srbench import weights
    from srbench.networks.classifiers import NAMESPACE as CLASSIFIERS

    rows = []
    for ref in weights.local(CLASSIFIERS):
        extra = ref.card.extra if ref.card else {}
        rows.append(
            (ref.label, f"{extra.get('library')}:{extra.get('name')}", f"{len(extra.get('classes') or ())} classes")
        )
    rows += [
        ("timm:NAME", "any model of timm", "fetches its weights on first use"),
        ("torchvision:NAME", "any classification model of torchvision", "fetches its weights on first use"),
        ("CARD.toml", "a card: library, name, weights, mean, std, classes", "see the README"),
    ]
    return Listing(("classifier", "network", "note"), tuple(rows))


def datasets() -> Listing:
    """Return the kinds of data with the syntax of their SPEC."""
    from srbench.data.catalogue import list_datasets

    return Listing(("SPEC", "what it is"), tuple((info.syntax, info.description) for info in list_datasets()))


def protocols() -> Listing:
    """Return the presets."""
    presets = [load_protocol(name) for name in preset_names()]
    rows = tuple((each.name, each.scale_label, each.fingerprint[:8], each.description) for each in presets)
    return Listing(("protocol", "scale", "fingerprint", "what it is"), rows)


def weights_of_all(plugins: Sequence[Path | str] = ()) -> Listing:
    """Return every named set of weights of every method and classifier."""
    from srbench import weights
    from srbench.networks.classifiers import NAMESPACE as CLASSIFIERS

    registry = _registry(plugins)
    rows = []
    for namespace, declared in [
        (CLASSIFIERS, {}),
        *((name, dict(cls.weights)) for name, cls in registry.working().items()),
    ]:
        here = {ref.label: ref for ref in weights.local(namespace, declared)}
        for name in weights.names(namespace, declared):
            card = here[name].card if name in here else None
            where = here[name].uri.split(":")[0] if name in here else "to be fetched"
            licence = card.licence if card else declared[name].licence if name in declared else ""
            note = card.track if card else declared[name].note if name in declared else ""
            rows.append((namespace, name, where, licence, note))
    return Listing(("namespace", "weights", "where", "licence", "note"), tuple(rows), _problems(registry))


def show(listing: Listing) -> None:
    """Print a listing on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    fixed = len(listing.headers) - 2  # names stay whole where there is room; the last two columns may always wrap
    widths = [max(map(len, column)) for column in zip(listing.headers, *listing.rows, strict=True)]
    room = (console.width - sum(widths[:fixed]) - _BETWEEN * len(widths) - 1) // 2
    if room < _NARROWEST:  # the longest name gives way, or every column would be cut
        longest = max(range(fixed), key=widths.__getitem__)
        widths[longest], room = max(widths[longest] - 2 * (_NARROWEST - room), _NARROWEST), _NARROWEST
    for position, header in enumerate(listing.headers):
        table.add_column(header, no_wrap=position < fixed, overflow="fold")
    for row in listing.rows:
        cells = (broken(cell, widths[at] if at < fixed else room) for at, cell in enumerate(row))
        table.add_row(*map(Text, cells))  # Text, not markup: a name in square brackets would vanish
    console.print(table)
    for note in listing.notes:
        console.print(note, style="yellow", markup=False)


def broken(text: str, width: int) -> str:
    """Return text whose words that are longer than a width are broken after a hyphen or the like, where they have one.

    A column that is too narrow for a name would break it anywhere.
    """

    def in_parts(word: re.Match[str]) -> str:
        lines = [""]
        for part in re.findall(r"[^-_.:,/]*[-_.:,/]+|[^-_.:,/]+", word[0]):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
        return "\n".join(lines)

    return re.sub(rf"\S{{{max(width, 1) + 1},}}", in_parts, text)


def _registry(plugins: Sequence[Path | str]) -> Registry:
    from srbench.registry import Registry

    return Registry(plugins)


def _problems(registry: Registry) -> tuple[str, ...]:
    return tuple(f"left out: {sentence}" for sentence in registry.problems.values())
