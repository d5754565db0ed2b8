"""Metrics of restored images and of predictions, and how sure they are.

- `catalogue`: one row a metric, which tables, files, `compare` and the report read.
- `image`: SR against HR. `labels`: predictions against labels and against those on HR. `dense`: maps against masks.
- `stats`: intervals, tests, correlations.
"""

from srbench.metrics.image import (
    PSNR_CAP_DB,
    HrStatistics,
    PooledPsnr,
    mse_per_image,
    psnr_from_mse,
    psnr_pooled,
    ssim_per_image,
    to_y,
)
from srbench.metrics.labels import (
    auc_micro_values,
    confidence,
    cross_entropy,
    expected_calibration_error,
    f1_macro,
    kl_to_hr,
    logit_mse,
    per_class_table,
    roc_auc_micro,
    topk_hit,
)

__all__ = [
    "PSNR_CAP_DB",
    "HrStatistics",
    "PooledPsnr",
    "auc_micro_values",
    "confidence",
    "cross_entropy",
    "expected_calibration_error",
    "f1_macro",
    "kl_to_hr",
    "logit_mse",
    "mse_per_image",
    "per_class_table",
    "psnr_from_mse",
    "psnr_pooled",
    "roc_auc_micro",
    "ssim_per_image",
    "to_y",
    "topk_hit",
]
