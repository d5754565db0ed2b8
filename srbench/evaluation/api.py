"""`srbench.evaluate`: every method, classifier and scale of a call, as records and a leaderboard."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

import pandas as pd

from srbench import leaderboard
from srbench.evaluation.counters import Counters
from srbench.evaluation.distributed import Ranks, joined
from srbench.evaluation.hr_predictions import FOLDER as PREDICTIONS
from srbench.evaluation.options import EvalOptions
from srbench.evaluation.resolve import resolve
from srbench.evaluation.task import run_task
from srbench.files.atomic import STALE_S, sweep_temporary
from srbench.files.paths import cache_dir
from srbench.files.turns import only_writer
from srbench.leaderboard import Leaderboard, tables
from srbench.records.cells import StoredCell, find_records, status_of
from srbench.records.schema import Record
from srbench.registry import listed

Options = ParamSpec("Options")


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """What an evaluation leaves behind; a notebook shows it as the tables of this call.

    Attributes:
        out: The folder that holds `records/` and `leaderboard.{json,csv,md}`.
        board: The leaderboard with its notes.
        cells: Every cell of this call, in the order of the table.
        counters: What was really decoded, classified and restored, by all processes together.
        rank: This process among those of torchrun; what is said to a person is said by the first.
    """

    out: Path
    board: Leaderboard
    cells: tuple[StoredCell, ...]
    counters: Counters
    rank: int = 0

    def __repr__(self) -> str:
        """Return one line: where the results are, and how many cells of this call are what."""
        states = Counter(cell.record.status for cell in self.cells)
        counted = ", ".join(f"{n} {state}" for state, n in states.items())
        return f"<EvaluationResult in {self.out}: {counted}; .leaderboard is the table>"

    def _repr_html_(self) -> str:
        """Return the tables of this call for a notebook."""
        return tables.html(self.own_board)

    @property
    def own_board(self) -> Leaderboard:
        """The part of the leaderboard that belongs to the tasks of this call; the folder may hold others."""
        return self.board.of_tasks({cell.record.cell.task for cell in self.cells})

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a cell."""
        return self.board.frame

    @property
    def per_class(self) -> pd.DataFrame:
        """F1 of every class and its differences."""
        return self.board.per_class

    @property
    def samples(self) -> pd.DataFrame:
        """The samples of every cell that is ok, under each other."""
        frames = []
        for cell in self.cells:
            if cell.record.status == "ok":
                key = cell.record.cell
                frame = cell.samples()
                frame.insert(0, "task", key.task)
                frame.insert(1, "classifier", key.classifier)
                frame.insert(2, "method", key.name)
                frame.insert(3, "weights", key.weights)
                frame.insert(4, "input_size", pd.Series(key.input_size, frame.index, dtype="Int64"))
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    @property
    def failed(self) -> list[Record]:
        """The records of the cells that failed."""
        return [cell.record for cell in self.cells if cell.record.status == "error"]


def run(options: EvalOptions) -> EvaluationResult:
    """Score methods on one dataset under one protocol, at one or several scales, with one or several classifiers.

    Args:
        options: What to evaluate, and how.

    Returns:
        The records, the leaderboard and what was really done. Cells that failed are among the records.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
        SrbenchError: If data cannot be read or results cannot be written.
    """
    with joined(options.device) as (device, ranks):
        evaluation = resolve(options, device, ranks)
        with only_writer(evaluation.out, wait=True) if ranks.is_first else nullcontext():
            _sweep(evaluation.out, ranks)
            counters = Counters()
            cells = [cell for protocol in evaluation.protocols for cell in run_task(evaluation, protocol, counters)]
            stored, problems = find_records([evaluation.out])
            warnings = [*evaluation.warnings, *problems, *_kept(cells)]
            board = leaderboard.build(stored, seed=options.seed, warnings=warnings, slices=listed(options.slices))
            if ranks.is_first:
                tables.write(board, evaluation.out)
        counters = Counters.total(ranks.gather(counters))
        return EvaluationResult(evaluation.out, board, tuple(cells), counters, ranks.rank)


def _kept(cells: Sequence[StoredCell]) -> Iterator[str]:
    """Say which methods failed just now and keep the row of an earlier run."""
    for cell in cells:
        if cell.record.status == "error" and status_of(cell.folder) == "ok":
            key = cell.record.cell
            yield f"{key.method} of task {key.task} failed ({cell.record.reason}); its row is of an earlier run"


def _sweep(out: Path, ranks: Ranks) -> None:
    """Remove the temporary files of killed runs before anything is written."""
    if ranks.is_first:
        sweep_temporary(out)
        sweep_temporary(cache_dir() / PREDICTIONS, older_than_s=STALE_S)
    ranks.wait()


def _with_options_of(options: Callable[Options, EvalOptions]) -> Callable[Options, EvaluationResult]:
    """Return `run` with the arguments of `EvalOptions`, so that they are declared in one place."""

    def evaluate(*args: Options.args, **kwargs: Options.kwargs) -> EvaluationResult:
        return run(options(*args, **kwargs))

    evaluate.__qualname__ = "evaluate"
    evaluate.__doc__ = f"{inspect.getdoc(run)}\n\n{inspect.getdoc(EvalOptions)}"
    evaluate.__signature__ = inspect.signature(EvalOptions)  # type: ignore[attr-defined]
    return evaluate


evaluate = _with_options_of(EvalOptions)
