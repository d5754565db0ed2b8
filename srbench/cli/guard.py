"""What every command has: errors become one sentence and an exit code, and help is made of whole sentences."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperGroup

from srbench.cli.signals import STOPPED
from srbench.cli.terminal import visible
from srbench.errors import SrbenchError, is_out_of_memory

Command = TypeVar("Command", bound=Callable[..., Any])
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LONGEST_NAME = 120  # characters of a file's name in a sentence
# what docs/requirements-reading.txt leaves out
COMPUTING = frozenset(
    [
        "lightning",
        "pytorch_optimizer",
        "safetensors",
        "skimage",
        "spandrel",
        "timm",
        "torch",
        "torchmetrics",
        "torchvision",
    ]
)
_NOT_INSTALLED = (
    "this command computes, and {} is not installed: pip install srbench-resizing;"
    " leaderboard, report, compare, choose, site, pack and verify go without it"
)


class Commands(TyperGroup):
    """The commands, each with the whole of its sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, whose sentences wrap instead of ending in dots."""
        named = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        lines = [(name, command.get_short_help_str(limit=400)) for name, command in named if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(lines)


def guarded(command: Command) -> Command:
    """Turn errors that a person can act on into one sentence and an exit code, without a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SrbenchError as error:
            typer.echo(f"srbench: {visible(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as stop:
            raise typer.Exit(stopped(stop)) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(1) from None
        except ModuleNotFoundError as error:
            if (package := (error.name or "").split(".")[0]) not in COMPUTING:
                raise
            typer.echo(f"srbench: {_NOT_INSTALLED.format(package)}", err=True)
            raise typer.Exit(2) from None
        except (OSError, MemoryError, RuntimeError) as error:
            sentence = _of_the_machine(error)
            if sentence is None:
                raise
            typer.echo(f"srbench: {visible(sentence)}", err=True)
            raise typer.Exit(1) from None

    return run  # type: ignore[return-value]


def stopped(stop: KeyboardInterrupt) -> int:
    """Say that somebody stopped the command, and return the exit code."""
    with contextlib.suppress(OSError):  # the terminal may be closed
        typer.echo(f"srbench: {str(stop) or 'stopped; the same command goes on where it was'}", err=True)
    return STOPPED


def _of_the_machine(error: Exception) -> str | None:
    """Return what is said of an error that no code of srbench's made: memory, or a file the system refuses; or None."""
    if is_out_of_memory(error):
        remedies = "give a smaller --batch-size, to train --set batch_size=4, or to upscale --tile"
        return f"the memory is not enough for this; {remedies}"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        named = os.fsdecode(error.filename)
        named = named if len(named) <= _LONGEST_NAME else f"{named[:_LONGEST_NAME]}..."
        return f"{named} cannot be used: {error.strerror}; check the path and its permissions"
    if isinstance(error, OSError) and error.errno in _NO_ROOM:  # the only file without a name is the output
        with contextlib.suppress(OSError):
            sys.stdout.close()  # or Python would try once more at its end, and fail with a traceback
        return f"the output cannot be written: {error.strerror}; free some space where it goes"
    return None
