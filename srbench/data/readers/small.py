"""Images that are small by nature: `small:`, one folder per class or none. They are LR as they are."""

from __future__ import annotations

from pathlib import Path

from srbench.data.dataset import DatasetInfo
from srbench.data.readers.files import FileSource, existing_folder, split_range
from srbench.data.readers.folders import open_folder, open_images
from srbench.data.scan import has_images, join_notes, list_folders
from srbench.errors import UsageError

SMALL = DatasetInfo(
    name="small",
    opener="open_small",
    description="your own images that were never large, class folders or none",
    argument="PATH",
    labels="classes or none",
    small=True,
)

NOTE = (
    "small by nature: every image is LR as it is, and nothing larger of it exists; so there is no original, no PSNR and"
    " no recovered gap"
)
_LABELS = "?labels="


def open_small(argument: str, split: str | None) -> FileSource:
    """Open images that were never large.

    Where two or more folders directly inside hold images, or folders named as splits hold class folders, the folders
    are the classes, as for `folder:`; otherwise, and with `?labels=none` behind the path, there are no labels.

    Raises:
        DataError: If there is no such folder, it holds no images, or its layout is none of `folder:`.
        UsageError: If the split does not exist, or must be chosen.
    """
    path, mark, labels = argument.rpartition(_LABELS)
    if mark and labels != "none":
        raise UsageError(f"--data small:{argument}: expected {_LABELS}none, got {mark}{labels}")
    path = path if mark else argument
    root = existing_folder(Path(split_range(path, f"small:{argument}")[0]), f"small:{argument}")
    holding = sum(has_images(root / folder) for folder in list_folders(root))
    labelled = not mark and holding > 1
    source = (open_folder if labelled else open_images)(path, split, kind="small")
    source.small = True
    source.note = join_notes(NOTE, source.note)
    if mark:
        source.spec += f"{_LABELS}none"
    return source
