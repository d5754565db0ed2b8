"""The catalogue's rows of quality: metrics of classes and ratings, of images, and of how sure a row is."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from srbench.metrics.image import PSNR_CAP_DB
from srbench.metrics.info import MetricInfo, SampleColumn
from srbench.metrics.labels import expected_calibration_error, f1_macro, per_class_table
from srbench.metrics.stats import correlations
from srbench.metrics.values import Columns, mean_of, share_equal

_CLASSES = ("classification",)
_RATINGS = ("iqa",)
_LABEL, _PRED, _HR_PRED = (SampleColumn(name, "int32") for name in ("label", "pred", "hr_pred"))
_CONFIDENCE = SampleColumn("confidence")
_RATING, _SCORE = SampleColumn("mean_rating"), SampleColumn("mean_score")


def _area(columns: Columns) -> float | None:
    contributions = columns.get("auc")
    return None if contributions is None else mean_of(contributions)


def _macro_f1(columns: Columns) -> float | None:
    label, pred = columns["label"], columns["pred"]
    if label is None or pred is None:
        return None
    return f1_macro(per_class_table(label, pred, [str(index) for index in range(int(label.max()) + 1)]))


def _calibration(columns: Columns) -> float | None:
    label, pred, confidence = (columns[name] for name in ("label", "pred", "confidence"))
    if label is None or pred is None or confidence is None or np.isnan(confidence).any():
        return None
    return expected_calibration_error(confidence, label == pred)


def _correlation(columns: Columns, name: str) -> float | None:
    score, rating = columns["mean_score"], columns["mean_rating"]
    assert score is not None and rating is not None
    plcc, srcc = correlations(score, rating)
    value = srcc if name == "srcc" else plcc
    return value if math.isfinite(value) else None


def _unlabelled_confidence(columns: Columns) -> float | None:
    """Return the mean confidence where no label tells what it is worth; with labels the calibration error does."""
    confidence = columns["confidence"]
    if columns["label"] is not None or confidence is None or np.isnan(confidence).any():
        return None
    return mean_of(confidence)


def _best_accuracy(columns: Columns) -> float | None:
    right = columns.get("accuracy_best")
    return None if right is None else mean_of(right)


QUALITY = (
    MetricInfo(
        "accuracy",
        "accuracy",
        "accuracy",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        value=partial(share_equal, first="label", second="pred"),
        priority=1,
        interval="mean",
        interval_shown="beside",
        interval_priority=2,
        test="mcnemar",
        headline=True,
        absence="elsewhere",
    ),
    MetricInfo(
        "accuracy_delta",
        "against\nbilinear",
        "accuracy against bilinear",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        style="signed",
        digits=3,
        priority=3,
        interval="difference",
        interval_shown="within",
        test="mcnemar",
        tested_as="accuracy",
        compared=True,
    ),
    MetricInfo(
        "p_holm", "p\n(Holm)", "p", False, "network", _CLASSES, (_LABEL, _PRED), style="p", priority=7, compared=True
    ),
    *(
        MetricInfo(
            name,
            header,
            word,
            higher_is_better,
            "network",
            _CLASSES,
            (_LABEL, _PRED),
            style="count",
            priority=priority,
            compared=True,
            second=second,
        )
        for name, header, word, higher_is_better, priority, second in (
            ("fixed", "fixed /\nbroken", "images that bilinear gets wrong and the row right", True, 8, "broken"),
            ("broken", "broken", "images that bilinear gets right and the row wrong", False, 8, None),
            (
                "fixed_original",
                "against original\nfixed / broken",
                "images that the original gets wrong and the row right",
                True,
                14,
                "broken_original",
            ),
            ("broken_original", "broken", "images that the original gets right and the row wrong", False, 14, None),
        )
    ),
    MetricInfo(
        "top5",
        "top-5",
        "top-5 accuracy",
        True,
        "network",
        _CLASSES,
        (SampleColumn("top5_hit", "bool"),),
        share=True,
        priority=12,
        test="mcnemar",
    ),
    MetricInfo(
        "auc",
        "AUC",
        "AUC",
        True,
        "network",
        _CLASSES,
        (_LABEL,),
        share=True,
        value=_area,
        priority=13,
        interval="area",
        interval_shown="beside",
        interval_priority=14,
    ),
    MetricInfo(
        "cross_entropy",
        "cross-\nentropy",
        "cross-entropy",
        False,
        "network",
        _CLASSES,
        (SampleColumn("cross_entropy"),),
        unit="nats",
        priority=9,
        interval="mean",
        test="paired",
        headline=True,
        absence="elsewhere",
    ),
    MetricInfo(
        "psnr",
        "PSNR\ndB",
        "PSNR",
        True,
        "image",
        columns=(
            SampleColumn("mse", of_pair=lambda pair: pair.mse),
            SampleColumn("psnr", of_pair=lambda pair: pair.psnr, exact=math.inf),
        ),
        unit="dB",
        cap=PSNR_CAP_DB,
        digits=2,
        priority=10,
        interval="mean",
        interval_digits=2,
        interval_shown="beside",
        interval_priority=10,
        test="paired",
        headline=True,
        absence="always",
    ),
    MetricInfo(
        "ssim",
        "SSIM",
        "SSIM",
        True,
        "image",
        columns=(SampleColumn("ssim", of_pair=lambda pair: pair.ssim, exact=1.0),),
        priority=13,
        interval="mean",
        test="paired",
        absence="always",
    ),
    MetricInfo(
        "agreement",
        "agrees\nwith HR",
        "agreement with HR",
        True,
        "network",
        _CLASSES,
        (_HR_PRED, _PRED),
        share=True,
        value=partial(share_equal, first="hr_pred", second="pred"),
        priority=12,
        interval="mean",
        test="mcnemar",
        absence="elsewhere",
    ),
    MetricInfo(
        "same_as_bilinear",
        "decides as\nbilinear",
        "share of decisions that are bilinear's",
        True,
        "network",
        _CLASSES,
        (_PRED,),
        share=True,
        priority=1,
        interval="difference",
        interval_shown="beside",
        interval_priority=2,
        compared=True,
    ),
    MetricInfo(
        "confidence",
        "confi\u00ad\ndence",
        "mean confidence",
        True,
        "network",
        _CLASSES,
        (_CONFIDENCE,),
        value=_unlabelled_confidence,
        priority=3,
    ),
    MetricInfo(
        "recovered_gap",
        "recovered\ngap",
        "recovered gap",
        True,
        "network",
        ("classification", "segmentation", "detection"),
        (_LABEL, _PRED),
        share=True,
        digits=2,
        priority=4,
        interval="gap",
        interval_digits=2,
        interval_shown="within",
        test="mcnemar",
        tested_as="accuracy",
        absence="always",
        compared=True,
    ),
    MetricInfo(
        "accuracy_best",
        "accuracy\nat best\nsize",
        "accuracy at the best input size",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        value=_best_accuracy,
        priority=1,
        interval="mean",
        interval_shown="beside",
        interval_priority=2,
        test="intervals",
        compared=True,
    ),
    MetricInfo(
        "accuracy_best_delta",
        "against\nbest\nbilinear",
        "difference to bilinear, both at their best input sizes",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        style="signed",
        digits=3,
        priority=3,
        interval="difference",
        interval_shown="within",
        test="intervals",
        tested_as="accuracy_best",
        compared=True,
    ),
    MetricInfo(
        "p_best_holm",
        "p at best\n(Holm)",
        "p against bilinear at its best input size",
        False,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        style="p",
        priority=7,
        compared=True,
    ),
    MetricInfo(
        "p_best_size",
        "p of\nbest size",
        "p of the best input size against the protocol's",
        False,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        style="p",
        priority=9,
        compared=True,
    ),
    MetricInfo(
        "gap_over_free",
        "gap over\nfree",
        "gap over what a free resize gives",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        digits=2,
        priority=4,
        interval="gap",
        interval_digits=2,
        interval_shown="within",
        test="intervals",
        tested_as="accuracy_best",
        absence="always",
        compared=True,
    ),
    MetricInfo(
        "f1_macro",
        "F1\nmacro",
        "macro F1",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        value=_macro_f1,
        priority=14,
        interval="f1",
        test="intervals",
        headline=True,
    ),
    MetricInfo(
        "f1_macro_delta",
        "F1 against\nbilinear",
        "macro F1 against bilinear",
        True,
        "network",
        _CLASSES,
        (_LABEL, _PRED),
        share=True,
        style="signed",
        digits=3,
        priority=15,
        interval="difference",
        interval_shown="within",
        test="intervals",
        tested_as="f1_macro",
        compared=True,
    ),
    MetricInfo(
        "ece",
        "ECE",
        "calibration error",
        False,
        "network",
        _CLASSES,
        (_LABEL, _PRED, _CONFIDENCE),
        share=True,
        value=_calibration,
        priority=18,
    ),
    MetricInfo(
        "logit_mse_to_hr",
        "logit MSE\nto HR",
        "logit MSE to HR",
        False,
        "network",
        columns=(SampleColumn("logit_mse_to_hr"),),
        digits=3,
        priority=19,
        test="paired",
    ),
    MetricInfo(
        "kl_to_hr",
        "KL\nto HR",
        "KL to HR",
        False,
        "network",
        columns=(SampleColumn("kl_to_hr"),),
        unit="nats",
        priority=20,
        test="paired",
    ),
    MetricInfo(
        "srcc",
        "SRCC",
        "SRCC",
        True,
        "network",
        _RATINGS,
        (_SCORE, _RATING),
        value=partial(_correlation, name="srcc"),
        priority=1,
        interval="correlation",
        interval_shown="beside",
        interval_priority=2,
        test="intervals",
        headline=True,
        absence="elsewhere",
    ),
    MetricInfo(
        "srcc_delta",
        "SRCC against\nbilinear",
        "SRCC against bilinear",
        True,
        "network",
        _RATINGS,
        (_SCORE, _RATING),
        style="signed",
        digits=3,
        priority=3,
        interval="difference",
        interval_shown="within",
        test="intervals",
        tested_as="srcc",
        compared=True,
    ),
    MetricInfo(
        "plcc",
        "PLCC",
        "PLCC",
        True,
        "network",
        _RATINGS,
        (_SCORE, _RATING),
        value=partial(_correlation, name="plcc"),
        priority=4,
        interval="correlation",
        interval_shown="beside",
        interval_priority=8,
        test="intervals",
    ),
    MetricInfo(
        "emd",
        "EMD",
        "EMD",
        False,
        "network",
        _RATINGS,
        (SampleColumn("emd"),),
        priority=7,
        interval="mean",
        interval_digits=4,
        test="intervals",
        headline=True,
    ),
    MetricInfo(
        "seed_sd",
        "sd over\nseeds",
        "standard deviation over seeds of what ranks the rows",
        False,
        "network",
        priority=13,
        compared=True,
    ),
    MetricInfo(
        "best_delta",
        "against\nbest",
        "difference to the best of its track",
        True,
        "network",
        style="signed",
        digits=3,
        priority=16,
        interval="to_best",
        interval_shown="within",
        compared=True,
    ),
)
