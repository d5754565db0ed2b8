"""Evaluation: from the options of a call to records and a leaderboard.

From the top down:

- `api`: `evaluate` and what it returns; `options`: what it takes.
- `task`: one task from start to end; `assemble`: from a cell's samples to its record.
- `scoring`: the one pass; `costs`: the timing pass.
- `thumbnails`: which samples keep their pixels; `hr_predictions`: the cache of predictions on HR; `rows`: values of a
  cell while it is computed; `batches`: reading, degrading, batching.
- `plan`: which cells there are and which are missing; `resolve`: from options to data, classifiers and methods;
  `loaded_methods`: methods with their weights; `distributed`: several processes.
"""

from srbench.evaluation.api import EvaluationResult, evaluate
from srbench.evaluation.options import EvalOptions

__all__ = ["EvalOptions", "EvaluationResult", "evaluate"]
