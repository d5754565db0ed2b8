"""The seam of task types: what a type owns, and what is handed to it.

A type has four parts, and all that follows from what is asked is in one of them:

- targets: how what a source says of its samples becomes numbers, and which outputs of a network answer for them;
- learning: the loss that trains a network for it, and the figures of a validation;
- scoring: what a batch of outputs leaves a sample, in the stored columns that its metrics name;
- ranking: the metrics with their intervals and differences, which of them ranks, and which columns a table shows.

A prediction is whatever the network returns: scores `(N, K)`, a map `(N, K, H, W)`, a list of mappings. The pass calls
`prediction` on each output at once, so that only what is compared stays in memory: a segmentation map is kept as the
index of its largest score. What `prediction` returns on HR is cached, as the tensors that `split` names for each
sample, whose shapes may differ from sample to sample; `join` puts a batch together again. `columns` then holds a batch
of SR against the same batch of HR and against the targets. It may return lists of any length for a sample, in columns
of the types "int32[]" and "float32[]" (`BatchResult.columns`, `CellSamples.lists`).

What the data say about places in an image is read with the image (`StoredImage.target`: a mask or boxes), is brought to
HR as the pixels are (`srbench.data.targets.place_target`), lies in the HR cache, and comes to `targets` as `placed`.
The source says so with `has_targets`. All images of a batch have one size, which may be the image's own (protocols
dense-x4 and dense-x8).

The metrics of a type are rows of `srbench.metrics.catalogue`. A type in a new module lists its own in `metrics`, which
registers them; the catalogue's rows apply to it where they apply to every type.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from srbench.errors import DataError
from srbench.metrics.catalogue import column_types, metrics_of, register
from srbench.metrics.image import psnr_pooled
from srbench.metrics.info import MetricInfo, SampleColumn
from srbench.metrics.values import mean_of
from srbench.networks.outputs import WORDS, Answers
from srbench.records.schema import ClassPart, Metric, Record
from srbench.task_types.paired import CellSamples, Column, Comparison, PairedCells

if TYPE_CHECKING:
    from torch import Tensor, nn

    from srbench.data.source import Sample, Source
    from srbench.networks.classifiers import ClassifierInfo

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class OutputMap:
    """How a network's outputs answer for what the data say.

    Attributes:
        n_outputs: Outputs of the network, K.
        outputs: The output that stands for each class of the data, `(classes,)` int64, or None.
        present: The outputs that compete, ascending, or None for all.
    """

    n_outputs: int
    outputs: Whole | None = None
    present: Whole | None = None


@dataclass(frozen=True)
class BatchResult:
    """What a batch of predictions is worth.

    Attributes:
        columns: A tensor `(N,)` for each column of the samples; for a column of lists `(N, L)`, or one tensor a sample.
        scores: `(N, k)` probabilities to be stored, or None.
        sums: What is added up over the samples instead of being stored for each.
    """

    columns: Mapping[str, Tensor | Sequence[Tensor]]
    scores: Tensor | None = None
    sums: Mapping[str, Tensor] = field(default_factory=dict)


class TaskType(ABC):
    """What a network is asked for, in four parts; see the module's text.

    Attributes:
        name: Name in records and in `Source.task_type`.
        question: What is asked, in a few words.
        answers: The form of the outputs of networks that can answer.
        loss_term: Name of the loss term that holds a network's outputs against the data's targets.
        criterion: Figure of a validation that selects a network's best epoch.
        metrics: Rows that the type adds to the catalogue of metrics.
        further_columns: Stored columns of its samples that no metric is computed from.
        reads_scores: Whether the leaderboard reads the stored probabilities too.
        compared: Columns that are kept of each cell for `compare` and `correct`, beside those of averaged metrics.
        tests: Name of a Holm-corrected p -> the difference to bilinear that it is about.
        ranks: Metrics that rank its rows; the first that a row has counts.
        shown: Columns that begin its tables, in order; those of further metrics follow.
        essential: Those of them that stay where others would be left out for being empty.
        draws: Whether `overlay` draws predictions into images.
        chooses_input_size: Whether its cells can be scored at several input sizes, of which `correct` tells the best.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    answers: ClassVar[Answers] = "scores"
    loss_term: ClassVar[str]
    criterion: ClassVar[str]
    metrics: ClassVar[tuple[MetricInfo, ...]] = ()
    further_columns: ClassVar[tuple[SampleColumn, ...]] = ()
    reads_scores: ClassVar[bool] = False
    compared: ClassVar[tuple[str, ...]] = ()
    tests: ClassVar[Mapping[str, str]] = {}
    ranks: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]] = ()
    essential: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[bool] = False
    chooses_input_size: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register(cls.metrics, cls.further_columns)

    # --- targets

    def check_form(self, info: ClassifierInfo, source: Source) -> None:
        """Refuse a network that answers in another form.

        Raises:
            DataError: If it does.
        """
        if info.answers != self.answers:
            raise DataError(
                f"{source.spec} asks {self.question!r}, which takes a network that returns {WORDS[self.answers]};"
                f" {info.id} returns {WORDS[info.answers]}: choose another network, or other data"
            )

    @abstractmethod
    def classes_of(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Name the outputs of a network that is to be trained on these sources.

        Raises:
            UsageError: If they do not say what is asked.
        """

    def map_outputs(self, info: ClassifierInfo, source: Source, *, present: bool = False) -> OutputMap:
        """Match a network's outputs with what the data say: here the output of each class of the data, by its name.

        Args:
            info: The network.
            source: The data; it may say nothing, so that only the network's own scores of HR are left to compare with.
            present: Only outputs that the data have are to compete, where scores compete for a sample.

        Raises:
            DataError: If the network does not answer for these data.
        """
        self.check_form(info, source)
        if source.classes is None:
            return OutputMap(info.n_classes)
        from srbench.networks.classifiers import label_map

        outputs = label_map(info, source.classes)
        return OutputMap(info.n_classes, outputs, np.unique(outputs) if present else None)

    @abstractmethod
    def targets(
        self, samples: Sequence[Sample], answers: OutputMap, placed: Sequence[NDArray[Any]] | None = None
    ) -> Any:
        """Return what the data say of samples, in terms of the outputs; None where they say nothing.

        Args:
            samples: N samples.
            answers: The outputs.
            placed: What the data say about places in their HR images (masks, boxes), or None. Images of one call that
                have masks are of one size.

        Returns:
            An array with first axis N, or a list of N mappings from names to arrays.
        """

    # --- learning

    def begin(self, network: nn.Module) -> None:
        """Change what a fresh network begins with; pretrained and given weights are left as they are."""
        return

    @abstractmethod
    def loss(self, scores: Tensor, target: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Return the scalar loss of scores `(N, K)` before the softmax, with gradient."""

    @abstractmethod
    def figures(self, scores: Tensor, target: Tensor, answers: OutputMap) -> dict[str, Tensor]:
        """Return the figures of a validation by name, each `(N,)`."""

    # --- scoring

    def prediction(self, output: Any, *, seen: tuple[int, int], size: tuple[int, int]) -> Any:
        """Return what of a network's output on N images is kept, compared and cached: all scores, in float32.

        Args:
            output: Of the network.
            seen: (height, width) of the images that it was shown, pixels: those of LR where LR is handed on as it is.
            size: (height, width) of HR, in whose pixels places are told.
        """
        return output.float()

    def is_finite(self, output: Any) -> Tensor:
        """Say on the device whether a network's output is finite, a bool of no dimension; nothing waits for it."""
        from srbench.restore import is_finite

        return is_finite(output)

    def split(self, prediction: Any) -> list[Mapping[str, Tensor]]:
        """Return a prediction on N images as N mappings from names to tensors, whose shapes may differ."""
        return [{"scores": scores} for scores in prediction]

    def join(self, parts: Sequence[Mapping[str, Tensor]]) -> Any:
        """Return the prediction on N images that `split` takes apart; its images are of one size."""
        import torch

        return torch.stack([part["scores"] for part in parts])

    @abstractmethod
    def columns(self, prediction: Any, hr_prediction: Any, target: Any, answers: OutputMap) -> BatchResult:
        """Hold a network's prediction on N images of SR against that on HR and against the targets.

        Args:
            prediction: As `prediction` returns it.
            hr_prediction: The same on HR, or None where there is no HR.
            target: As `targets` returns it, tensors on the device; None where the data say nothing.
            answers: How the outputs answer.
        """

    def overlay(self, image: NDArray[np.uint8], found: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8] | None:
        """Return an image `(H, W, 3)`, RGB, uint8 with a prediction drawn into it, for galleries; None if nothing is.

        Args:
            image: The image.
            found: The prediction on it, as `split` gives it, on the CPU.
        """
        return None

    def truth_overlay(
        self, image: NDArray[np.uint8], placed: NDArray[Any], answers: OutputMap
    ) -> NDArray[np.uint8] | None:
        """Return an image with what the data say about places in it, drawn as `overlay` draws; None if nothing is."""
        return None

    def per_class(
        self, samples: pd.DataFrame, answers: OutputMap, classes: Sequence[str] | None
    ) -> tuple[ClassPart, ...] | None:
        """Return the record's table of classes, or None where there are none."""
        return None

    def histograms(self, sums: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
        """Return what the record keeps of `BatchResult.sums`, or None."""
        return None

    def samples_of(self, record: Record, frame: pd.DataFrame, *, competes: bool = False) -> CellSamples:
        """Take the samples of a cell as arrays.

        Args:
            record: The cell's record.
            frame: Its samples, with `sample_columns`.
            competes: Whether its row is ranked.
        """
        types = column_types()
        present = [name for name in self.sample_columns() if name in frame]
        whole = [name for name in present if types[name] == "int32"]
        lists = [name for name in present if types[name].endswith("[]")]
        cell = CellSamples(
            record,
            {name: stored_column(frame, name) for name in present if name not in (*whole, *lists)},
            {name: None if frame[name].isna().any() else frame[name].to_numpy(dtype=np.int32) for name in whole},
            competes,
            {name: None if frame[name].isna().any() else frame[name].to_numpy(dtype=object) for name in lists},
        )
        return replace(cell, floats={**cell.floats, **self.contributions(cell, frame)})

    def sample_columns(self) -> tuple[str, ...]:
        """Name the stored columns that its metrics are computed from."""
        columns = (column.name for info in metrics_of(self.name) for column in info.columns)
        return tuple(dict.fromkeys(columns))

    def averaged(self) -> dict[str, str]:
        """Name the metrics that are means over the samples, each with the column that is averaged and resampled."""
        means = (info for info in metrics_of(self.name) if info.averaged)
        return {info.name: info.name if info.value is not None else info.columns[-1].name for info in means}

    def contributions(self, cell: CellSamples, frame: pd.DataFrame) -> Mapping[str, Column]:
        """Return by name what each sample contributes to averaged metrics that are no mean of a stored column."""
        return {}

    # --- ranking

    def values(self, cell: CellSamples, *, why_no_image: str | None = None) -> dict[str, Metric]:
        """Return the metrics of one cell by name; one that does not apply has its reason.

        Args:
            cell: The cell.
            why_no_image: Why an image metric is missing, where the cell's record does not know it yet.
        """
        values = {}
        for info in metrics_of(self.name):
            if info.compared or info.group == "cost":
                continue
            if info.group == "network" and cell.record.classifier is None:
                values[info.name] = Metric(None, 0, reason="there is no classifier")
                continue
            computed = self.value(info, cell)
            if computed.value is None:
                computed = Metric(None, 0, reason=computed.reason or self._reason(info, cell, why_no_image))
            values[info.name] = computed
        return values

    def value(self, info: MetricInfo, cell: CellSamples) -> Metric:
        """Return one metric of one cell, computed as its row of the catalogue says."""
        pooled = cell.record.protocol.fields.get("score", {})
        if info.name == "psnr" and pooled.get("psnr_reduction") == "batch":
            return _pooled_psnr(cell, int(pooled["psnr_batch"]))
        n = cell.record.dataset.n
        if info.value is not None:
            value = info.value(cell.columns)
            # JSON and a table have no place for a number that is none.
            return Metric(value if value is not None and math.isfinite(value) else None, n)
        column = info.columns[-1].name
        if column not in cell.floats:
            return Metric(None, 0)
        values = cell.floats[column]
        infinite = int(np.isposinf(values).sum())
        known = int((~np.isnan(values)).sum())
        if infinite and info.cap is None:
            return Metric(None, 0, reason=f"{infinite} of {known} values are infinite")
        return Metric(mean_of(values, info.cap), known, n_infinite=infinite)

    def _reason(self, info: MetricInfo, cell: CellSamples, why_no_image: str | None) -> str:
        if info.group != "image":
            return self.why_missing(info, cell)
        stored = cell.record.metrics.get(info.name)
        older = "the record is older than this metric" if stored is None else None
        return why_no_image or older or (stored.reason if stored is not None else None) or "does not apply here"

    def why_missing(self, info: MetricInfo, cell: CellSamples) -> str:
        """Say why a metric of the network is missing."""
        return "does not apply here"

    @abstractmethod
    def truth(self, cell: CellSamples) -> NDArray[Any] | None:
        """Return what all paired cells must agree on, the targets, or None where there are none."""

    def correct(self, cell: CellSamples) -> NDArray[np.bool_] | None:
        """Return whether each sample is right, `(n,)`, from the columns of `compared`; None where nothing tells."""
        return None

    def summary(self, cell: CellSamples, *, draws: int, seed: int) -> Any:
        """Return what `compare` needs of a cell besides the columns of `compared`; all of its columns are there.

        Cells are read one after another, and what is kept of them is in memory together: what a column of lists comes
        to is mostly much less than the column.
        """
        return None

    @abstractmethod
    def compare(self, paired: PairedCells) -> Comparison:
        """Return differences between paired cells, intervals that are not those of averaged metrics, and tables."""

    def ranking_value(self, values: Mapping[str, float]) -> float | None:
        """Return what ranks a row: the first of `ranks` that it has."""
        return next((value for name in self.ranks if (value := values.get(name)) is not None), None)


def _pooled_psnr(cell: CellSamples, batch: int) -> Metric:
    """PSNR as a mean over batches of pooled error."""
    mse = cell.floats["mse"]
    if np.isnan(mse).any():
        return Metric(None, 0)
    if len(mse) < batch:
        return Metric(None, 0, reason=f"the protocol pools {batch} images, there are {len(mse)}")
    pooled = psnr_pooled(mse, batch)
    return Metric(pooled.value, pooled.n_images, n_infinite=pooled.n_infinite * batch)


def stored_column(frame: pd.DataFrame, name: str) -> NDArray[np.float32]:
    """Return a column of the samples as it is stored, `(n,)` float32, nan where a value is missing."""
    return frame[name].to_numpy(dtype=np.float32, na_value=math.nan)
