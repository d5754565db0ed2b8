"""The base of tables beside the leaderboard (shifts, slices): a task and network, and rows of one metric's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from srbench.leaderboard.rows import Row
from srbench.task_types import Interval


@dataclass(frozen=True)
class RowBeside:
    """A row with values of one metric, each under the name of its column.

    Attributes:
        row: The row.
        values: Name of a column -> the value of the metric there.
        ci: Name of a column -> its 95 % interval.
    """

    row: Row
    values: Mapping[str, float]
    ci: Mapping[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Return its entry in leaderboard.json."""
        return {
            "method": self.row.method,
            "weights": self.row.weights,
            "track": self.row.track,
            "values": dict(self.values),
            "ci": {name: list(ends) for name, ends in self.ci.items()},
        }


@dataclass(frozen=True)
class TableBeside:
    """A table of one metric beside that of a task and network.

    Attributes:
        task: Id of the task.
        classifier: Id of the network behind, or None.
        metric: Name of the metric.
    """

    task: str
    classifier: str | None
    metric: str

    def head(self) -> dict[str, Any]:
        """Return what begins its entry in leaderboard.json."""
        return {"task": self.task, "classifier": self.classifier, "metric": self.metric}
