"""SR of a whole dataset as files: what `srbench eval --precomputed NAME=DIR` reads back as a row."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srbench.compute.devices import use_device
from srbench.compute.numerics import Numerics
from srbench.compute.progress import track
from srbench.data.catalogue import default_protocol, open_source
from srbench.data.hr_cache import HRStore, build_hr_store
from srbench.data.readers.files import without_suffix
from srbench.errors import UsageError
from srbench.evaluation.batches import BatchReader
from srbench.evaluation.counters import Counters
from srbench.evaluation.loaded_methods import LoadedMethod, load_method
from srbench.evaluation.one_method import choose_weights, weights_notes
from srbench.evaluation.options import PassSettings
from srbench.evaluation.restored import RestoredBatch
from srbench.files.atomic import check_out_dir, sweep_temporary, write_content, write_text
from srbench.files.paths import user_path
from srbench.imaging.degrade import round_8bit
from srbench.method import TaskInfo
from srbench.protocol import Protocol, load_protocol
from srbench.records.schema import hash_inputs
from srbench.registry import Registry
from srbench.restore import check_finite

_SMALL_FACTOR = 4
MADE = ".srbench-upscale"  # hidden, so that it is no image: what the images beside it were made by


@dataclass(frozen=True)
class DatasetResult:
    """What was written.

    Attributes:
        out: The folder.
        written: Images that this call made.
        there: Images that a stopped call had made in the same way.
        method: Name of the method.
        weights: Label of its weights, or None.
        suffix: ".png" for 8 bits, ".npy" for float32.
        restored: Whether the images are SR; those of a method that hands LR on as it is are LR.
        notes: What should be known beside that, one sentence each.
    """

    out: Path
    written: int
    there: int
    method: str
    weights: str | None
    suffix: str
    restored: bool = True
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return what was done in one sentence, and how it is used."""
        by = f"{self.method}, weights {self.weights}" if self.weights else self.method
        what = f"images restored by {by}" if self.restored else "images of LR"
        there = f"; {self.there} were there already" if self.there else ""
        folder, them = (self.out, "them") if self.restored else ("FOLDER", "what is made of them")
        use = f"`srbench eval --precomputed NAME={folder}` makes {them} a row"
        return f"wrote {self.written} {what} to {self.out}{there}; {use}"


