"""The options of an evaluation and the settings of its pass, each in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from srbench.compute.memory import BatchLimits
from srbench.compute.numerics import Numerics
from srbench.errors import UsageError
from srbench.evaluation.quantising import Int8Options
from srbench.networks.outputs import Answers
from srbench.protocol import Protocol
from srbench.registry import listed

Result = TypeVar("Result")

BATCH_IMAGES = {"cuda": 128, "cpu": 8}  # a batch by the type of device, images of 256 x 256
# On a CPU, networks that answer with maps or boxes see a quarter as many, which is hardly slower: what a batch takes
# stays in the heap, and holes grow between its blocks (docs/decisions/0079-batches-of-dense-networks.md).
_DENSE_BATCH_IMAGES = {"cuda": 128, "cpu": 2}
SWEEP = "sweep"  # the word for all input sizes that are worth a look
CHUNK = 256  # samples a shard: what a killed run can lose of each cell


@dataclass(frozen=True)
class EvalOptions:
    """What `srbench.evaluate` and `srbench eval` take.

    Attributes:
        methods: Names, one name, or "all".
        data: SPEC of the dataset.
        split: Name of the split, or None for the dataset's own default.
        classifiers: SPECs, or one; () means the demo's own on `demo`, and image metrics alone on pairs and data without
            labels.
        protocol: A protocol, its name or file; None is the dataset's own.
        scales: LR side / HR side, one or several, which make several tasks; () keeps the protocol's own.
        shifts: Degradations to score under too, names or files of protocols, or "all"; each makes a task beside each of
            the others.
        input_sizes: Shortest sides of what the classifiers receive, pixels, one or several, or "sweep": multiples of 32
            from just above the LR side to the HR side. The protocol's own size is always among them.
        weights: Names or files by method, one or several.
        runtimes: What runs the methods as exported files too, `onnx` or `onnx-int8`, one or several; each makes a
            further row of every method that is asked for, such as `darionet[onnx]`.
        int8: The training images that `onnx-int8` is calibrated on.
        precomputed: Folders of images that were restored elsewhere, by the name of the row that each makes.
        meta: CSV about the images, their ids in the first column; its other columns become slices of the table.
        slices: Columns to slice by, of `meta` or srbench's own (hr_side, lr_side, source_side, format, channels); () is
            those of `meta`.
        limit: Take only so many images; the cells are marked partial and never ranked.
        batch_size: Images a batch; None chooses by the device and the size of the images.
        device: "auto", "cpu" or "cuda".
        precision: "auto" (fp32 when scoring), "fp32", "tf32" (on a GPU) or "bf16".
        seed: Seed of everything that is drawn: the noise of the degradation and the bootstrap.
        out: Folder of the results; None is out/<dataset>.
        force: Compute every cell anew.
        plugins: Files of further methods, or one.
        progress: Show progress bars on a terminal.
        measure: Run the timing pass for cells that are computed.
    """

    methods: Sequence[str] = "all"
    _: KW_ONLY
    data: str = "demo"
    split: str | None = None
    classifiers: Sequence[str] = ()
    protocol: str | Protocol | None = None
    scales: float | Sequence[float] = ()
    shifts: str | Sequence[str] = ()
    input_sizes: int | str | Sequence[int | str] = ()
    weights: Mapping[str, str | Sequence[str]] | None = None
    runtimes: str | Sequence[str] = ()
    int8: Int8Options | None = None
    precomputed: Mapping[str, Path | str] | None = None
    meta: Path | str | None = None
    slices: str | Sequence[str] = ()
    limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    out: Path | str | None = None
    force: bool = False
    plugins: Path | str | Sequence[Path | str] = ()
    progress: bool = True
    measure: bool = True

    def __post_init__(self) -> None:
        """Check what needs neither data nor methods to be checked.

        Raises:
            UsageError: If an option is out of its range.
        """
        if not self.methods:
            raise UsageError("no method was named; name some, or ask for all of them")
        for option, value in (("--limit", self.limit), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"{option} takes a whole number of at least 1, got {value}")
        for size in listed(self.input_sizes):
            if size != SWEEP and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
                raise UsageError(f"--input-size takes a side in pixels, at least 1, or {SWEEP!r}, got {size!r}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed takes a whole number from 0 to 2^63 - 1, got {self.seed}")


@dataclass(frozen=True)
class PassSettings:
    """How a pass computes.

    Attributes:
        device: Where it runs.
        numerics: Arithmetic of the run.
        batch_size: Images a batch, or None for as many as hold a certain number of pixels.
        seed: Seed of the degradation's noise.
        channels: Channels of the data. Images always have three; where it is 1 they are equal, also those of SR.
        answers: The form in which the networks answer.
        limits: How many images methods and networks take at once, where the memory did not hold a batch.
    """

    device: torch.device
    numerics: Numerics
    batch_size: int | None
    seed: int
    channels: int = 3
    answers: Answers = "scores"
    limits: BatchLimits = field(default_factory=BatchLimits, compare=False, repr=False)

    def images_a_batch(self, height: int, width: int) -> int:
        """Return how many images of this HR size are computed at once."""
        if self.batch_size is not None:
            return self.batch_size
        # As many pixels whatever the size: what is done once a batch would take longer than networks on small images.
        images = (BATCH_IMAGES if self.answers == "scores" else _DENSE_BATCH_IMAGES)[self.device.type]
        return min(max(images * 256**2 // (height * width), 1), CHUNK)


def in_parts(settings: PassSettings, name: str, call: Callable[[Tensor], Result], images: Tensor) -> list[Result]:
    """Return what a network makes of images `(N, C, H, W)`, in as few parts as the memory holds; see `BatchLimits`."""
    size = images.shape[-2], images.shape[-1]
    return settings.limits.parts(name, call, images, device=settings.device, size=size)
