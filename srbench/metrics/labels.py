"""Metrics of class predictions: scores of each sample, calibration, per-class tables, AUC.

Functions of tensors stay on the device and never wait for it; those of NumPy arrays run once a cell. As in
`srbench.metrics.image`, functions of tensors import torch themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import ContractError, UsageError
from srbench.metrics.image import full_precision

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in nats of each row of logits (N, C), float, against labels (N,), int64: (N,), float32."""
    import torch.nn.functional as F

    return F.cross_entropy(full_precision(logits), labels, reduction="none")


def topk_hit(logits: Tensor, labels: Tensor, *, k: int = 5) -> Tensor:
    """Whether the label is among the k largest of each row of logits (N, C), float: (N,), bool.

    Equal logits rank by index, as in `argmax`, so that a constant output does not count as a hit everywhere and
    `k=1` equals `argmax`; a row that holds nan counts as beaten by every one of its nan.

    Args:
        logits: Scores before the softmax.
        labels: Class indices (N,), int64.
        k: Number of guesses; more than C means C.

    Raises:
        UsageError: If `k` is below one.
    """
    if k < 1:
        raise UsageError(f"expected k of at least 1 for a top-k hit, got {k}")
    import torch

    own = logits.gather(1, labels.unsqueeze(1))
    index = torch.arange(logits.shape[1], device=logits.device)
    # Written as "not at most" so that nan, which compares false, beats the label instead of losing to it.
    ahead = ~(logits <= own) | ((logits == own) & (index < labels.unsqueeze(1)))
    return ahead.sum(dim=1) < min(k, logits.shape[1])


def confidence(logits: Tensor) -> Tensor:
    """Largest softmax probability of each row of logits (N, C), float: (N,), float32, [0, 1]."""
    return full_precision(logits).softmax(dim=1).amax(dim=1)


def logit_mse(logits: Tensor, logits_hr: Tensor) -> Tensor:
    """Mean squared difference over the classes of two sets of logits (N, C), float: (N,), float32.

    Raises:
        ContractError: If the shapes differ.
    """
    _same_logits(logits, logits_hr)
    return (full_precision(logits) - full_precision(logits_hr)).square().mean(dim=1)