def upscale_data(
    data: str,
    method: str,
    *,
    out: Path | str,
    split: str | None = None,
    protocol: str | None = None,
    scale: float | None = None,
    factor: float | None = None,
    weights: str | None = None,
    limit: int | None = None,
    device: str = "auto",
    seed: int = 0,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> DatasetResult:
    """Restore every image of a dataset as an evaluation does, and write SR under the ids of the samples.

    Where the protocol rounds SR to 8 bits, that is what the files hold, as PNG. Where it does not, 8 bits would change
    its figures: the files are .npy, `(H, W, 3)`, RGB, float32, as the method made them.

    Args:
        data: SPEC of the data.
        method: Registry name of the method; one that hands LR on as it is ("none") writes LR.
        out: The folder; it is new or empty, or holds what a stopped call of the same kind has written.
        split: Name of the split, or None for the dataset's own default.
        protocol: Name of a preset or a file; None is the dataset's own.
        scale: LR side / HR side; None keeps the protocol's own.
        factor: Enlargement of images that are small by nature, a whole number; None is 4. Others have their HR size.
        weights: Name or file of the method's weights; None takes those on this computer if only one set can be meant.
        limit: Take only so many images.
        device: "auto", "cpu" or "cuda".
        seed: Seed of the degradation's noise.
        plugins: Files of further methods.
        progress: Show progress bars on a terminal.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
        SrbenchError: If data cannot be read, or results cannot be written.
    """
    registry = Registry(plugins)
    cls = registry.get(method)
    where = use_device(device)
    source = open_source(data, split)
    conventions = load_protocol(protocol or default_protocol([data]))
    if source.factor is not None:
        conventions = conventions.of_pairs(source.factor)
    if source.small:
        conventions = conventions.of_small()
    if scale is not None:
        conventions = conventions.at_scale(scale)
    enlargement = _enlargement(factor, small=source.small)
    ref = choose_weights(method, cls, weights, None)
    loaded = load_method(method, cls, ref, conventions)
    assert loaded.method is not None
    if loaded.method.info.output == "own":
        raise UsageError(f"method {method!r} chooses the size of its images itself, so they cannot stand at SR size")
    task = TaskInfo(name=source.name, protocol=conventions, channels=source.channels)
    reason = loaded.method.skip(task)
    if reason is not None:
        raise UsageError(f"method {method!r} does not apply here: {reason}")
    loaded.method.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = user_path(out)
    check_out_dir(folder)
    sweep_temporary(folder)
    with track("decoding", min(limit or len(source.samples), len(source.samples)), show=progress) as advance:
        hr_store = build_hr_store(source, conventions.hr, limit=limit, advance=advance)
    suffix = _suffix(conventions, loaded)
    names = file_names([sample.id for sample in hr_store.samples], suffix)
    made = _made(loaded, conventions, hr_store, seed, enlargement)
    there = _claim(folder, names, made)
    numerics = Numerics.of(where, "fp32")
    settings = PassSettings(device=where, numerics=numerics, batch_size=None, seed=seed, channels=source.channels)
    missing = np.array([position for position, name in enumerate(names) if name not in there], dtype=np.int64)
    with (
        torch.inference_mode(),
        ThreadPoolExecutor(1) as thread,
        track("upscale", len(missing), show=progress) as advance,
    ):
        reader = BatchReader(hr_store, conventions, settings, Counters(), thread)
        for batch in reader.batches(missing, needs_lr=True) if len(missing) else ():
            height, width = (side * enlargement for side in batch.sr_size)
            sr, _ = RestoredBatch(loaded, batch, conventions, settings).at((height, width))
            check_finite(method, sr)
            if suffix == ".png":
                sr = round_8bit(sr)
            for position, image in zip(batch.positions.tolist(), sr.cpu(), strict=True):
                _write(folder / names[position], image)
                advance(1)
    notes = list(weights_notes(ref))
    if suffix == ".npy":
        notes.append(f"protocol {conventions.name} does not round to 8 bits, so the images are .npy of float32")
    if hr_store.unreadable:
        notes.append(f"{len(hr_store.unreadable)} images could not be read: {hr_store.unreadable[0][1]}")
    restored = loaded.cls.info.output != "lr"
    return DatasetResult(folder, len(missing), len(there), method, loaded.label, suffix, restored, tuple(notes))


def _enlargement(factor: float | None, *, small: bool) -> int:
    """Return how many times the size of a sample's SR its file is: 1 but for images that are small by nature.

    Raises:
        UsageError: If a factor is given where HR has the size, or is no whole number.
    """
    if not small:
        if factor is not None:
            raise UsageError(f"--factor {factor:g}: SR stands at HR size, which the data give; leave --factor out")
        return 1
    whole = _SMALL_FACTOR if factor is None else factor
    if whole != int(whole) or whole < 1:
        raise UsageError(f"--factor takes a whole number of at least 1 for images small by nature, got {factor:g}")
    return int(whole)


def file_names(ids: Sequence[str], suffix: str) -> list[str]:
    """Return the relative path of each sample's file: its id, with `suffix` in place of an image's own suffix.

    Ids that differ in that suffix alone keep it.
    """
    stems = [without_suffix(each) for each in ids]
    taken = Counter(stems)
    return [f"{stem if taken[stem] == 1 else each}{suffix}" for each, stem in zip(ids, stems, strict=True)]


def _suffix(protocol: Protocol, loaded: LoadedMethod) -> str:
    """Return the format that holds the images without changing a figure."""
    if loaded.cls.info.output == "lr":
        return ".png" if protocol.lr.eight_bit else ".npy"
    rounded = (protocol.sr.clamp, protocol.sr.round, protocol.score.clamp, protocol.score.round)
    return ".png" if all(rounded) else ".npy"


def _made(loaded: LoadedMethod, protocol: Protocol, hr_store: HRStore, seed: int, enlargement: int) -> str:
    """Return the hash of everything that the images depend on."""
    weights = loaded.weights
    return hash_inputs(
        {
            "method": loaded.name,
            "version": loaded.cls.info.version,
            "weights": weights.ref.sha256 if weights else None,
            "parameters": {key: repr(value) for key, value in weights.parameters.items()} if weights else {},
            "samples": hr_store.key,
            "protocol": protocol.fingerprint,
            "seed": seed,
            "enlargement": enlargement,
        }
    )


def _claim(folder: Path, names: Sequence[str], made: str) -> set[str]:
    """Return which images are there already, and mark the folder as this call's.

    Raises:
        UsageError: If it holds anything that was made otherwise.
    """
    mark = folder / MADE
    try:
        same = mark.read_text(encoding="utf-8").strip() == made
    except OSError:
        same = False
    if not same and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"--out {folder} holds files that this call did not make from these data in this way;"
            " choose another folder, or empty that one"
        )
    write_text(mark, f"{made}\n")
    return {name for name in names if (folder / name).is_file()}


def _write(path: Path, image: Tensor) -> None:
    """Write `(3, H, W)`, RGB, float32 as 8 bits where the suffix is .png, else as it is."""
    pixels = image.permute(1, 2, 0).contiguous()
    with io.BytesIO() as stream:
        if path.suffix == ".png":
            Image.fromarray(pixels.mul(255).round().to(torch.uint8).numpy()).save(stream, "PNG")
        else:
            np.save(stream, pixels.numpy(), allow_pickle=False)
        data = stream.getvalue()
    write_content(path, data)
