"""Named loss terms as pure functions, and the unit scale that lets terms of different size be summed.

A method's `training_step` returns terms by name; the recipe weighs them. `srbench.training.trainable.Trainable` does so
with these functions for every method whose terms are named here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.task_types import TaskType, task_type
from srbench.task_types.classification import ce
from srbench.task_types.image_quality import emd
from srbench.training.networks import FeatureExtractor
from srbench.training.recipe import CLASSIFIER_TERMS

if TYPE_CHECKING:
    from srbench.method import Batch

# What the shell checks before the first step: terms that cannot be had without a classifier, or without labels.
NEED_CLASSIFIER = frozenset({"logits", "features", "perceptual", "ce", "emd"})
NEED_LABELS = frozenset({"ce", *CLASSIFIER_TERMS})
NEED_TEACHER_LOGITS = frozenset({"logits", "emd"})  # but for the term that a kind of task holds against the data

_SMALLEST_MSE = 1e-10  # 100 dB


def terms(
    wanted: Container[str],
    sr: Tensor,
    batch: Batch,
    *,
    judge: nn.Module | None = None,
    extractor: FeatureExtractor | None = None,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Return those of l1, l2, psnr, logits, ce, emd, features and perceptual that are wanted, each a scalar.

    The classifier is run once, whatever is wanted of it.

    Args:
        wanted: Names of terms (the recipe's `losses`); names that this function does not know are left to the caller.
        sr: `(N, C, H, W)`, RGB, float, with gradient, at `batch.sr_size`.
        batch: HR, labels or ratings, the kind of task, and the teacher's logits of HR. The term of that kind ("ce";
            "emd" for iqa) is held against what the data say; "emd" of any other kind against the teacher's scores.
        judge: Classifier on [0, 1] images that sees SR: the frozen teacher, or the one trained along.
        extractor: Features of a frozen classifier; needed for "features" and "perceptual" only.
        smoothing: Label smoothing of "ce".

    Raises:
        UsageError: If a term needs a classifier, an extractor, labels or teacher logits that are not there.
    """
    found: dict[str, Tensor] = {}
    for name, pixel_loss in _PIXEL.items():
        if name in wanted:
            found[name] = pixel_loss(sr, batch.hr)
    of_logits = [name for name in ("logits", "ce", "emd") if name in wanted]
    of_features = [name for name in _FEATURE if name in wanted]
    scores: Tensor | None = None
    if of_features:
        extractor = _given(extractor, of_features[0], "the features of a classifier; give --classifier")
        features, scores = extractor.with_logits(sr) if of_logits else (extractor(sr), None)
        with torch.no_grad():
            target = extractor(batch.hr)
        for name in of_features:
            found[name] = _FEATURE[name](features, target)
        if judge is not None and extractor.classifier is not judge:
            scores = None  # these were the teacher's scores, not the judge's
    if of_logits and scores is None:
        scores = _given(judge, of_logits[0], "a classifier; give --classifier")(sr)
    kind = task_type(batch.kind)
    for name in of_logits:
        assert scores is not None
        if name == kind.loss_term:
            label = _given(batch.label, name, "labels; use labelled data, or the term logits, which needs none")
            found[name] = kind.loss(scores, label, smoothing=smoothing)
        elif name == "ce":
            raise UsageError(check_terms([name], kind))
        else:
            target = _given(batch.teacher_logits, name, "a teacher's scores; give --classifier")
            found[name] = logits(scores, target) if name == "logits" else emd(scores, target.softmax(dim=1))
    return found


