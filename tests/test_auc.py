"""The micro-average AUC in records and leaderboards, and its interval."""

from __future__ import annotations

import numpy as np
import pytest

from srbench.metrics import auc_micro_values, roc_auc_micro
from srbench.metrics.stats import bootstrap_means, interval, resample_counts


def draws(n=120, classes=4, seed=0, sharpness=1.0, digits=3):
    """Scores with ties, and labels that they know something about."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += sharpness
    scores = np.exp(logits)
    return (scores / scores.sum(axis=1, keepdims=True)).round(digits), labels


def test_a_case_by_hand():
    scores, labels = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1])
    # positives 0.9 and 0.4, negatives 0.1 and 0.6: 0.9 beats both, 0.4 beats one
    assert roc_auc_micro(scores, labels) == 0.75
    # sample 0: its 0.9 wins 1, its 0.1 loses to both: 1 + 1 - 0.75; sample 1: 0.5 + 0.5 - 0.75
    assert auc_micro_values(scores, labels) == pytest.approx([1.25, 0.25])


@pytest.mark.parametrize("digits", [1, 3, 12])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_mean_of_the_contributions_is_the_area(classes, digits):
    scores, labels = draws(classes=classes, digits=digits)
    assert auc_micro_values(scores, labels).mean() == pytest.approx(roc_auc_micro(scores, labels), abs=1e-12)


def test_a_class_without_samples_counts_among_the_negatives():
    scores, labels = draws(classes=3)
    labels = np.where(labels == 2, 0, labels)
    assert auc_micro_values(scores, labels).mean() == pytest.approx(roc_auc_micro(scores, labels), abs=1e-12)


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 3.0])
def test_the_interval_is_that_of_resampled_areas(sharpness):
    scores, labels = draws(n=150, sharpness=sharpness)
    short = bootstrap_means(auc_micro_values(scores, labels)[:, None], draws=400, seed=0)[:, 0]
    whole = []
    for counts in resample_counts(150, 400, seed=0):
        for row in counts:
            index = np.repeat(np.arange(150), row.astype(int))
            whole.append(roc_auc_micro(scores[index], labels[index]))
    whole = np.array(whole)
    assert np.corrcoef(short, whole)[0, 1] > 0.99
    width = np.subtract(*interval(whole)[::-1])
    assert np.abs(np.subtract(interval(short), interval(whole))).max() < 0.05 * width + 1e-3
