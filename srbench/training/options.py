"""The options of a training run, for methods and for networks alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.protocol import Protocol
from srbench.registry import listed
from srbench.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a caller may say about a training run, beside the name of what is trained.

    Attributes:
        data: SPECs of the data to train on, or one.
        val: SPEC of the validation data; None holds a part of `data` out, "test" takes its test split.
        protocol: A protocol, its name or file; None is the dataset's own.
        scale: LR side / HR side, instead of the protocol's.
        recipe: A recipe, the name of one, or a TOML file; None takes the one for the data and the device.
        overrides: "key=value" settings of the recipe, or one.
        epochs: Number of epochs, instead of the recipe's.
        out: Folder of the run; None is out/train/ and the name of what is trained.
        name: Name of the weights; None is made of the recipe and the classifier, or of the architecture and the data.
        init_from: Weights to start from, a name or a file, instead of the recipe's; for a method "namespace:name" takes
            another method's.
        licence: Licence of the weights, for their card; None is that of `init_from`, where it is known.
        resume: Go on from the checkpoint in `out`.
        force: Start over where `out` holds a checkpoint.
        device: "auto", "cpu" or "cuda".
        precision: "auto" (bf16 on a GPU that has it, else fp32), "fp32", "tf32" or "bf16".
        seed: Seed of everything that is drawn.
        limit: Images of each source at most.
        progress: Show progress bars on a terminal.
        command: Command line, for the card.
    """

    data: Sequence[str]
    val: str | None = None
    protocol: str | Protocol | None = None
    scale: float | None = None
    recipe: str | Recipe | None = None
    overrides: Sequence[str] = ()
    epochs: int | None = None
    out: Path | str | None = None
    name: str | None = None
    init_from: str | None = None
    licence: str | None = None
    resume: bool = False
    force: bool = False
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0
    limit: int | None = None
    progress: bool = True
    command: str = ""

    def __post_init__(self) -> None:
        """Make lists of what may be given as one string."""
        for name in ("data", "overrides"):
            object.__setattr__(self, name, listed(getattr(self, name)))
