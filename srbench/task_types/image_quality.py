"""Image quality assessment: how would people rate it? Scores are a distribution over the ratings 1 to 10.

As in NIMA (Talebi and Milanfar 2018, arXiv 1709.05424) and the learned resizer (2021, arXiv 2103.09950): the network's
softmax is the histogram of the ratings, its loss is the earth mover's distance between cumulative distributions, and
it is judged by the correlation of the mean ratings, PLCC (of the values) and SRCC (of their ranks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from srbench import metrics
from srbench.errors import DataError, UsageError
from srbench.metrics.info import MetricInfo, SampleColumn
from srbench.metrics.stats import bootstrap_correlations
from srbench.records.schema import BASELINE
from srbench.task_types.base import BatchResult, OutputMap, TaskType
from srbench.task_types.paired import CellSamples, Column, Comparison, PairedCells

if TYPE_CHECKING:
    from torch import Tensor, nn

    from srbench.data.source import Sample, Source
    from srbench.networks.classifiers import ClassifierInfo

RATINGS = tuple(range(1, 11))
NAMES = tuple(str(rating) for rating in RATINGS)  # what the outputs of a network of this kind are called
CONSTANT = "the ratings or the scores do not vary, so nothing correlates"


class ImageQuality(TaskType):
    """The distribution of the ratings of each image, and their mean."""

    name = "iqa"
    question = "how would people rate it, from 1 to 10?"
    loss_term = "emd"
    criterion = "emd"
    further_columns = (SampleColumn("hr_mean_score"),)
    compared = ("mean_score", "mean_rating")
    ranks = ("srcc",)
    shown: ClassVar[tuple[str, ...]] = (
        *("rank", "method", "srcc", "srcc_ci", "srcc_delta", "plcc", "latency_ms", "rank_ci", "plcc_ci", "emd"),
        *(
            "psnr",
            "psnr_ci",
            "total_time_s",
            "ssim",
            "best_delta",
            "latency_p10_ms",
            "seed_sd",
            "images_per_s",
            "parameters",
            "macs",
            "total_macs",
        ),
        *("peak_memory_mb", "logit_mse_to_hr", "kl_to_hr"),
    )
    essential = ("srcc", "plcc", "emd", "psnr", "total_time_s")

    # --- targets

    def classes_of(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Name the ratings, one output each."""
        return NAMES

    def map_outputs(self, info: ClassifierInfo, source: Source, *, present: bool = False) -> OutputMap:
        """Check that the network has an output for each rating; all of them compete in any case."""
        self.check_form(info, source)
        if info.n_classes != len(RATINGS) or (info.classes is not None and info.classes != NAMES):
            raise DataError(
                f"{source.spec} asks for the {len(RATINGS)} ratings 1 to {RATINGS[-1]}, which classifier {info.id} does"
                f" not give (it has {info.n_classes} outputs for something else); train one that does with"
                f" `srbench train classifier ARCH --data {source.spec}`"
            )
        return OutputMap(info.n_classes)

    def targets(
        self, samples: Sequence[Sample], answers: OutputMap, placed: Sequence[NDArray[Any]] | None = None
    ) -> NDArray[np.float32] | None:
        """Return the share of the raters that gave each rating, `(N, 10)` float32, rows summing to one."""
        ratings = [sample.ratings for sample in samples if sample.ratings is not None]
        if not ratings or len(ratings) < len(samples):
            return None
        return np.array(ratings, dtype=np.float32)

    # --- learning

    def begin(self, network: nn.Module) -> None:
        """Take the mean out of every filter of the first convolution.

        Blur, noise and compression show in differences of neighbouring pixels. Random filters answer to brightness
        most, and a short training is spent on getting rid of that.
        """
        import torch

        first = next((part for part in network.modules() if isinstance(part, torch.nn.Conv2d)), None)
        if first is not None and min(first.kernel_size) > 1:
            with torch.no_grad():
                first.weight -= first.weight.mean(dim=(2, 3), keepdim=True)

    def loss(self, scores: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the earth mover's distance to the histograms `(N, 10)`, averaged over the batch."""
        if smoothing:
            raise UsageError(
                f"label_smoothing is for class labels, histograms of ratings are smooth as they are; got {smoothing:g},"
                " set it to 0"
            )
        return emd(scores, target)

    def figures(self, scores: Tensor, target: Tensor, answers: OutputMap) -> dict[str, Tensor]:
        """Return the earth mover's distance and the error of the mean rating, each `(N,)`."""
        error = mean_rating(scores.double().softmax(dim=1)) - mean_rating(target.double())
        return {"emd": earth_movers(scores, target), "rating_error": error.abs()}

    # --- scoring

    def columns(
        self, prediction: Tensor, hr_prediction: Tensor | None, target: Tensor | None, answers: OutputMap
    ) -> BatchResult:
        """Return the mean scores of SR and HR, the mean rating, and the distance of the distributions."""
        probabilities = prediction.double().softmax(dim=1)
        columns = {
            "mean_score": mean_rating(probabilities).float(),
        }
        if hr_prediction is not None:
            columns["hr_mean_score"] = mean_rating(hr_prediction.double().softmax(dim=1)).float()
            columns["logit_mse_to_hr"] = metrics.logit_mse(prediction, hr_prediction)
            columns["kl_to_hr"] = metrics.kl_to_hr(prediction, hr_prediction)
        if target is not None:
            columns["mean_rating"] = mean_rating(target.double()).float()
            columns["emd"] = earth_movers(prediction, target).float()
        return BatchResult(columns, probabilities)

    # --- ranking

    def truth(self, cell: CellSamples) -> Column:
        """Return the mean ratings."""
        return cell.floats["mean_rating"]

    def why_missing(self, info: MetricInfo, cell: CellSamples) -> str:
        """Say why a metric is missing."""
        return CONSTANT if info.name in ("srcc", "plcc") else "does not apply here"

    def compare(self, paired: PairedCells) -> Comparison:
        """Return intervals of SRCC and PLCC, and the differences of SRCC to bilinear's, all by the same draws."""
        comparison = Comparison.blank(len(paired.cells))
        scores = np.column_stack([cell.floats["mean_score"] for cell in paired.cells])
        drawn = bootstrap_correlations(scores, self.truth(paired.cells[0]), draws=paired.draws, seed=paired.seed)
        baseline = paired.baseline_index
        base = None if baseline is None else paired.values[baseline].get("srcc")
        for index, values in enumerate(paired.values):
            if "srcc" not in values:
                continue
            comparison.put_draws(index, "srcc", drawn.srcc[:, index])
            comparison.put_draws(index, "plcc", drawn.plcc[:, index])
            if base is None:
                comparison.notes[index]["srcc_delta"] = f"there is no ok row {BASELINE!r} whose SRCC is defined"
                continue
            comparison.values[index]["srcc_delta"] = values["srcc"] - base
            delta = drawn.srcc[:, index] - drawn.srcc[:, baseline]
            comparison.put_draws(index, "srcc_delta", delta, shown=index != baseline)
        return comparison


def emd(scores: Tensor, distribution: Tensor) -> Tensor:
    """Earth mover's distance of order d = 2 between cumulative distributions over ordered classes, a scalar.

    Root over classes of the mean squared difference of the cumulative distributions (Talebi and Milanfar, NIMA, 2018),
    averaged over the batch.

    Args:
        scores: `(N, K)` before the softmax.
        distribution: `(N, K)`, each row summing to one.
    """
    difference = scores.float().softmax(dim=1).cumsum(dim=1) - distribution.float().cumsum(dim=1)
    # The root has no gradient at zero; the smallest number keeps it finite where two distributions agree.
    return difference.square().mean(dim=1).add(1e-12).sqrt().mean()


def earth_movers(scores: Tensor, distribution: Tensor) -> Tensor:
    """The same distance of each row of scores `(N, K)` before the softmax: `(N,)` float64, for figures and records."""
    difference = scores.double().softmax(dim=1).cumsum(dim=1) - distribution.double().cumsum(dim=1)
    return difference.square().mean(dim=1).sqrt()


def mean_rating(distribution: Tensor) -> Tensor:
    """Mean of ratings distributed as `(N, 10)`, each row summing to one: `(N,)`, [1, 10]."""
    import torch

    return distribution @ torch.tensor(RATINGS, dtype=distribution.dtype, device=distribution.device)