def kl_to_hr(logits: Tensor, logits_hr: Tensor) -> Tensor:
    """KL divergence in nats of logits (N, C), float, from the original's, KL(p_hr || p): (N,), float32; maps alike.

    Raises:
        ContractError: If the shapes differ.
    """
    _same_logits(logits, logits_hr)
    import torch

    log_p = full_precision(logits).log_softmax(dim=1)
    log_p_hr = full_precision(logits_hr).log_softmax(dim=1)
    p_hr = log_p_hr.exp()
    # A probability of zero contributes nothing, where the product would be 0 x inf.
    terms = torch.where(p_hr == 0, 0.0, p_hr * (log_p_hr - log_p))
    # Rounding may leave a tiny negative number, which no divergence is.
    return terms.sum(dim=1).clamp_min(0.0)


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, bins: int = 15
) -> float:
    """Expected calibration error in [0, 1]: |accuracy - confidence| over bins of equal width, weighted by size.

    Args:
        confidence: Probability of the predicted class (n,), in [0, 1].
        correct: Whether the prediction was right (n,).
        bins: Number of bins of (0, 1]. (Guo et al., 2017, eq. 5, use 15.)

    Raises:
        UsageError: If there is no sample, the lengths differ or `bins` is below one.
    """
    conf = np.asarray(confidence, dtype=np.float64)
    hit = np.asarray(correct, dtype=np.float64)
    if conf.shape != hit.shape or conf.ndim != 1 or conf.size == 0:
        raise UsageError(
            f"expected as many confidences as outcomes, at least one, got shapes {conf.shape} and {hit.shape}"
        )
    if bins < 1:
        raise UsageError(f"expected at least one calibration bin, got {bins}")
    # Bins are open on the left: a confidence on an edge belongs to the bin below it.
    which = np.clip(np.ceil(conf * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=hit - conf, minlength=bins)
    return float(np.abs(gaps).sum() / conf.size)


def per_class_table(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: Sequence[str]
) -> pd.DataFrame:
    """Precision, recall and F1 of every class that occurs in the labels, as scikit-learn with zero_division=0.

    Args:
        labels: True class indices (n,).
        predictions: Predicted class indices (n,); they may name classes that no label has.
        classes: Name of each class index.

    Returns:
        One row per class with at least one label, in order of the index: class_index, class, support (labels),
        predicted (predictions), precision, recall, f1.

    Raises:
        UsageError: If the lengths differ or a label has no name in `classes`.
    """
    truth = np.asarray(labels, dtype=np.int64)
    guess = np.asarray(predictions, dtype=np.int64)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise UsageError(f"expected as many predictions as labels, got shapes {guess.shape} and {truth.shape}")
    if truth.size and (truth.min() < 0 or truth.max() >= len(classes)):
        raise UsageError(
            f"expected labels from 0 to {len(classes) - 1}, one for each class name, "
            f"got {truth.min()} to {truth.max()}; give the names of all classes of the classifier"
        )
    support = np.bincount(truth, minlength=len(classes))
    # Predictions of classes beyond the names, or of none (-1), count against recall only.
    named = (guess >= 0) & (guess < len(classes))
    predicted = np.bincount(guess[named], minlength=len(classes))
    hits = np.bincount(truth[truth == guess], minlength=len(classes))
    present = np.flatnonzero(support)
    support, predicted, hits = support[present], predicted[present], hits[present]
    precision = np.divide(hits, predicted, out=np.zeros(len(present)), where=predicted > 0)
    return pd.DataFrame(
        {
            "class_index": present,
            "class": [classes[index] for index in present.tolist()],
            "support": support,
            "predicted": predicted,
            "precision": precision,
            "recall": hits / support,
            "f1": 2.0 * hits / (support + predicted),
        }
    )


def f1_macro(table: pd.DataFrame) -> float:
    """Mean F1 over the classes with at least one label.

    Args:
        table: A table of `per_class_table`.

    Raises:
        UsageError: If no class of the table has a label.
    """
    scores = table.loc[table["support"] > 0, "f1"]
    if scores.empty:
        raise UsageError("a macro F1 needs at least one labelled sample, got a per-class table without any")
    return float(scores.mean())


def auc_micro_values(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Contribution of every sample to `roc_auc_micro`, `(n,)`: their mean is that area, to rounding.

    The area is the share of pairs of a positive score (that of a sample's own class) and a negative one (of another
    class, of any sample) in which the positive is the larger, ties counting half. Sample i contributes its positive
    against all negatives, and all positives against its negatives, less the area: the first-order term of the area in
    the weights of the samples. So the bootstrap of the mean of these values is that of the area, to first order, and
    is paired with every other mean over the same samples.

    Args:
        scores: Probability of each class (n, C), comparable across classes, as a softmax gives them.
        labels: True class indices (n,), below C.

    Raises:
        UsageError: If there are fewer than two classes or no sample, or labels and scores do not fit.
    """
    probabilities, truth = _scored_labels(scores, labels)
    own = truth[:, None] == np.arange(probabilities.shape[1])
    positive, negative = probabilities[own], probabilities[~own].reshape(len(truth), -1)

    def beaten(values: NDArray[np.floating], ordered: NDArray[np.floating]) -> NDArray[np.float64]:
        below = np.searchsorted(ordered, values, side="left")
        below += np.searchsorted(ordered, values, side="right")
        return below / (2 * ordered.size)

    wins = beaten(positive, np.sort(negative, axis=None))
    positive.sort()
    losses = np.ones(len(truth))
    for column in negative.T:  # one class after another: what is searched for takes more memory than the scores
        losses -= beaten(column, positive) / negative.shape[1]
    return wins + losses - wins.mean()


def roc_auc_micro(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Micro-averaged area under the ROC curve of one class against the rest, in [0, 1].

    Args:
        scores: Probability of each class (n, C), comparable across classes, as a softmax gives them.
        labels: True class indices (n,), below C.

    Raises:
        UsageError: If there are fewer than two classes or no sample, or labels and scores do not fit.
    """
    from sklearn.metrics import roc_auc_score

    probabilities, truth = _scored_labels(scores, labels)
    positive = truth[:, None] == np.arange(probabilities.shape[1])
    return float(roc_auc_score(positive.ravel(), probabilities.ravel()))


def _scored_labels(
    scores: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    probabilities = np.asarray(scores)
    truth = np.asarray(labels, dtype=np.int64)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or truth.shape != probabilities.shape[:1]:
        raise UsageError(
            "expected scores of shape (n, C) with at least two classes and as many labels, "
            f"got {probabilities.shape} and {truth.shape}"
        )
    if truth.size == 0 or truth.min() < 0 or truth.max() >= probabilities.shape[1]:
        raise UsageError(f"expected at least one label, all in 0 to {probabilities.shape[1] - 1}")
    return probabilities, truth


def _same_logits(logits: Tensor, logits_hr: Tensor) -> None:
    if logits.shape != logits_hr.shape:
        raise ContractError(
            f"expected logits of the shape of the original's, {tuple(logits_hr.shape)}, got {tuple(logits.shape)}"
        )
