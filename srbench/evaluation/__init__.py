"""Evaluation: from a call to records and a leaderboard.

`loaded_methods` says who takes part, `scoring` is the one pass, `costs` the timing pass, `assemble` makes the records;
`run` below puts them in order.
"""

from srbench.evaluation.run import EvaluationResult, evaluate

__all__ = ["EvaluationResult", "evaluate"]
