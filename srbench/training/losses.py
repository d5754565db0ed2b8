"""Named loss terms as pure functions, and the unit scale that lets terms of different size be summed.

A method's `training_step` returns terms by name; the recipe weighs them. `srbench.training.trainable.Trainable` does so
with these functions for every method whose terms are named here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.metrics import kl_to_hr
from srbench.networks.outputs import flat
from srbench.task_types import TaskType, task_type
from srbench.task_types.image_quality import emd
from srbench.training.features import FeatureExtractor, Seen
from srbench.training.recipe import CLASSIFIER_TERMS

if TYPE_CHECKING:
    from srbench.method import Batch

# What a run checks before its first step: terms that need a classifier, labels, or the teacher's logits.
NEED_CLASSIFIER = frozenset({"logits", "features", "perceptual", "stages", "ce", "emd", "boxes", "kl"})
NEED_LABELS = frozenset({"ce", "boxes", *CLASSIFIER_TERMS})
NEED_TEACHER_LOGITS = frozenset({"logits", "emd", "kl"})  # the term of the task type itself compares with the data
_NEED_CLASS_SCORES = frozenset({"emd", "kl"})

_SMALLEST_MSE = 1e-10  # 100 dB
_SMALLEST_VARIANCE = 1e-12


def terms(
    wanted: Container[str],
    sr: Tensor,
    batch: Batch,
    *,
    shown: Tensor | None = None,
    network: nn.Module | None = None,
    extractor: FeatureExtractor | None = None,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Return each wanted term, a scalar.

    They are l1, l2, psnr, imitation, logits, ce, emd, kl, boxes, features, perceptual and stages. The classifier is run
    once, whatever is wanted of it.

    Args:
        wanted: Names of terms (the recipe's `losses`); names that this function does not know are left to the caller.
        sr: `(N, C, H, W)`, RGB, float, with gradient, at `batch.sr_size`.
        batch: HR, labels or ratings, the task type, and the teacher's logits of HR. The term of the task type ("ce";
            "emd" for iqa) compares with what the data say. "emd" of other task types compares with the teacher.
        shown: SR as the classifier sees it, at `batch.shown_size`; None is `sr` itself.
        network: Classifier on [0, 1] images that sees SR: the frozen teacher, or the one trained along.
        extractor: Features of a frozen classifier; needed for "features", "perceptual" and "stages" only.
        smoothing: Label smoothing of "ce".

    Raises:
        UsageError: If a term needs a classifier, an extractor, labels or teacher logits that are not there.
    """
    values: dict[str, Tensor] = {}
    for name, pixel_loss in _PIXEL.items():
        if name in wanted:
            values[name] = pixel_loss(sr, batch.hr)
    if "imitation" in wanted:
        values["imitation"] = l1(sr, _given(batch.imitated, "imitation", "a method to imitate; set imitates"))
    seen, seen_hr = (sr, batch.hr) if shown is None else (shown, batch.hr if batch.shown_hr is None else batch.shown_hr)
    of_logits = [name for name in ("logits", "ce", "emd", "kl", "boxes") if name in wanted]
    of_features = [name for name in _FEATURE if name in wanted]
    sr_logits: Any = None
    if of_features:
        extractor = _given(extractor, of_features[0], "the features of a classifier; give --classifier")
        asks_the_same = network is None or extractor.classifier is network
        given = extractor.see(seen, logits=bool(of_logits) and asks_the_same)
        with torch.no_grad():
            target = extractor.see(seen_hr, logits=False)
        for name in of_features:
            values[name] = _FEATURE[name](given, target)
        sr_logits = given.logits
    if of_logits and sr_logits is None:
        sr_logits = _given(network, of_logits[0], "a classifier; give --classifier")(seen)
    asked = task_type(batch.task_type)
    for name in of_logits:
        assert sr_logits is not None
        if name == asked.loss_term:
            label = _given(batch.label, name, "labels; use labelled data, or the term logits, which needs none")
            values[name] = asked.loss(sr_logits, label, smoothing=smoothing)
        elif name in ("ce", "boxes"):
            raise UsageError(check_terms([name], asked))
        else:
            target = _given(batch.teacher_logits, name, "a teacher's logits; give --classifier")
            if name == "logits":
                values[name] = logits(sr_logits, target) / batch.logits_unit
            elif name == "kl":
                values[name] = kl(sr_logits, target)
            else:
                values[name] = emd(sr_logits, target.softmax(dim=1))
    return values


