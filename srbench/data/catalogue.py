"""Open a dataset by its SPEC, and list what can be opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.data.source import Source
from srbench.data.subset import select_classes, split_spec
from srbench.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class DatasetInfo:
    """One kind of dataset.

    Attributes:
        name: Word before the colon.
        description: One line.
        syntax: How its SPEC is written.
        protocol: The protocol that it is scored by where none is named.
        paired: Whether LR is part of the data.
        kind: What a network is asked for; see `srbench.task_types`.
    """

    name: str
    description: str
    syntax: str
    protocol: str = "clean"
    paired: bool = False
    kind: str = "classification"


_PROTOCOLS = {"demo": "demo", "iqa": "iqa", "lens": "lens", "tiny-imagenet": "native"}  # of those that bring their own
_PAIRED = frozenset({"pairs", "lens-pairs"})
_KINDS = {"ava": "iqa", "iqa": "iqa"}


@dataclass(frozen=True)
class _Entry:
    info: DatasetInfo
    open: Callable[[str | None, str | None], Source]
    argument: str  # "never", "optional" or "required"


def list_datasets() -> tuple[DatasetInfo, ...]:
    """Return every kind of dataset, in the order of the guide."""
    return tuple(entry.info for entry in _entries().values())


def open_source(spec: str, split: str | None = None) -> Source:
    """Open a dataset split.

    Args:
        spec: Such as "demo", "folder:photos", "imagenette" or "pairs:LR_DIR,HR_DIR"; see `list_datasets`. With
            "?classes=a,b" or "?classes=FILE" behind it only those classes are opened.
        split: Name of the split, or None for the dataset's own default.

    Raises:
        UnknownNameError: If there is no such kind of dataset.
        UsageError: If the SPEC lacks its path, or there is no split of that name.
        DataError: If the data are missing, empty or laid out otherwise.
    """
    whole, classes = split_spec(spec)
    if classes is not None:
        return select_classes(open_source(whole, split), classes, spec=spec)
    entries = _entries()
    name, colon, rest = spec.partition(":")
    if name not in entries:
        if Path(spec).expanduser().exists():
            raise UsageError(
                f"--data {spec} is a path; say how to read it: folder:{spec} (one folder per class)"
                f" or images:{spec} (without labels)"
            )
        raise UnknownNameError("dataset", name, entries)
    entry = entries[name]
    argument = rest if colon else None
    if argument == "" or (argument is None and entry.argument == "required"):
        raise UsageError(f"--data {spec} lacks its path; expected {entry.info.syntax}")
    if argument is not None and entry.argument == "never":
        raise UsageError(f"--data {spec}: {name} takes no path; expected {entry.info.syntax}")
    return entry.open(argument, split)


def default_protocol(specs: Sequence[str]) -> str:
    """Return the name of the protocol for datasets of these SPECs where none is named; several must agree on theirs."""
    entries = _entries()
    own = {entries[name].info.protocol for spec in specs if (name := _kind(spec)) in entries}
    return own.pop() if len(own) == 1 else "clean"


def is_paired(spec: str) -> bool:
    """Say whether LR is part of a dataset, so that none is made of HR."""
    entry = _entries().get(_kind(spec))
    return entry is not None and entry.info.paired


def default_task_type(specs: Sequence[str]) -> str:
    """Return what a network is asked for on datasets of these SPECs, the usual where they differ."""
    entries = _entries()
    own = {entries[name].info.kind for spec in specs if (name := _kind(spec)) in entries}
    return own.pop() if len(own) == 1 else "classification"


def _kind(spec: str) -> str:
    return split_spec(spec)[0].partition(":")[0]


def _entries() -> dict[str, _Entry]:
    known = (
        ("demo", "demo", "never", _demo, "patches of scikit-image's photographs; ships with srbench"),
        ("folder", "folder:PATH", "required", _folder, "your own images, one folder per class"),
        ("images", "images:PATH", "required", _images, "your own images without labels, at any depth"),
        (
            "imagenet",
            "imagenet[:PATH]",
            "optional",
            _imagenet("imagenet"),
            "ImageNet, train/<wnid> and val/<wnid>",
        ),
        (
            "imagenette",
            "imagenette[:PATH]",
            "optional",
            _imagenet("imagenette"),
            "ten easy ImageNet classes (fastai)",
        ),
        (
            "imagewoof",
            "imagewoof[:PATH]",
            "optional",
            _imagenet("imagewoof"),
            "ten dog breeds of ImageNet (fastai)",
        ),
        (
            "tiny-imagenet",
            "tiny-imagenet[:PATH]",
            "optional",
            _tiny_imagenet,
            "200 ImageNet classes at 64 x 64",
        ),
        ("pairs", "pairs:LR_DIR,HR_DIR", "required", _pairs, "real LR-HR pairs, images or .npy, named alike"),
        ("lens", "lens", "never", _lens, "simulated gravitational lenses, three classes, one channel, 64 x 64"),
        (
            "lens-pairs",
            "lens-pairs[:FACTOR]",
            "optional",
            _lens_pairs,
            "the same kind of lens seen by two telescopes, x2 or x4",
        ),
        ("iqa", "iqa", "never", _iqa, "scikit-image's photographs, blurred, noisy, as JPEG; histograms of ratings"),
        (
            "ava",
            "ava:PATH",
            "required",
            _ava,
            "images with ratings from 1 to 10: AVA.txt, or a CSV, beside them",
        ),
        ("hf", "hf:REPO", "required", _hub, "a dataset of the Hugging Face hub (extra: hub)"),
    )
    return {
        name: _Entry(
            DatasetInfo(
                name,
                description,
                syntax,
                protocol=_PROTOCOLS.get(name, "clean"),
                paired=name in _PAIRED,
                kind=_KINDS.get(name, "classification"),
            ),
            opener,
            argument,
        )
        for name, syntax, argument, opener, description in known
    }


def _demo(argument: str | None, split: str | None) -> Source:
    from srbench.data.synthetic.demo import open_demo  # builds on scikit-image, which takes long to import

    return open_demo(split)


def _folder(argument: str | None, split: str | None) -> Source:
    from srbench.data.readers.folders import open_folder

    return open_folder(argument or "", split)


def _images(argument: str | None, split: str | None) -> Source:
    from srbench.data.readers.folders import open_images

    return open_images(argument or "", split)


def _imagenet(dataset: str) -> Callable[[str | None, str | None], Source]:
    def opener(argument: str | None, split: str | None) -> Source:
        from srbench.data.readers.imagenet import open_imagenet

        return open_imagenet(dataset, argument, split)

    return opener


def _tiny_imagenet(argument: str | None, split: str | None) -> Source:
    from srbench.data.readers.imagenet import open_tiny_imagenet

    return open_tiny_imagenet(argument, split)


def _pairs(argument: str | None, split: str | None) -> Source:
    from srbench.data.readers.pairs import open_pairs

    return open_pairs(argument or "", split)


def _lens(argument: str | None, split: str | None) -> Source:
    from srbench.data.synthetic.lens import open_lens

    return open_lens(split)


def _lens_pairs(argument: str | None, split: str | None) -> Source:
    from srbench.data.synthetic.lens import open_lens_pairs

    return open_lens_pairs(argument, split)


def _iqa(argument: str | None, split: str | None) -> Source:
    from srbench.data.synthetic.iqa import open_iqa

    return open_iqa(split)


def _ava(argument: str | None, split: str | None) -> Source:
    from srbench.data.readers.ava import open_ava

    return open_ava(argument or "", split)


def _hub(argument: str | None, split: str | None) -> Source:
    from srbench.data.readers.hub import open_hub

    return open_hub(argument or "", split)
