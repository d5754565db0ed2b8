"""How sure a difference between two methods is: paired bootstrap, exact McNemar, Holm, recovered gap, correlations.

Every resampling of one table uses the same seed and so the same draws: the images are resampled, all methods
see the same ones, and a difference of two columns of draws is a paired difference.
"""

from srbench.metrics.stats.average_precision import (
    DetectionTable,
    Part,
    average_precision,
    bootstrap_precision,
    class_precision,
    mean_precision,
)
from srbench.metrics.stats.bootstrap import BOOTSTRAP_DRAWS, LEVEL, bootstrap_means, interval, resample_counts
from srbench.metrics.stats.correlation import (
    CorrelationBootstrap,
    bootstrap_correlations,
    correlations,
    kendall,
    spearman,
)
from srbench.metrics.stats.cross_fit import CrossFitted, cross_fitted, second_half
from srbench.metrics.stats.f1 import F1Bootstrap, bootstrap_f1
from srbench.metrics.stats.gap import MINIMUM_GAP, RecoveredGap, gap_interval, recovered_gap
from srbench.metrics.stats.iou import IouBootstrap, bootstrap_iou
from srbench.metrics.stats.places import Places, places
from srbench.metrics.stats.power import POWER, mcnemar_power, smallest_difference
from srbench.metrics.stats.significance import holm, mcnemar_exact

__all__ = [
    "BOOTSTRAP_DRAWS",
    "LEVEL",
    "MINIMUM_GAP",
    "POWER",
    "CorrelationBootstrap",
    "CrossFitted",
    "DetectionTable",
    "F1Bootstrap",
    "IouBootstrap",
    "Part",
    "Places",
    "RecoveredGap",
    "average_precision",
    "bootstrap_correlations",
    "bootstrap_f1",
    "bootstrap_iou",
    "bootstrap_means",
    "bootstrap_precision",
    "class_precision",
    "correlations",
    "cross_fitted",
    "gap_interval",
    "holm",
    "interval",
    "kendall",
    "mcnemar_exact",
    "mcnemar_power",
    "mean_precision",
    "places",
    "recovered_gap",
    "resample_counts",
    "second_half",
    "smallest_difference",
    "spearman",
]
