"""The method seam: the only file that the author of a method must read.

A method is one file whose stem is its name. The file holds one subclass of `Method`:

    class Nearest(Method):
        info = MethodInfo(role="baseline", family="interpolation", version="1")

        def forward(self, lr, size):
            return resize(lr, size, "nearest")

The harness does everything else: device, dtype, eval and inference mode, checks of shape, range and finiteness,
the return to the HR size, clamping, rounding, tiling, the classifier's normalisation, timing, seeds, files, progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from srbench.errors import ContractError

if TYPE_CHECKING:
    from srbench.protocol import Protocol
    from srbench.weights import NamedWeights, WeightsFile


@dataclass(frozen=True)
class MethodInfo:
    """What a method is, as data, so that nobody has to ask for its name.

    Attributes:
        role: "baseline" has nothing to train, "network" has weights, "control" is a row that keeps a comparison
            fair and is never ranked; "precomputed" is the harness's own, for images restored elsewhere.
        family: Free word for tables: "interpolation", "super-resolution", "resizer", ...
        version: Raise it when the method's output changes; cells of another version are computed anew.
        factor: Enlargement of the network (4), or "any" if `forward` returns the size it is asked for.
        channels: Channels of LR and SR.
        output: "hr" if SR stands at HR size (or at factor x LR), "lr" if LR is handed on as it is, "own" if the method
            chooses the size at which the network behind sees its images.
        citation: Paper, page or standard that defines the method.
    """

    role: Literal["baseline", "network", "control", "precomputed"]
    family: str
    version: str
    factor: int | Literal["any"] = "any"
    channels: int = 3
    output: Literal["hr", "lr", "own"] = "hr"
    citation: str = ""


@dataclass(frozen=True)
class TaskInfo:
    """What a method may know about the task when it says whether it applies.

    Attributes:
        name: Id of the task.
        protocol: The protocol in force.
        classifier: Id of the classifier, or None where only image metrics are taken.
        classifier_sha256: Hash of the classifier's weights.
        classifier_input_size: Side that the classifier insists on, pixels; None if it takes any size.
        channels: Channels of the data.
    """

    name: str
    protocol: Protocol
    classifier: str | None = None
    classifier_sha256: str | None = None
    classifier_input_size: int | None = None
    channels: int = 3


@dataclass(frozen=True)
class Batch:
    """What a training step receives.

    Attributes:
        lr: `(N, C, h, w)`, RGB, float32, [0, 1].
        hr: `(N, C, H, W)`, RGB, float32, [0, 1].
        label: What the data say of `hr`, as its task type has it: `(N,)` int64 indices of the classifier's outputs;
            for "iqa" `(N, 10)` float32, the distribution of the ratings; for masks and boxes what `TaskType.targets` of
            "segmentation" and "detection" returns. None for data that say nothing.
        teacher_logits: `(N, K)` float32, the frozen teacher's logits of `hr`, or None without a teacher.
        sr_size: (height, width) that SR must have.
        task_type: What the data ask of a network, a name of `srbench.task_types`.
        shown_size: (height, width) that SR is brought to before the classifier sees it, or None for `sr_size`.
        shown_hr: `hr` at `shown_size`, which is what the teacher saw, or None where that is `hr` itself.
        teacher_number: Which of the run's teachers this batch asks.
        logits_unit: What the squared difference of logits is divided by, so that teachers count alike.
        imitated: `(N, C, H, W)` at `sr_size`, RGB, float32, [0, 1]: what the method that the recipe imitates makes of
            `lr`, or None where it imitates none.
    """

    lr: Tensor
    hr: Tensor
    label: Tensor | None
    teacher_logits: Tensor | None
    sr_size: tuple[int, int]
    task_type: str = "classification"
    shown_size: tuple[int, int] | None = None
    shown_hr: Tensor | None = None
    teacher_number: int = 0
    logits_unit: float = 1.0
    imitated: Tensor | None = None


class Method(nn.Module):
    """Maps LR to SR.

    A subclass sets `info` and `forward`. What has weights sets `weights`; what can be trained sets `recipes` and
    `training_step`. Parameters of the constructor are the architecture; they are plain numbers, strings and booleans,
    all with defaults, and are stored beside the weights.
    """

    info: MethodInfo
    weights: ClassVar[Mapping[str, NamedWeights]] = {}
    recipes: ClassVar[Mapping[str, Any]] = {}
    recipe: Any = None  # the recipe in force, set by the training loop before the first step
    tiny: ClassVar[Mapping[str, Any]] = {}  # constructor arguments of the smallest sensible network, for conformance

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore a batch.

        Args:
            lr: `(N, C, h, w)`, RGB, float32, [0, 1]; must not be written to.
            size: Wanted (height, width) in pixels.

        Returns:
            SR, `(N, C, H, W)` of the same dtype: at `size` if `info.factor` is "any", at factor x (h, w) if it is a
            number, at (h, w) if `info.output` is "lr", at any size if it is "own". It may leave [0, 1]; the harness
            clamps.
        """
        raise TypeError(f"{type(self).__name__} has no forward(lr, size); a method must define it")

    def skip(self, task: TaskInfo) -> str | None:
        """Say in one clause why this method does not apply to a task, or return None if it does."""
        return None

    def prepare(self, protocol: Protocol) -> None:
        """Take from the protocol what the method's definition depends on such as MATLAB's border."""

    @classmethod
    def from_weights(cls, loaded: WeightsFile) -> Method:
        """Build the network that a weights file was made for and fill it.

        Raises:
            WeightsError: If the file's architecture is not this method's.
        """
        from srbench.weights import build, fill

        return fill(build(cls, loaded), loaded)

    def adapt(self, classifier: nn.Module) -> None:
        """Change the copy of the network behind that belongs to these weights in the `adapted` track.

        It is called on a fresh copy in both places: before training, when all parameters have gradients, and before
        the trained parameters are filled in. So a method may freeze parameters here, or change the architecture.

        Args:
            classifier: The copy, on [0, 1] images.

        Raises:
            UsageError: If the network behind cannot be adapted in this way.
        """

    def choose_parameters(self, input_sizes: Sequence[int], score: Callable[[], float]) -> Mapping[str, Any]:
        """Choose constructor arguments on the validation images, before training; they are stored beside the weights.

        Args:
            input_sizes: Shortest sides at which the network behind can see the images, rising; the last is HR's own.
            score: Returns what selects an epoch of the method as it is now, before the network behind as it is; lower
                is better.

        Returns:
            The arguments that differ from those of the constructor; the method itself has them too.
        """
        return {}

    def training_step(
        self, batch: Batch, teacher: nn.Module | None, classifier: nn.Module | None
    ) -> Mapping[str, Tensor]:
        """Return the loss terms of a batch by name, each a scalar; the recipe's weights sum them.

        Args:
            batch: LR, HR, labels and the teacher's logits.
            teacher: Frozen classifier on [0, 1] images, or None.
            classifier: The classifier that is trained along in the `adapted` track, or None.

        Raises:
            ContractError: If the method has recipes and does not say how it is trained.
        """
        raise ContractError(f"{type(self).__name__} has recipes but no training_step; define one, or leave recipes out")

    def helpers(self) -> Mapping[str, nn.Module]:
        """Return helper networks by name (a discriminator); the training loop steps and saves them."""
        return {}

    def helper_step(self, name: str, batch: Batch, sr: Tensor) -> Tensor:
        """Return the scalar loss of helper `name`; `sr` is detached, at HR size.

        Raises:
            ContractError: If the method has helpers and does not say how they are trained.
        """
        raise ContractError(
            f"{type(self).__name__} has a helper {name!r} but no helper_step; define one, or return no helpers"
        )
