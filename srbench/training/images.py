"""The HR crops that a run reads, by position, whatever number of sources they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from typing import Protocol as TypingProtocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.hr_cache import build_hr_store
from srbench.data.source import Sample, Source, sample_list_sha256
from srbench.errors import DataError, UsageError
from srbench.protocol import Geometry
from srbench.task_types import OutputMap, TaskType, task_type
from srbench.training.splits import NeverEnlarged

Positions = NDArray[np.int64]


class LabelMap(TypingProtocol):
    """Maps class names to indices of a classifier's outputs."""

    def __call__(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Return one index for every class name, or raise DataError."""


class ImageSet:
    """The HR crops of one or several sources, read by position.

    Attributes:
        samples: Every sample, one source after the other.
        task_type: What the data ask of a network.
        labels: What the data say of whole images, first axis n: `(n,)` int64 indices of the classifier's outputs,
            `(n, 10)` ratings, or None.
        labelled: Whether the data say anything; masks and boxes are read with their images.
        why_unlabelled: Why they say nothing.
        shapes: `(n, 2)`, HR height and width in pixels.
        paired: Whether LR is real.
        channels: Channels of the data: 3, or 1 where all images are grey.
        stored_channels: `(n,)`, channels that each file stores: 1 for grey, 3 for colour.
        key: Hash of all that the pixels depend on.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        geometry: Geometry,
        *,
        label_map: LabelMap | None,
        limit: int | None = None,
        enlarge: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        """Decode what the cache does not hold yet.

        Args:
            sources: What to read.
            geometry: How an image becomes HR.
            label_map: From class names to the classifier's outputs, or None where labels are of no use.
            limit: Images of each source at most.
            enlarge: Whether images smaller than HR are enlarged, as they are for validation.
            advance: Called with the number of images newly done.

        Raises:
            UsageError: If real pairs and plain images are mixed, or task types.
        """
        wrapped = [source if enlarge else NeverEnlarged(source, geometry) for source in sources]
        self._stores = [
            build_hr_store(source, geometry if enlarge else Geometry(), limit=limit, advance=advance)
            for source in wrapped
        ]
        self._sources = tuple(sources)
        self.channels = max(source.channels for source in sources)
        self.samples: tuple[Sample, ...] = tuple(sample for store in self._stores for sample in store.samples)
        if not self.samples:
            raise UsageError(f"none of the images of {', '.join(s.spec for s in sources)} could be read; look at them")
        self._starts = np.cumsum([0, *(len(store) for store in self._stores)])
        self.shapes = np.concatenate([store.shapes for store in self._stores])
        self.stored_channels = np.concatenate([store.stored_channels for store in self._stores])
        paired = {store.lr_shapes is not None for store in self._stores}
        if len(paired) > 1:
            raise UsageError("real pairs and plain images cannot be trained on together; give one kind with --data")
        self.paired = paired.pop()
        self._lr_shapes = np.concatenate([s.lr_shapes for s in self._stores]) if self.paired else None  # type: ignore[misc]
        self.task_type = task_type_of(sources)
        self._outputs: list[OutputMap] = []  # of each source
        self.labels, self.why_unlabelled = self._labels(label_map)
        self.placed_targets = not self.why_unlabelled and self.labels is None
        self.key = hashlib.sha256("|".join(store.key for store in self._stores).encode()).hexdigest()

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.samples)

    def read(self, positions: Positions) -> tuple[Tensor, Tensor | None]:
        """Return HR `(N, 3, H, W)` and real LR `(N, 3, h, w)` or None, RGB, uint8; all of one shape."""
        parts = [self._locate(position) for position in positions]
        if len({store for store, _ in parts}) == 1:
            store = self._stores[parts[0][0]]
            local = [index for _, index in parts]
            return store.batch(local), store.lr_batch(local)
        pairs = [(self._stores[store].batch([index]), self._stores[store].lr_batch([index])) for store, index in parts]
        lr = None if not self.paired else torch.cat([lr for _, lr in pairs if lr is not None])
        return torch.cat([hr for hr, _ in pairs]), lr

    @property
    def labelled(self) -> bool:
        """Whether the data say anything."""
        return self.labels is not None or self.placed_targets

    def placed(self, positions: Positions) -> list[NDArray[Any]] | None:
        """Return what the data say about places in the images, of a form of `srbench.data.targets`; None for labels."""
        if not self.placed_targets:
            return None
        parts = [self._stores[store].targets([index]) for store, index in map(self._locate, positions)]
        return [each for part in parts if part is not None for each in part]

    def targets(self, positions: Positions, placed: Sequence[NDArray[Any]] | None = None) -> Any:
        """Return what the data say of images, as `TaskType.targets` has it; None where they say nothing.

        Args:
            positions: The images.
            placed: What is said about places in them, as they were cut; None takes the whole images.
        """
        if self.labels is not None:
            return self.labels[positions]
        if not self.placed_targets:
            return None
        each = self.placed(positions) if placed is None else placed
        assert each is not None
        by_source: list[Any] = [
            self.task_type.targets((self.samples[int(position)],), self._outputs[self._locate(position)[0]], [one])
            for position, one in zip(positions, each, strict=True)
        ]
        if isinstance(by_source[0], np.ndarray):
            return np.concatenate(by_source)
        return [one for part in by_source for one in part]

    def shape_groups(self, patch: int | None, shift: int) -> NDArray[np.int64]:
        """Return for every image the number of the shape class that its crops fall into, `(n,)`."""
        shapes = self.shapes.copy()
        if patch is not None:
            shapes = np.minimum(shapes, patch)
        elif shift:
            shapes = np.maximum(shapes - shift, 1)
        if self._lr_shapes is not None:
            shapes = np.concatenate([shapes, self.shapes // np.maximum(self._lr_shapes, 1)], axis=1)
        return np.unique(shapes, axis=0, return_inverse=True)[1].reshape(-1)

    def batches(self, size: int) -> list[Positions]:
        """Cut all positions into batches of at most `size` images of one shape, in a fixed order."""
        shapes = self.shapes if self._lr_shapes is None else np.concatenate([self.shapes, self._lr_shapes], axis=1)
        group = np.unique(shapes, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.arange(len(self), dtype=np.int64)
        return list(fill_batches(order, group, size))

    def factor(self, position: int) -> int:
        """Return HR side / LR side of a real pair."""
        assert self._lr_shapes is not None
        return int(self.shapes[position, 0] // self._lr_shapes[position, 0])

    def describe(self) -> list[dict[str, Any]]:
        """Say what was read, for the card: spec, split, number of images, hash of the list."""
        return [
            {
                "spec": source.spec,
                "split": source.split,
                "n": len(store),
                "samples_sha256": sample_list_sha256(store.samples),
                "unreadable": len(store.unreadable),
            }
            | ({"note": source.note} if source.note else {})
            for source, store in zip(self._sources, self._stores, strict=True)
        ]

    def _locate(self, position: int) -> tuple[int, int]:
        store = int(np.searchsorted(self._starts, position, side="right")) - 1
        return store, int(position - self._starts[store])

    def _labels(self, label_map: LabelMap | None) -> tuple[NDArray[Any] | None, str]:
        if label_map is None:
            return None, "there is no classifier whose outputs they could name"
        parts = []
        if len({source.has_targets for source in self._sources}) > 1:
            raise UsageError("data with masks or boxes and data without cannot be trained on together; give one kind")
        for source, store in zip(self._sources, self._stores, strict=True):
            try:
                outputs = None if source.classes is None else np.asarray(label_map(source.classes), dtype=np.int64)
            except DataError as error:
                return None, str(error)
            self._outputs.append(OutputMap(0, outputs))
            if source.has_targets:
                continue  # they are read with the images
            targets = self.task_type.targets(store.samples, OutputMap(0, outputs))
            if targets is None:
                return None, f"{source.spec} has none"
            parts.append(targets)
        return np.concatenate(parts) if parts else None, ""


def task_type_of(sources: Sequence[Source]) -> TaskType:
    """Return the one task type of these sources.

    Raises:
        UsageError: If they ask for different things.
    """
    names = sorted({source.task_type for source in sources})
    if len(names) > 1:
        raise UsageError(
            f"all data of a run ask one question of a network, got data of the kinds {' and '.join(names)}; train on"
            " one of them at a time"
        )
    return task_type(names[0])


def fill_batches(order: Positions, group: NDArray[np.int64], size: int) -> Iterator[Positions]:
    """Fill batches of one shape in the order given; those that stay incomplete come last."""
    if len(group) == 0 or (group == group[0]).all():
        for start in range(0, len(order), size):
            yield order[start : start + size]
        return
    open_batches: dict[int, list[int]] = {}
    for position in order.tolist():
        batch = open_batches.setdefault(int(group[position]), [])
        batch.append(position)
        if len(batch) == size:
            yield np.array(open_batches.pop(int(group[position])), dtype=np.int64)
    for batch in open_batches.values():
        yield np.array(batch, dtype=np.int64)
