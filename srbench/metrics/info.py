"""What the harness must know of a metric to store, compute, show, test and compare it: one `MetricInfo` a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srbench.metrics.values import Columns

if TYPE_CHECKING:
    from torch import Tensor

    from srbench.metrics.image import ImagePair

ColumnType = Literal["int32", "bool", "float32", "int32[]", "float32[]"]  # [] is a list a sample
Group = Literal["image", "network", "cost"]
Style = Literal["fixed", "signed", "significant", "scaled", "p", "count"]
Interval = Literal["mean", "area", "correlation", "f1", "iou", "difference", "gap", "to_best"]
Test = Literal["mcnemar", "paired", "intervals"]


@dataclass(frozen=True)
class SampleColumn:
    """A column of the stored samples, one value a sample.

    Attributes:
        name: Name in samples.parquet.
        type: Arrow type of its values.
        of_pair: Of image metrics: the values `(N,)` of a batch of SR against HR; they stay on the device.
        exact: Of image metrics: the value of an SR that equals HR, which is what the original has.
    """

    name: str
    type: ColumnType = "float32"
    of_pair: Callable[[ImagePair], Tensor] | None = None
    exact: float = 0.0


@dataclass(frozen=True)
class MetricInfo:
    """One row of the catalogue.

    Attributes:
        name: Key in `Row.values`, leaderboard.json, leaderboard.csv and the rules of `compare`.
        header: Header of its column; a line break keeps it narrow.
        word: Its name within a sentence.
        higher_is_better: Direction: whether more of it is better.
        group: "image" (SR against HR), "network" (what the network behind SR answers), or "cost".
        task_types: Names of the task types that have it; empty means all of them.
        columns: Stored columns of the samples that it is computed from.
        unit: Unit, or "".
        share: Whether it is a share, shown in percent on an axis and bounded by percentage points ("pp") in rules.
        value: Computes it from the stored columns of one cell; None takes the mean of the last column, by `cap`.
        compared: Whether it comes from holding cells against each other, in `TaskType.compare`, not from one cell.
        cap: Largest value that one sample counts with in a mean; None where there is no limit.
        style: How a value is written: so many digits behind the point, with a sign, three significant digits, these
            with k, M and G, as a p value, or as a count, which has a digit behind the point only as a mean of counts.
        digits: Digits behind the point.
        priority: The larger, the sooner its column gives way on a narrow terminal; up to `ESSENTIAL_PRIORITY` it is
            among the columns that a report shows first.
        interval: How its 95 % interval is drawn; None where it has none.
        interval_digits: Digits of the interval's ends.
        interval_shown: "beside" gives the interval its own column, "within" writes it behind the value; None shows it
            in reports and files only.
        interval_priority: As `priority`, for the interval's own column.
        second: Metric that stands behind it in the same column, as in "12 / 7", and has no column of its own.
        test: How the best row is held against the next: exact McNemar on single decisions, a paired bootstrap of the
            mean difference, or whether two intervals are apart. None where no row is called the best.
        tested_as: Metric whose test it shares, since both put the rows in one order.
        headline: Whether `compare` shows it without being asked.
        absence: When a note says why it is missing: "always", "elsewhere" (where another row has it), or never.
    """

    name: str
    header: str
    word: str
    higher_is_better: bool
    group: Group
    task_types: tuple[str, ...] = ()
    columns: tuple[SampleColumn, ...] = ()
    unit: str = ""
    share: bool = False
    value: Callable[[Columns], float | None] | None = None
    compared: bool = False
    cap: float | None = None
    style: Style = "fixed"
    digits: int = 4
    priority: int = 20
    interval: Interval | None = None
    interval_digits: int = 3
    interval_shown: Literal["beside", "within"] | None = None
    interval_priority: int = 20
    second: str | None = None
    test: Test | None = None
    tested_as: str | None = None
    headline: bool = False
    absence: Literal["always", "elsewhere"] | None = None

    @property
    def averaged(self) -> bool:
        """Whether it is a mean over samples, whose bootstrap is that of `sample_values`."""
        return self.interval in ("mean", "area")

    @property
    def axis(self) -> str:
        """Its name with its unit, for the axis of a figure: "accuracy, %", "PSNR, dB"."""
        unit = "%" if self.share else self.unit
        return f"{self.word}, {unit}" if unit else self.word

    def applies_to(self, task_type: str) -> bool:
        """Say whether the rows of a task type can have it."""
        return not self.task_types or task_type in self.task_types
