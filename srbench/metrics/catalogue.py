"""The catalogue of metrics: one row a metric, which everything that knows metrics by name reads.

The stored columns of the samples, the leaderboard's rows, tables, CSV and JSON, the rules of `compare`, the tests and
axes of the report all come from here. A metric is added in one file:

- an image metric is a module `srbench/metrics/image_NAME.py` with a tuple `METRICS`; this module finds it;
- a metric of a task type is an entry of `TaskType.metrics` in that type's module, which registers it.

The order of the rows is that of leaderboard.json and leaderboard.csv; the order of a table's columns is up to the task
type.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from srbench import metrics
from srbench.errors import UnknownNameError, UsageError
from srbench.metrics.cost_rows import COSTS
from srbench.metrics.info import ColumnType, MetricInfo, SampleColumn
from srbench.metrics.rows import QUALITY

CORE_PRIORITY = 5  # columns of up to this give way last, when nothing else is left to leave out
ESSENTIAL_PRIORITY = 11

_catalogue: dict[str, MetricInfo] = {}
_further_columns: dict[str, SampleColumn] = {}


def register(rows: Iterable[MetricInfo], columns: Iterable[SampleColumn] = ()) -> None:
    """Add metrics, and stored columns that no metric is computed from.

    Raises:
        UsageError: If a name is taken by another metric.
    """
    for row in rows:
        known = _catalogue.setdefault(row.name, row)
        if known != row:
            raise UsageError(f"two metrics are called {row.name!r}; give the newer one another name")
    _further_columns.update({column.name: column for column in columns})


def metric(name: str) -> MetricInfo:
    """Return the metric of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in _catalogue:
        raise UnknownNameError("metric", name, metric_names())
    return _catalogue[name]


def all_metrics() -> tuple[MetricInfo, ...]:
    """Return every metric: those of images and networks in the order of their registration, costs last."""
    return tuple(sorted(_catalogue.values(), key=lambda row: row.group == "cost"))


def metric_names() -> tuple[str, ...]:
    """Return the names of all metrics, in the order of `all_metrics`."""
    return tuple(row.name for row in all_metrics())


def metrics_of(task_type: str) -> tuple[MetricInfo, ...]:
    """Return the metrics that rows of a task type can have, in the order of `all_metrics`."""
    return tuple(row for row in all_metrics() if row.applies_to(task_type))


def image_metrics() -> tuple[MetricInfo, ...]:
    """Return the metrics that hold SR against HR."""
    return tuple(row for row in all_metrics() if row.group == "image")


def image_columns() -> tuple[SampleColumn, ...]:
    """Return the stored columns that hold SR against HR; every one has `of_pair`."""
    return tuple(column for row in image_metrics() for column in row.columns if column.of_pair is not None)


def column_types() -> dict[str, ColumnType]:
    """Return the Arrow type of every column of the samples that a metric or a task type stores, by name."""
    columns = [column for row in all_metrics() for column in row.columns]
    return {column.name: column.type for column in (*columns, *_further_columns.values())}


def _discover() -> None:
    register((*QUALITY, *COSTS))
    for module in pkgutil.iter_modules(metrics.__path__):
        if module.name.startswith("image_"):
            register(importlib.import_module(f"{metrics.__name__}.{module.name}").METRICS)


_discover()
