"""The task seam: what a network is asked for, whatever the data and the method: a class, or a rating of the image.

A *task* is a dataset split and a protocol. What the network behind SR answers there is the *kind* of task. A kind owns
all that follows from that question, and nothing else of the harness asks which kind it is:

- targets: how what a source says of its samples becomes numbers, and which outputs of a network answer for them;
- the loss that trains a network for it, and the figures of a validation;
- the columns that the pass stores for each sample, and the metrics of the record;
- the numbers of the leaderboard with their intervals, which of them ranks, and which columns a table shows.

A third kind is a module beside `classification` and `iqa` with a subclass of `TaskType`, and a line in `_KINDS`. What
it would have to widen elsewhere is in docs/decisions/0026-kinds-of-task.md.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import UnknownNameError
from srbench.metrics.stats import interval
from srbench.records.schema import ClassPart, Metric, Record

if TYPE_CHECKING:
    from torch import Tensor, nn

    from srbench.data.source import Sample, Source
    from srbench.networks.classifiers import ClassifierInfo

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Column = NDArray[np.floating]  # of samples, in the precision in which they are stored
Interval = tuple[float, float]

# Name -> module and class; nothing is imported before it is asked for.
_KINDS = {
    "classification": ("srbench.task_types.classification", "Classification"),
    "iqa": ("srbench.task_types.iqa", "ImageQuality"),
}


@dataclass(frozen=True)
class OutputMap:
    """How a network's outputs answer for what the data say.

    Attributes:
        n_outputs: Outputs of the network, K.
        outputs: The output that stands for each class of the data, `(classes,)` int64, or None.
        present: The outputs that compete, ascending, or None for all.
    """

    n_outputs: int
    outputs: Whole | None = None
    present: Whole | None = None


@dataclass(frozen=True)
class BatchResult:
    """What a batch of scores is worth.

    Attributes:
        columns: A tensor `(N,)` for each column of the samples.
        scores: `(N, k)` probabilities to be stored, or None.
        sums: What is added up over the samples instead of being stored for each.
    """

    columns: Mapping[str, Tensor]
    scores: Tensor | None = None
    sums: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class CellSamples:
    """The samples of one cell as arrays, aligned with those of the cells that it is compared with.

    Attributes:
        record: The cell's record.
        floats: Columns of numbers, nan where missing.
        whole: Columns of whole numbers, None where any is missing.
        competes: Whether the row is ranked, and so belongs to the family of its track's tests.
    """

    record: Record
    floats: Mapping[str, Column]
    whole: Mapping[str, NDArray[np.integer] | None] = field(default_factory=dict)
    competes: bool = False

    def only(self, names: Collection[str]) -> CellSamples:
        """Return the cell with these of its columns alone; the others need not stay in memory."""
        return replace(
            self,
            floats={name: values for name, values in self.floats.items() if name in names},
            whole={name: values for name, values in self.whole.items() if name in names},
        )


@dataclass(frozen=True)
class PairedCells:
    """Cells that are resampled together, and what is known of them already.

    Attributes:
        cells: The cells, samples aligned, with the columns `TaskType.resampled` and `TaskType.compared` alone.
        points: Numbers of each cell by name.
        oracle: Place of the original, or None.
        reference: Place of frozen bilinear, or None.
        resampled: Bootstrap draws of the means of `TaskType.resampled`, by place and name.
        draws: Number of draws.
        seed: Their seed.
    """

    cells: Sequence[CellSamples]
    points: Sequence[Mapping[str, float | None]]
    oracle: int | None
    reference: int | None
    resampled: Mapping[tuple[int, str], Floats]
    draws: int
    seed: int


@dataclass(frozen=True)
class Comparison:
    """What comparing the cells of a pool adds to their rows; each list has an entry a cell.

    Attributes:
        values: Numbers by name.
        ci: Intervals by name.
        notes: Why a number is missing, by name.
        tables: Per-class tables.
    """

    values: list[dict[str, Any]]
    ci: list[dict[str, Interval]]
    notes: list[dict[str, str]]
    tables: list[pd.DataFrame] = field(default_factory=list)

    @classmethod
    def blank(cls, cells: int) -> Comparison:
        """Return one that says nothing of so many cells."""
        return cls([{} for _ in range(cells)], [{} for _ in range(cells)], [{} for _ in range(cells)])


class TaskType(ABC):
    """What a network is asked for; see the module's text.

    Attributes:
        name: Name in records and in `Source.task_type`.
        question: What is asked, in a few words.
        loss_term: Name of the loss term that holds a network's scores against the data's targets.
        criterion: Figure of a validation that selects a network's best epoch.
        sample_columns: Columns that the leaderboard reads of the samples, beside ids and image metrics.
        own_columns: Those that only this kind stores, with their parquet types; the others are in every file.
        reads_scores: Whether the leaderboard reads the stored probabilities too.
        resampled: Means that are resampled, in the order in which they are (image metrics among them).
        compared: Columns that `compare` and `truth` look at beside those.
        ranks: Numbers of a row that rank it, the first that it has.
        noted: Numbers whose absence has a reason in the notes of a row, in the order of the notes.
        shown: Columns of a table, in order.
        essential: Those of them that stay where others would be left out for being empty.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    loss_term: ClassVar[str]
    criterion: ClassVar[str]
    sample_columns: ClassVar[tuple[str, ...]]
    own_columns: ClassVar[Mapping[str, str]] = {}
    reads_scores: ClassVar[bool] = False
    resampled: ClassVar[tuple[str, ...]]
    compared: ClassVar[tuple[str, ...]] = ()
    ranks: ClassVar[tuple[str, ...]]
    noted: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]]
    essential: ClassVar[tuple[str, ...]]

    # --- targets

    @abstractmethod
    def classes_of(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Name the outputs of a network that is to be trained on these sources.

        Raises:
            UsageError: If they do not say what is asked.
        """

    @abstractmethod
    def answers(self, info: ClassifierInfo, source: Source, *, present: bool = False) -> OutputMap:
        """Match a network's outputs with what the data say.

        Args:
            info: The network.
            source: The data; it may say nothing, so that only the network's own scores of HR are left to compare with.
            present: Only outputs that the data have are to compete.

        Raises:
            DataError: If the network does not answer for these data.
        """

    @abstractmethod
    def targets(self, samples: Sequence[Sample], answers: OutputMap) -> NDArray[Any] | None:
        """Return what the data say of samples, in terms of the outputs, first axis N; None where they say nothing."""

    # --- training

    def begin(self, network: nn.Module) -> None:
        """Change what a fresh network begins with; pretrained and given weights are left as they are."""
        return

    @abstractmethod
    def loss(self, scores: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the scalar loss of scores `(N, K)` before the softmax, with gradient."""

    @abstractmethod
    def figures(self, scores: Tensor, target: Tensor, answers: OutputMap) -> dict[str, Tensor]:
        """Return the figures of a validation by name, each `(N,)`."""

    # --- the pass and the record

    @abstractmethod
    def columns(self, scores: Tensor, hr_scores: Tensor, target: Tensor | None, answers: OutputMap) -> BatchResult:
        """Hold scores `(N, K)` of SR against those of HR, and against the targets where there are some."""

    @abstractmethod
    def metrics(
        self, samples: pd.DataFrame, answers: OutputMap, *, histograms: Mapping[str, Any] | None = None
    ) -> dict[str, Metric]:
        """Return the record's metrics by name, apart from those of images; what does not apply has a reason.

        Args:
            samples: What `columns` found, one row a sample.
            answers: How the network answers.
            histograms: What became of `BatchResult.sums`, from `histograms`.
        """

    def per_class(
        self, samples: pd.DataFrame, answers: OutputMap, classes: Sequence[str] | None
    ) -> tuple[ClassPart, ...] | None:
        """Return the record's table of classes, or None where there are none."""
        return None

    def histograms(self, sums: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
        """Return what the record keeps of `BatchResult.sums`, or None."""
        return None

    # --- the leaderboard

    @abstractmethod
    def pooled(self, record: Record, frame: pd.DataFrame, *, competes: bool) -> CellSamples:
        """Take the samples of a cell as arrays."""

    @abstractmethod
    def truth(self, cell: CellSamples) -> NDArray[Any] | None:
        """Return what every cell of a pool must agree on, the targets, or None where there are none."""

    @abstractmethod
    def point(self, cell: CellSamples) -> dict[str, float | None]:
        """Return a cell's numbers by name; those that are None have their reason in the notes of its row."""

    @abstractmethod
    def compare(self, pool: PairedCells) -> Comparison:
        """Return intervals, differences and tables of the cells of a pool."""

    def ranking_value(self, values: Mapping[str, float]) -> float | None:
        """Return what ranks a row: the first of `ranks` that it has."""
        return next((value for name in self.ranks if (value := values.get(name)) is not None), None)


@cache
def task_type(name: str) -> TaskType:
    """Return the kind of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in _KINDS:
        raise UnknownNameError("kind of task", name, _KINDS)
    module, kind = _KINDS[name]
    found: TaskType = getattr(importlib.import_module(module), kind)()
    return found


def task_type_names() -> tuple[str, ...]:
    """Return the names of the kinds."""
    return tuple(_KINDS)


def mean_of(values: Column) -> float | None:
    """Mean of the finite values, in float64; inf where there are only infinite ones, None where there is none."""
    finite = values[np.isfinite(values)].astype(np.float64, copy=False)
    if finite.size:
        return float(finite.mean())
    return math.inf if np.isposinf(values).any() else None


def stored_column(frame: pd.DataFrame, name: str) -> NDArray[np.float32]:
    """Return a column of the samples as it is stored, `(n,)` float32, nan where a value is missing."""
    return frame[name].to_numpy(dtype=np.float32, na_value=math.nan)


def mean_metric(samples: pd.DataFrame, column: str, reason: str | None) -> Metric:
    """Return the mean of a column of the samples, or None and the reason."""
    values = samples[column].to_numpy(dtype=np.float64)
    kept = values[~np.isnan(values)]
    if not len(kept):
        return Metric(None, 0, reason=reason or "no image is large enough for it")
    finite = kept[np.isfinite(kept)]
    value = float(finite.mean()) if len(finite) else math.inf
    return Metric(value, len(kept), n_infinite=len(kept) - len(finite))


def put_interval(ci: dict[str, Interval], name: str, samples: Floats, level: float) -> None:
    """Add the interval of bootstrap draws, where they have one."""
    low, high = interval(samples, level)
    if math.isfinite(low) and math.isfinite(high):
        ci[name] = (low, high)
