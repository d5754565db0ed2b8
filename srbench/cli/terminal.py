"""What the commands share: options of one meaning, and how things are shown on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench.errors import UsageError

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="File of a further method; repeatable.")]

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tab and the end of a line


def waiting(what: str) -> Any:
    """Return a context that shows on the error stream what is being waited for."""
    from rich.console import Console

    return Console(stderr=True).status(f"{what} ...")


def show(things: Iterable[Any]) -> None:
    """Print tables and texts of Rich, one below the other."""
    from rich.console import Console

    console = Console()
    for each in things:
        console.print(_Visible(each))


def visible(text: str) -> str:
    """Return a text in which characters that steer a terminal are written out, such as those of a folder's name."""
    return _STEERING.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Visible:
    """What Rich prints, with its texts made visible."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        for segment in console.render(self._thing, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    """Return a table of Rich whose first column is text and whose others are numbers."""
    from rich.table import Table

    made = Table()
    for number, title in enumerate(head):
        made.add_column(title, justify="left" if number == 0 else "right")
    for row in rows:
        made.add_row(*row)
    return made


def weights_by_method(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Return the names and files of `--weights METHOD=NAME`, by method.

    Raises:
        UsageError: If one has another form.
    """
    by_method: dict[str, list[str]] = {}
    for pair in pairs:
        method, separator, spec = pair.partition("=")
        if not separator or not method or not spec:
            raise UsageError(f"--weights takes METHOD=NAME or METHOD=FILE, got {pair!r}")
        by_method.setdefault(method, []).append(spec)
    return by_method
