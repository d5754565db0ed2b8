"""Describes a dataset before it is opened: one `DatasetInfo` each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srbench.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One kind of dataset: the row that its module states at top level, in literals alone.

    `srbench.data.catalogue` finds the rows of every module of `data/readers/` and `data/synthetic/` by reading the
    text, so that a list of datasets imports neither torch nor scikit-image.

    Attributes:
        name: Word of the SPEC, before the colon.
        opener: Name of the function in the same module that opens a split. It takes what stands behind the colon (left
            out where nothing does) and the name of the split, each of them or None.
        description: One line for `srbench list datasets` and docs/data.md.
        argument: What stands behind the colon: "" for nothing, "PATH" where it must, "[PATH]" where it may.
        splits: Names of its splits, the default first; () where each dataset has its own.
        labels: What the data say of an image: "classes", "ratings", "masks", "boxes", "none", or "classes or none".
        protocol: Name of the protocol that scores it where none is named.
        paired: Whether LR is part of the data.
        small: Whether the images are LR as they are, so that there is no HR.
        task_type: What a network is asked for, a name of `srbench.task_types`.
        own_classes: Whether "?classes=FILE" names the classes and is the opener's own; else it selects some of them.
    """

    name: str
    opener: str
    description: str
    argument: str = ""
    splits: tuple[str, ...] = ("all", "train", "val", "test")
    labels: str = "classes"
    protocol: str = "clean"
    paired: bool = False
    small: bool = False
    task_type: str = "classification"
    own_classes: bool = False

    @property
    def syntax(self) -> str:
        """How the SPEC is written: "demo", "folder:PATH" or "imagenet[:PATH]"."""
        if not self.argument:
            return self.name
        optional = self.argument.startswith("[")
        return f"{self.name}[:{self.argument[1:]}" if optional else f"{self.name}:{self.argument}"

    def choose_split(self, split: str | None, *, spec: str | None = None) -> str:
        """Return the split, or the default where it is None; messages name the dataset by `spec`.

        Raises:
            UsageError: If there is no split of that name.
        """
        chosen = split or self.splits[0]
        check_split(chosen, self.splits, spec=spec or self.name)
        return chosen


def check_split(split: str, options: Sequence[str], *, spec: str) -> None:
    """Refuse a split that is not among the options.

    Raises:
        UsageError: If it is not.
    """
    if split not in options:
        raise UsageError(f"--data {spec} has no split {split!r}; its splits are {', '.join(options)}")