def classifier_terms(
    wanted: Container[str], sr: Tensor, batch: Batch, classifier: nn.Module, *, smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return those of ce_sr, ce_hr and ce_mix that are wanted, each a scalar: what a classifier learns beside a method.

    Each is the cross-entropy with the labels in a forward pass of its own, so that batch norm sees SR, HR and mixes
    apart (SR4IR, Kim et al., CVPR 2024, phase 2).

    Args:
        wanted: Names of terms (the recipe's `classifier_losses`).
        sr: `(N, C, H, W)`, RGB, float, without gradient.
        batch: HR and labels.
        classifier: The classifier that is trained.
        smoothing: Label smoothing.

    Raises:
        UsageError: If there are no labels, or SR and HR differ in size where HR is wanted.
    """
    refused = check_terms(wanted if isinstance(wanted, Mapping) else (), task_type(batch.kind))
    if refused:
        raise UsageError(refused)
    shown: dict[str, Callable[[], Tensor]] = {
        "ce_sr": lambda: sr,
        "ce_hr": lambda: _same_size(sr, batch.hr),
        "ce_mix": lambda: patch_mix(sr, _same_size(sr, batch.hr)),
    }
    return {
        name: ce(classifier(image()), _given(batch.label, name, "labels; use labelled data"), smoothing=smoothing)
        for name, image in shown.items()
        if name in wanted
    }


def patch_mix(sr: Tensor, hr: Tensor, *, cells: int = 4) -> Tensor:
    """Take each cell of a grid over images `(N, C, H, W)` from SR or from HR, by a fair coin (SR4IR's CQMix).

    Args:
        sr: Restored images.
        hr: The originals, of the same shape.
        cells: Cells along each side.
    """
    coins = (torch.rand(len(sr), 1, cells, cells) < 0.5).float()  # drawn on the CPU, so that devices agree
    mask = F.interpolate(coins, size=sr.shape[-2:], mode="nearest").to(sr)
    return sr * mask + hr.to(sr) * (1 - mask)


def logits(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of scores `(N, K)` before the softmax (DarioNet's loss)."""
    return F.mse_loss(student.float(), teacher.float())


def features(found: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of a classifier's features of SR and HR, any equal shape."""
    return F.mse_loss(found.float(), target.float())


def perceptual(found: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of a classifier's features of SR and HR, any equal shape (ESRGAN's)."""
    return F.l1_loss(found.float(), target.float())


def l1(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference of images `(N, C, H, W)`."""
    return F.l1_loss(sr.float(), _same_size(sr, hr))


def l2(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean squared difference of images `(N, C, H, W)`."""
    return F.mse_loss(sr.float(), _same_size(sr, hr))


def psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """Minus the mean over images of the PSNR in dB, images `(N, C, H, W)`, [0, 1]; falls as SR improves."""
    error = (sr.float() - _same_size(sr, hr)).square().flatten(1).mean(dim=1)
    return 10 * error.clamp_min(_SMALLEST_MSE).log10().mean()


def check_terms(wanted: Iterable[str], kind: TaskType) -> str:
    """Say in a sentence why a term cannot be had from data of a kind of task, or return ""."""
    for name in sorted(wanted):
        if name in NEED_LABELS and kind.loss_term != "ce":
            return (
                f"the loss term {name!r} needs class labels, which data of kind {kind.name!r} do not have; train with"
                f" {kind.loss_term!r} in its place (--set losses.{kind.loss_term}=1), or with 'logits'"
            )
    return ""


def adversarial(real: Tensor, fake: Tensor) -> Tensor:
    """Generator's relativistic average loss (ESRGAN, eq. 2) of a discriminator's raw scores of HR and SR, any shape.

    The discriminator should have its gradients switched off while this is computed (`networks.frozen`).
    """
    real, fake = real.float(), fake.float()
    return 0.5 * (_against(real - fake.mean(), 0.0) + _against(fake - real.mean(), 1.0))


def discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator's relativistic average loss (ESRGAN, eq. 1) of its raw scores of HR and of detached SR."""
    real, fake = real.float(), fake.float()
    return 0.5 * (_against(real - fake.mean(), 1.0) + _against(fake - real.mean(), 0.0))


class UnitScaler:
    """Divides every term by its size when it was first seen, so that terms of different units can be summed.

    Attributes:
        sizes: Size of every term by name, above 0.
    """

    def __init__(self, sizes: Mapping[str, float] | None = None) -> None:
        """Start with what is known; terms without a size are measured when they first come."""
        self.sizes: dict[str, float] = dict(sizes or {})

    def missing(self, found: Mapping[str, Tensor]) -> list[str]:
        """Return the names of the terms that have no size yet, sorted."""
        return sorted(name for name in found if name not in self.sizes)

    def measure(self, values: Mapping[str, float]) -> None:
        """Set the sizes of new terms; a term that starts at zero keeps its own unit."""
        for name, value in values.items():
            self.sizes.setdefault(name, abs(value) if abs(value) > 1e-12 else 1.0)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Return the term in units of its first size."""
        return value / self.sizes[name]


_PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "l2": l2, "psnr": psnr}
_FEATURE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"features": features, "perceptual": perceptual}


def _against(scores: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


def _same_size(sr: Tensor, hr: Tensor) -> Tensor:
    if sr.shape != hr.shape:
        raise UsageError(
            f"a pixel loss compares images of one size, got sr of shape {tuple(sr.shape)} and hr of shape"
            f" {tuple(hr.shape)}; use logits or ce where the protocol gives SR another size"
        )
    return hr.float()


def _given(value: Any, term: str, needed: str) -> Any:
    if value is None:
        raise UsageError(f"the loss term {term!r} needs {needed}")
    return value
