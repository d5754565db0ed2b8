"""Figures of an epoch on the validation data, scored as the protocol says: clamped, rounded, in full precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from srbench import metrics
from srbench.compute.devices import on_device
from srbench.compute.memory import BatchLimits
from srbench.compute.numerics import Numerics
from srbench.imaging.degrade import degrade, for_classifier, for_metric
from srbench.imaging.resample import resize
from srbench.method import Method
from srbench.metrics.catalogue import metric
from srbench.networks.classifiers import Classifier
from srbench.networks.outputs import flat
from srbench.protocol import Protocol
from srbench.restore import restore
from srbench.task_types import OutputMap
from srbench.task_types.segmentation import mean_iou_of
from srbench.training.images import ImageSet, Positions
from srbench.training.recipe import criteria
from srbench.training.teacher import HrLogits

# Figures of some samples, `(N,)` each, in the order in which they are added up; a name may come more than once.
Figures = list[tuple[str, Tensor]]

VALIDATION = "validation"  # its name among the limits
_FALLBACKS = ("ce_difference", "emd", "logits", "psnr", "accuracy")


@dataclass
class Sums:
    """Sums and counts of per-sample figures, which ranks can add up."""

    totals: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, values: Tensor) -> None:
        """Add a figure of some samples, `(N,)`; infinite ones (PSNR of equal images) are left out."""
        finite = values[torch.isfinite(values) | torch.isnan(values)].double()
        self.totals[name] = self.totals.get(name, 0.0) + float(finite.sum())
        self.counts[name] = self.counts.get(name, 0) + finite.numel()

    def means(self) -> dict[str, float]:
        """Return the mean of every figure; those without a single finite value are left out."""
        return {name: total / self.counts[name] for name, total in self.totals.items() if self.counts[name]}


@dataclass(frozen=True)
class Watcher:
    """A network that sees SR in validation.

    Attributes:
        network: The classifier.
        hr_logits: The frozen classifier's logits of HR.
        label: What follows the names of its figures, such as ":resnet50", or "" where it is the only one.
        teaches: Whether the means over the teachers count it.
        labelled: Whether the data's labels are indices of its outputs.
    """

    network: Classifier
    hr_logits: HrLogits
    label: str = ""
    teaches: bool = True
    labelled: bool = True


@dataclass
class MethodValidation:
    """Restores the validation images and compares them with the originals.

    Attributes:
        method: The network, in eval mode when this is called.
        images: The validation set.
        protocol: The protocol.
        watchers: Networks that see SR: the teachers (or the classifier trained along), and those that only judge.
        batch_size: Images a batch.
        device: Where it runs.
        seed: Seed of the degradation's noise.
        limits: How many images fitted at once.
    """

    method: Method
    images: ImageSet
    protocol: Protocol
    watchers: Sequence[Watcher]
    batch_size: int
    device: torch.device
    seed: int
    limits: BatchLimits = field(default_factory=BatchLimits)

    def __call__(self, rank: int, world: int) -> Sums:
        """Return this rank's share of the sums."""
        return _sums(self._figures, self.images, self.batch_size, rank, world, self.limits, self.device)

    def _figures(self, positions: Positions) -> Figures:
        hr, lr = _hr_lr(self.images, positions, self.protocol, self.device, self.seed)
        sr = restore(
            self.method,
            lr,
            self.protocol.sr_size(hr.shape[-2], hr.shape[-1]),
            restoration=self.protocol.sr,
            numerics=Numerics.of(self.device, "fp32"),
            channels=self.images.channels,
        )
        found: Figures = []
        if sr.shape == hr.shape and not self.protocol.lr.none:
            score = self.protocol.score
            mse = metrics.mse_per_image(
                for_metric(sr, self.protocol),
                hr,
                channels=score.channels,
                crop_border=score.crop_border,
                grey=torch.from_numpy(self.images.stored_channels[positions] == 1),
            )
            found.append(("psnr", metrics.psnr_from_mse(mse).clamp_max(metrics.PSNR_CAP_DB)))
        shown = for_classifier(sr, self.protocol)
        for watcher in self.watchers:
            found += self._figures_of(watcher, shown, positions)
        return found

    def _figures_of(self, watcher: Watcher, sr: Tensor, positions: Positions) -> Figures:
        """Return what one network makes of SR, under its own label, and for the means over the teachers."""
        task_type = self.images.task_type
        logits, target = watcher.network(sr).float(), watcher.hr_logits.rows(positions).to(self.device)
        labels = _labels(self.images, positions, self.device) if watcher.labelled else None
        found = {"logits": metrics.logit_mse(flat(logits), flat(target))}
        if "agreement" in task_type.ranks:
            found["agreement"] = (logits.argmax(dim=1) == target.argmax(dim=1)).double()
        if labels is not None:
            outputs = self._output_map(watcher.network.info.n_classes)
            found |= task_type.figures(logits, labels, outputs)
            found |= {f"{name}_hr": values for name, values in task_type.figures(target, labels, outputs).items()}
        suffixes = dict.fromkeys([*([""] if watcher.teaches else []), watcher.label])
        return [pair for suffix in suffixes for pair in _named(found, suffix)]

    def _output_map(self, n_outputs: int) -> OutputMap:
        labels = self.images.labels
        if self.protocol.score.logits != "present" or labels is None or labels.ndim != 1:
            return OutputMap(n_outputs)
        return OutputMap(n_outputs, present=np.unique(labels))


