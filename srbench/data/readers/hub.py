"""Datasets of the Hugging Face hub, through the extra `hub`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srbench.data.dataset import DatasetInfo
from srbench.data.source import Sample, StoredSource
from srbench.errors import DataError, UnreadableImageError, UsageError
from srbench.imaging.decode import StoredImage, decode_stored_bytes

HUB = DatasetInfo(
    name="hf",
    opener="open_hub",
    description="a dataset of the Hugging Face hub (extra: hub)",
    argument="REPO",
    splits=(),
    labels="classes or none",
)

_ALIASES = {"val": ("val", "validation", "valid", "dev"), "all": ()}
_PREFERRED = ("validation", "val", "test")


class HubSource(StoredSource):
    """A split of a hub dataset; ids are positions in it, which its fingerprint fixes."""

    def __init__(self, rows: Any, *, image: str, label: str | None, name: str, spec: str, split: str) -> None:
        """Read the labels, but no pixels.

        Args:
            rows: A `datasets.Dataset` whose image column is not decoded: dicts of bytes and path.
            image: Name of the image column.
            label: Name of the label column, or None.
            name: Short name for task ids.
            spec: The SPEC that opens it again.
            split: Name of the split.
        """
        self.name, self.spec, self.split = name, spec, split
        self._rows, self._image = rows, image
        labels = [None] * len(rows) if label is None else [int(each) for each in rows[label]]
        self.classes = None if label is None else tuple(rows.features[label].names)
        self.samples = tuple(Sample(f"{index:08d}", each) for index, each in enumerate(labels))
        self._stamp = int(str(rows._fingerprint)[:12] or "0", 16)

    def read_stored(self, index: int) -> StoredImage:
        """Decode sample `index` and say how many channels its file stores.

        Raises:
            UnreadableImageError: If it cannot be decoded.
        """
        name = self.samples[index].id
        cell = self._rows[index][self._image]
        if cell.get("bytes") is not None:
            return decode_stored_bytes(cell["bytes"], name)
        try:
            data = Path(cell["path"]).read_bytes()
        except OSError as error:
            raise UnreadableImageError(f"{name} cannot be read: {error.strerror or error}") from error
        return decode_stored_bytes(data, name)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return (position, fingerprint of the dataset), on which its pixels depend alone."""
        return [(index, self._stamp) for index in indices]


def open_hub(repo: str, split: str | None) -> HubSource:
    """Open `hf:REPO`; the split is the validation or test split where None.

    Raises:
        UsageError: If the extra is not installed, or there is no split of that name.
        DataError: If the repository cannot be loaded, or has no image column.
    """
    spec = f"hf:{repo}"
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise UsageError(
            f"--data {spec} needs the package datasets; install it with pip install 'srbench-resizing[hub]'"
        ) from None
    try:
        options = list(datasets.get_dataset_split_names(repo))
        chosen = _choose(split, options, spec)
        rows = datasets.load_dataset(repo, split=chosen)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(f"--data {spec} cannot be loaded: {error}") from error
    images = [column for column, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    labels = [column for column, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    if not images:
        raise DataError(f"--data {spec} has no image column; its columns are {', '.join(rows.features)}")
    rows = rows.cast_column(images[0], datasets.Image(decode=False))
    name = repo.rstrip("/").rsplit("/", 1)[-1]
    stored = f"hf:{name}" if Path(repo).exists() else spec
    label = labels[0] if len(labels) == 1 or "label" not in labels else "label"
    return HubSource(rows, image=images[0], label=label if labels else None, name=name, spec=stored, split=chosen)


def _choose(split: str | None, options: list[str], spec: str) -> str:
    if split is None:
        preferred = [each for each in _PREFERRED if each in options]
        if not preferred and len(options) != 1:
            raise UsageError(f"--data {spec} has the splits {', '.join(options)}; choose one with --split")
        return preferred[0] if preferred else options[0]
    for name in (split, *_ALIASES.get(split, ())):
        if name in options:
            return name
    raise UsageError(f"--data {spec} has no split {split!r}; its splits are {', '.join(options)}")