def classifier_terms(
    wanted: Container[str], sr: Tensor, batch: Batch, classifier: nn.Module, *, smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return those of ce_sr, ce_hr and ce_mix that are wanted, each a scalar: what a classifier learns beside a method.

    Each is the task type's loss against what the data say, in a forward pass of its own, so that batch norm sees SR, HR
    and mixes apart (SR4IR, Kim et al., CVPR 2024, phase 2).

    Args:
        wanted: Names of terms (the recipe's `classifier_losses`).
        sr: `(N, C, H, W)`, RGB, float, without gradient.
        batch: HR and labels.
        classifier: The classifier that is trained.
        smoothing: Label smoothing.

    Raises:
        UsageError: If there are no labels, or SR and HR differ in size where HR is wanted.
    """
    asked = task_type(batch.task_type)
    refused = check_terms(wanted if isinstance(wanted, Mapping) else (), asked)
    if refused:
        raise UsageError(refused)
    shown: dict[str, Callable[[], Tensor]] = {
        "ce_sr": lambda: sr,
        "ce_hr": lambda: _same_size(sr, batch.hr),
        "ce_mix": lambda: patch_mix(sr, _same_size(sr, batch.hr)),
    }
    return {
        name: asked.loss(
            classifier(image()), _given(batch.label, name, "labels; use labelled data"), smoothing=smoothing
        )
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
    """Mean squared difference of logits `(N, K)`, of maps of them, or of a detector's pyramids (DarioNet's loss)."""
    return F.mse_loss(flat(student).float(), flat(teacher).float())


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of probabilities from the teacher's, nats, of logits `(N, K)` or maps `(N, K, H, W)`.

    The mean over images, or over images and pixels (Hinton et al., 2015, at a temperature of 1). Where `logits` weighs
    all classes alike, this weighs those that the teacher holds to be likely.
    """
    return kl_to_hr(student, teacher).mean()


def features(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean squared difference of a classifier's features of SR and HR, any equal shape."""
    return F.mse_loss(sr.float(), hr.float())


def perceptual(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference of a classifier's features of SR and HR, any equal shape (ESRGAN's)."""
    return F.l1_loss(sr.float(), hr.float())


def stages(sr: Sequence[Tensor], hr: Sequence[Tensor]) -> Tensor:
    """Mean over stages of the squared difference of a classifier's features of SR and HR, as a share of HR's variance.

    Johnson et al. (ECCV 2016) compare several depths too, each in its own unit; here 1 is the error of features that
    are constant.

    Args:
        sr: Features of SR at each depth, any shapes.
        hr: Those of HR, of the same shapes.
    """
    shares = [
        F.mse_loss(of_sr.float(), of_hr.float()) / of_hr.float().var().clamp_min(_SMALLEST_VARIANCE)
        for of_sr, of_hr in zip(sr, hr, strict=True)
    ]
    return torch.stack(shares).mean()


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


def check_terms(wanted: Iterable[str], asked: TaskType) -> str:
    """Say in a sentence why data of a task type cannot give a term, or return ""."""
    for name in sorted(wanted):
        if name == "boxes" and asked.loss_term != name:
            return f"the loss term 'boxes' needs boxes, which {asked.name!r} data do not have; use {asked.loss_term!r}"
        if name in _NEED_CLASS_SCORES and asked.answers == "boxes":
            return f"the loss term {name!r} needs scores of classes, which a detector does not give; use 'logits'"
        taught = ("ce", "boxes") if name in CLASSIFIER_TERMS else ("ce",)  # these are the loss of the task type
        if name in NEED_LABELS and asked.loss_term not in (name, *taught):
            return (
                f"the loss term {name!r} needs class labels, which {asked.name!r} data do not have; train with"
                f" {asked.loss_term!r} in its place (--set losses.{asked.loss_term}=1), or with 'logits'"
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

    def missing(self, terms: Mapping[str, Tensor]) -> list[str]:
        """Return the names of the terms that have no size yet, sorted."""
        return sorted(name for name in terms if name not in self.sizes)

    def measure(self, values: Mapping[str, float]) -> None:
        """Set the sizes of new terms; a term that starts at zero keeps its own unit."""
        for name, value in values.items():
            self.sizes.setdefault(name, abs(value) if abs(value) > 1e-12 else 1.0)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Return the term in units of its first size."""
        return value / self.sizes[name]


_PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1, "l2": l2, "psnr": psnr}
_FEATURE: dict[str, Callable[[Seen, Seen], Tensor]] = {
    "features": lambda sr, hr: features(sr.features, hr.features),
    "perceptual": lambda sr, hr: perceptual(sr.features, hr.features),
    "stages": lambda sr, hr: stages(sr.stages, hr.stages),
}
FEATURE_TERMS = frozenset(_FEATURE)  # those that need an extractor


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