@dataclass
class NetworkValidation:
    """Classifies HR, and LR brought back by bilinear, which shows whether a classifier collapses on blur."""

    network: Classifier
    images: ImageSet
    protocol: Protocol
    batch_size: int
    device: torch.device
    seed: int
    limits: BatchLimits = field(default_factory=BatchLimits)

    def __call__(self, rank: int, world: int) -> Sums:
        """Return this rank's share of the sums."""
        return _sums(self._figures, self.images, self.batch_size, rank, world, self.limits, self.device)

    def _figures(self, positions: Positions) -> Figures:
        hr, lr = _hr_lr(self.images, positions, self.protocol, self.device, self.seed)
        size = self.protocol.sr_size(hr.shape[-2], hr.shape[-1])
        labels = _labels(self.images, positions, self.device)
        assert labels is not None
        task_type, outputs = self.images.task_type, OutputMap(self.network.info.n_classes)
        found = _named(task_type.figures(self.network(hr).float(), labels, outputs), "")
        bilinear = for_classifier(resize(lr, size, "bilinear"), self.protocol)
        return found + _named(task_type.figures(self.network(bilinear).float(), labels, outputs), "_bilinear")


def about_batches(limits: BatchLimits) -> list[str]:
    """Say where the memory did not hold a batch of the validation."""
    at_once = limits.smallest(VALIDATION)
    if at_once is None:
        return []
    images = "1 image" if at_once == 1 else f"{at_once} images"
    return [f"the memory did not hold the batches of the validation, which took {images} at once"]


def batch_fields(limits: BatchLimits) -> dict[str, int]:
    """Return what a card says of the same."""
    at_once = limits.smallest(VALIDATION)
    return {} if at_once is None else {"validation_batch": at_once}


def validation_batch(device: torch.device) -> int:
    """Return how many images a batch of validation holds."""
    return 64 if device.type == "cuda" else 16


def figures(sums: Sums) -> dict[str, float]:
    """Return the means by name, with mIoU of its parts, and the difference of cross-entropies where both are there."""
    means = mean_iou_of(sums.means())
    for label in [name.removeprefix("ce") for name in means if name == "ce" or name.startswith("ce:")]:
        for other in (f"ce_hr{label}", f"ce_bilinear{label}"):
            if other in means:
                low, high = (other, f"ce{label}") if other.startswith("ce_hr") else (f"ce{label}", other)
                means[f"ce_difference{label}"] = means[high] - means[low]
    return means


def choose_criterion(wanted: str, metrics: Iterable[str]) -> str:
    """Return the criterion that selects the epoch: the one wanted, or the next that the data allow, or "none"."""
    available = set(metrics)
    if wanted == "none":
        return wanted
    return next((name for name in (wanted, *_FALLBACKS, *criteria()) if name in available), "none")


def is_better(criterion: str, metrics: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Say whether figures beat the best so far; the first epoch that reaches a value keeps it."""
    if criterion == "none" or best is None:
        return True
    new, old = metrics[criterion], best[criterion]
    if math.isnan(new) or math.isnan(old):
        return math.isnan(old) and not math.isnan(new)
    return new > old if is_higher_better(criterion) else new < old


def is_higher_better(criterion: str) -> bool:
    """Say whether more of a criterion is better."""
    # The first two are figures of a validation alone; the others are metrics, whose rows tell their direction.
    return criterion not in ("ce_difference", "logits") and metric(criterion).higher_is_better


def _sums(
    call: Callable[[Positions], Figures],
    images: ImageSet,
    batch_size: int,
    rank: int,
    world: int,
    limits: BatchLimits,
    device: torch.device,
) -> Sums:
    """Return the sums of one rank's share of the images; batches that the memory does not hold are halved."""
    sums = Sums()
    for positions in images.batches(batch_size)[rank::world]:
        for part in limits.parts(VALIDATION, call, positions, device=device):
            for name, values in part:
                sums.add(name, values)
    return sums


def _hr_lr(
    images: ImageSet, positions: Positions, protocol: Protocol, device: torch.device, seed: int
) -> tuple[Tensor, Tensor]:
    pixels, real = images.read(positions)
    hr = pixels.to(device).float().div_(255)
    if real is not None:
        return hr, real.to(device).float().div_(255)
    ids = [images.samples[int(position)].id for position in positions]
    return hr, degrade(hr, protocol.lr, sample_ids=ids, seed=seed, grey=images.channels == 1)


def _labels(images: ImageSet, positions: Positions, device: torch.device) -> Tensor | None:
    return on_device(images.targets(positions), device)


def _named(values_by_name: Mapping[str, Tensor], suffix: str) -> Figures:
    return [(f"{name}{suffix}", values) for name, values in values_by_name.items()]
