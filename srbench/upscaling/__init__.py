"""`srbench upscale`: enlarge pictures of any size with any method, tile by tile where they are large."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from srbench import __version__
from srbench.compute.devices import use_device
from srbench.compute.numerics import Numerics
from srbench.data.readers.files import list_images
from srbench.errors import ContractError, RecordError, SrbenchError, UsageError
from srbench.evaluation.loaded_methods import LoadedMethod, load_contender, needs_weights
from srbench.evaluation.scoring import sentence
from srbench.files.atomic import check_out_dir, write_bytes
from srbench.imaging.pictures import (
    WRITABLE,
    Picture,
    Pixels,
    check_target,
    encode,
    made_by,
    read_picture,
    size_of,
    without_fringe,
)
from srbench.imaging.resample import resize
from srbench.imaging.tiles import MARGIN, Restore, canvas, enlarged_side, spans, tiled
from srbench.method import Method, TaskInfo
from srbench.networks.classifiers import Classifier, imagenet_wnids, load_classifier
from srbench.progress import track
from srbench.protocol import Protocol, load_protocol
from srbench.registry import Registry
from srbench.restore import check_finite, restore
from srbench.weights import WeightsRef, file_sha256, find, local, names

if TYPE_CHECKING:
    from rich.table import Table

TOP = 5
_PROTOCOL = "clean"
_KERNEL_MARGIN = 4  # LR pixels that a cubic kernel needs around a tile


@dataclass(frozen=True)
class Guess:
    """One class that a classifier names, with its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Upscaled:
    """One picture that was enlarged.

    Attributes:
        source: The file it was read from.
        target: The file it was written to.
        name: What tables and messages call it.
        lr_size: (height, width) of the source, upright.
        sr_size: (height, width) of the result.
        before: What the classifier takes the source for, the likeliest first; () without a classifier.
        after: What it takes the result for.
        notes: What became of the picture beside being enlarged, one sentence each.
        written: False where the result was there already, made in the same way from the same file.
    """

    source: Path
    target: Path
    name: str
    lr_size: tuple[int, int]
    sr_size: tuple[int, int]
    before: tuple[Guess, ...] = ()
    after: tuple[Guess, ...] = ()
    notes: tuple[str, ...] = ()
    written: bool = True


@dataclass(frozen=True)
class UpscaleResult:
    """What a call of `upscale` did.

    Attributes:
        images: The pictures, in the order of the call.
        problems: A sentence for each picture that was left out, or that the classifier could not be asked about.
        method: Name of the method.
        weights: Label of its weights, or None.
        factor: Enlargement.
        classifier: Id of the classifier, or None.
        notes: What should be known about the call beside that, one sentence each.
    """

    images: tuple[Upscaled, ...]
    problems: tuple[str, ...]
    method: str
    weights: str | None
    factor: float
    classifier: str | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return what was done in one sentence."""
        written = [image for image in self.images if image.written]
        by = f"by {self.method}, weights {self.weights}" if self.weights else f"by {self.method}"
        text = f"enlarged {len(written)} images x{self.factor:g} {by}"
        if len(written) == 1:
            (one,) = written
            (height, width), (tall, wide) = one.lr_size, one.sr_size
            text = f"enlarged {one.name} from {width} x {height} to {wide} x {tall} pixels {by}: {one.target}"
        there = len(self.images) - len(written)
        parts = [text, f"{there} were there already"] if there else [text]
        asked = [image for image in self.images if image.before]
        if len(asked) > 1:
            changed = sum(image.before[0].name != image.after[0].name for image in asked)
            parts.append(f"{self.classifier} decides otherwise than before on {changed} of {len(asked)}")
        return "; ".join(parts)


def upscale(
    images: Sequence[Path | str],
    method: str,
    *,
    out: Path | str,
    factor: float = 4.0,
    tile: int | None = None,
    weights: str | None = None,
    classifier: str | None = None,
    device: str = "auto",
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> UpscaleResult:
    """Enlarge pictures, and folders of them at any depth.

    Args:
        images: Files and folders.
        method: Registry name of the method.
        out: A file for a single picture, else a folder, in which folders are mirrored.
        factor: Enlargement of both sides, any number above 0; a network's own is brought to it by resampling.
        tile: Side of a tile in LR pixels, for pictures that do not fit into memory; None restores them whole. A tile
            sees `MARGIN` more LR pixels on every side (`MARGIN / factor` where the factor is below 1).
        weights: Name or file of the method's weights; None takes those on this computer if only one set can be meant.
        classifier: SPEC of a classifier that is asked before and after.
        device: "auto", "cpu" or "cuda".
        plugins: Files of further methods.
        progress: Show a progress bar on a terminal.

    Returns:
        What was done with every picture. Pictures that cannot be read are among its problems.

    Raises:
        UsageError: If the call is wrong; nothing has been written then.
        SrbenchError: If a result cannot be written, or the only picture of a call with a file as `out` fails.
    """
    registry = Registry(plugins)
    cls = registry.get(method)
    _check_numbers(factor, tile)
    where = use_device(device)
    jobs, alone = _jobs(images, out)
    judge = load_classifier(classifier) if classifier is not None else None
    ref = _weights(method, cls, weights, judge)
    engine = _Engine(load_contender(method, cls, ref, _protocol(factor)), _protocol(factor), factor, tile, where)
    asked = _asked(engine, judge)
    if not alone:
        _refuse_foreign(jobs, engine)
    done: list[Upscaled] = []
    problems: list[str] = []
    counts = [_count(job.source, factor, tile) for job in jobs]
    unit = "images" if tile is None else "tiles"
    with torch.inference_mode(), track("upscale", sum(counts), show=progress, unit=unit) as advance:
        for job, count in zip(jobs, counts, strict=True):
            meter = _Meter(advance, count)
            try:
                image, lr, sr = _enlarge(job, engine, asked, meter, again=alone)
            except RecordError:
                raise  # the disk, not the picture
            except SrbenchError as error:
                if alone:
                    raise
                problems.append(str(error))
            else:
                try:
                    if asked is not None and lr is not None and sr is not None:
                        before, after = asked.both(lr, sr)
                        image = dataclasses.replace(image, before=before, after=after)
                except SrbenchError as error:
                    problems.append(f"{job.name}: {error}")
                done.append(image)
            meter.finish()
    return UpscaleResult(
        images=tuple(done),
        problems=tuple(problems),
        method=method,
        weights=engine.contender.label,
        factor=factor,
        classifier=judge.id if judge is not None else None,
        notes=_notes(ref),
    )


def render(result: UpscaleResult) -> list[Table]:
    """Return a table for each picture that a classifier was asked about: its likeliest classes before and after."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    tables = []
    for image in result.images:
        if not image.before:
            continue
        table = Table(box=box.SIMPLE_HEAD, title=Text(f"{image.name}: {result.classifier}"), title_justify="left")
        table.add_column("#", justify="right")
        for when in ("before", "after"):
            table.add_column(when, overflow="fold")
            table.add_column("probability", justify="right")
        for place, (before, after) in enumerate(zip(image.before, image.after, strict=True), 1):
            row = (str(place), before.name, f"{before.probability:.3f}", after.name, f"{after.probability:.3f}")
            table.add_row(*map(Text, row))
        tables.append(table)
    return tables


# --- the call ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A picture to be enlarged: where it is, where it goes, and what messages call it."""

    source: Path
    target: Path
    name: str


def _check_numbers(factor: float, tile: int | None) -> None:
    if not (math.isfinite(factor) and factor > 0):
        raise UsageError(f"--factor takes a number above 0, such as 4 or 2.5, got {factor:g}")
    if tile is not None and tile < 1:
        raise UsageError(
            f"--tile takes a side in LR pixels of at least 1, such as 128, got {tile}; leave it out for none"
        )


def _protocol(factor: float) -> Protocol:
    """Return the protocol whose return to size and rounding hold here; a method may ask it for its scale."""
    protocol = load_protocol(_PROTOCOL)
    return protocol.at_scale(1 / factor) if factor >= 1 else protocol


def _jobs(images: Sequence[Path | str], out: Path | str) -> tuple[list[_Job], bool]:
    """Pair every picture with its target; say too whether it is one picture whose target is named itself."""
    given = list(dict.fromkeys(Path(image).expanduser() for image in images))
    if not given:
        raise UsageError("no image was named; give files, or folders of them")
    for path in given:
        if not path.exists():
            raise UsageError(f"there is no image or folder {path}; check the path")
    target = Path(out).expanduser()
    folder = str(out).endswith(("/", os.sep)) or target.is_dir() or not target.suffix
    alone = len(given) == 1 and not given[0].is_dir() and not folder
    if alone and target.suffix.lower() not in WRITABLE:
        raise UsageError(
            f"--out {out}: images are written as {', '.join(WRITABLE)}, not {target.suffix};"
            " for a folder of that name end it in /"
        )
    if not folder and not alone and target.suffix.lower() in WRITABLE:
        raise UsageError(f"--out {out} is the name of one image, but several may be written; give a folder")
    check_out_dir(target.parent if alone else target)
    if alone:
        jobs = [_Job(given[0], target, given[0].name)]
    else:
        jobs = [job for path in given for job in _jobs_of(path, target)]
    _refuse_losses(jobs)
    return jobs, alone


def _jobs_of(path: Path, out: Path) -> list[_Job]:
    if not path.is_dir():
        return [_Job(path, out / _file_name(path), path.name)]
    if not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"the folder {path} cannot be read; check its permissions")
    if out.resolve().is_relative_to(path.resolve()):
        raise UsageError(
            f"--out {out} lies inside the folder {path}, so that a second call would enlarge the results too;"
            " choose another place with --out DIR"
        )
    files = [Path(file) for file in list_images(path)]
    if not files:
        raise UsageError(f"the folder {path} holds no images; give files, or a folder that does")
    return [_Job(path / file, out / file.parent / _file_name(file), str(file)) for file in files]


def _file_name(path: Path) -> str:
    """Return the name of a result in a folder: the source's own where its format can be written, else as PNG."""
    return path.name if path.suffix.lower() in WRITABLE else f"{path.stem}.png"


def _refuse_losses(jobs: Sequence[_Job]) -> None:
    """Refuse to write over an input, two results to one place, or a file where a folder is."""
    inputs = {_identity(job.source) for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target.exists() and _identity(job.target) in inputs:
            raise UsageError(f"{job.target} is an input and would be written over; choose another place with --out")
        if job.target.is_dir():
            raise UsageError(f"{job.target} is a folder, but {job.name} would be written there; choose another --out")
        place = job.target.resolve()
        if place in taken:
            raise UsageError(f"{taken[place]} and {job.source} would both become {job.target}; use two calls")
        taken[place] = job.source


def _identity(path: Path) -> tuple[int, int] | Path:
    """Return what two names of one file share."""
    try:
        status = path.stat()
    except OSError:
        return path.resolve()
    return status.st_dev, status.st_ino


def _refuse_foreign(jobs: Sequence[_Job], engine: _Engine) -> None:
    for job in jobs:
        if job.target.exists() and not _is_made(job, engine):
            raise UsageError(
                f"{job.target} exists already and was not made by this call from {job.source};"
                " choose another folder with --out, or name that file itself to write over it"
            )


def _is_made(job: _Job, engine: _Engine) -> bool:
    try:
        return made_by(job.target) == engine.made(file_sha256(job.source))
    except OSError:
        return False


def _count(source: Path, factor: float, tile: int | None) -> int:
    """Return how many steps the progress bar takes for a file."""
    size = size_of(source) if tile is not None else None
    if size is None:
        return 1
    return math.prod(len(spans(side, target, tile, MARGIN)) for side, target in canvas(size, factor))


class _Meter:
    """Counts the steps of one picture, never more than were announced, and makes up for those that did not come."""

    def __init__(self, advance: Callable[[int], None], total: int) -> None:
        self._advance, self._left = advance, total

    def tick(self) -> None:
        if self._left:
            self._left -= 1
            self._advance(1)

    def finish(self) -> None:
        self._advance(self._left)


# --- the method ----------------------------------------------------------------------------------------------------


def _weights(name: str, cls: type[Method], spec: str | None, judge: Classifier | None) -> WeightsRef | None:
    if not needs_weights(name, cls):
        if spec is not None:
            raise UsageError(f"method {name!r} takes no weights, so --weights {spec} cannot apply")
        return None
    if spec is not None:
        return find(name, spec.removeprefix(f"{name}="), cls.weights)  # METHOD=NAME, as for `srbench eval`, does too
    candidates = _candidates(name, cls, judge)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        labels = ", ".join(ref.label for ref in candidates)
        raise UsageError(f"method {name!r} has several sets of weights here: {labels}; choose one with --weights NAME")
    known = names(name, cls.weights)
    choice = f"one of {', '.join(known)}" if known else "a file"
    raise UsageError(f"method {name!r} needs weights and has none here that fit; give --weights NAME|FILE, {choice}")


def _candidates(name: str, cls: type[Method], judge: Classifier | None) -> list[WeightsRef]:
    """Return the weights on this computer that may be meant where none are named.

    Frozen before adapted, the user's before those that are offered for a task of their own only (the demo's), and what
    others were started from is none.
    """
    found = local(name, cls.weights)
    frozen = [ref for ref in found if ref.card is None or ref.card.track != "adapted"]
    adapted = [
        ref
        for ref in found
        if ref.card is not None
        and ref.card.track == "adapted"
        and (judge is None or (ref.card.teacher or {}).get("sha256") in (None, judge.info.weights_sha256))
    ]
    fitting = frozen or adapted
    fitting = [ref for ref in fitting if ref.card is None or not ref.card.tasks] or fitting
    starts = {str(ref.card.recipe.get("init")).removeprefix(f"{name}:") for ref in fitting if ref.card is not None}
    return [ref for ref in fitting if ref.label not in starts] or fitting


def _notes(ref: WeightsRef | None) -> tuple[str, ...]:
    if ref is None or ref.card is None or not ref.card.tasks:
        return ()
    return (f"weights {ref.label} were trained for {', '.join(ref.card.tasks)} alone; others are given with --weights",)


@dataclass(frozen=True)
class _Engine:
    """A method as it is used here."""

    contender: LoadedMethod
    protocol: Protocol
    factor: float
    tile: int | None
    device: torch.device

    def __post_init__(self) -> None:
        self.method.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def method(self) -> Method:
        assert self.contender.method is not None  # it is loaded, or there was an error
        return self.contender.method

    def made(self, sha256: str) -> str:
        """Return how a result comes from a file of that hash; tiles are no part of it."""
        ref = self.contender.weights.ref if self.contender.weights is not None else None
        return (
            (
                f"srbench {__version__}: {self.contender.name} {self.method.info.version},"
                f" weights {ref.sha256[:12] if ref else 'none'}, x{self.factor!r}, of {sha256[:16]}"
            )
            .encode("ascii", "replace")
            .decode()
        )

    def restore(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Restore `(1, C, h, w)`, RGB or grey, float32, [0, 1], to `(1, C, *size)`."""
        info, name, grey = self.method.info, self.contender.name, lr.shape[1] == 1
        if info.channels == 1 and not grey:
            raise ContractError(f"method {name!r} takes grey images alone; turn this one grey or take another method")
        try:
            sr = restore(
                self.method,
                lr.clone(),
                size,
                restoration=self.protocol.sr,
                numerics=Numerics.of(self.device, "fp32"),
                channels=lr.shape[1],
                name=name,
            )
        except ContractError:
            raise
        except Exception as error:
            # whatever a method does wrong is said with the picture's name; the other pictures go on
            raise ContractError(_failure(name, lr, error)) from error
        check_finite(name, sr)
        return sr

    def alpha(self, alpha: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample `(1, 1, h, w)`, [0, 1], by bicubic with antialias, whatever the method is."""
        return resize(alpha, size, "bicubic")

    def enlarge(self, picture: Picture, tick: Callable[[], None]) -> Picture:
        """Return the picture at its new size."""
        height, width = picture.pixels.shape[:2]
        size = (enlarged_side(height, self.factor), enlarged_side(width, self.factor))
        (tall, target_tall), (wide, target_wide) = canvas((height, width), self.factor)

        def whole(pixels: Pixels, restore: Restore, device: torch.device, tick: Callable[[], None] | None) -> Pixels:
            extended = np.pad(pixels, ((0, tall - height), (0, wide - width), (0, 0)), mode="edge")
            result = tiled(extended, (target_tall, target_wide), restore, tile=self.tile, device=device, tick=tick)
            return np.ascontiguousarray(result[: size[0], : size[1]])

        pixels, alpha = whole(_colour(picture), self.restore, self.device, tick), None
        if picture.alpha is not None:
            alpha = whole(picture.alpha[..., None], self.alpha, torch.device("cpu"), None)[..., 0]
        return dataclasses.replace(picture, pixels=pixels, alpha=alpha)


def _failure(name: str, lr: Tensor, error: Exception) -> str:
    height, width = lr.shape[-2:]
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate" in text or "enough memory" in text:
        tile = max(16, min(height, width) // 4)
        return f"{width} x {height} pixels at once are too many for the memory; try --tile {tile}"
    return f"method {name!r} fails on {width} x {height} pixels: {sentence(error)}"


def _colour(picture: Picture) -> Pixels:
    """Return `(H, W, C)` uint8 as the method and the classifier see it."""
    return picture.pixels if picture.alpha is None else without_fringe(picture.pixels, picture.alpha)


def _enlarge(
    job: _Job, engine: _Engine, asked: _Asked | None, meter: _Meter, *, again: bool
) -> tuple[Upscaled, Pixels | None, Pixels | None]:
    """Enlarge one picture; return what was done, and the colours before and after."""
    if not again and job.target.exists() and _is_made(job, engine):
        lr, sr = (_colour(read_picture(path, job.name)) for path in (job.source, job.target)) if asked else (None, None)
        before, after = (size_of(path) or (0, 0) for path in (job.source, job.target))
        return Upscaled(job.source, job.target, job.name, before, after, written=False), lr, sr
    picture = read_picture(job.source, job.name)
    height, width = picture.pixels.shape[:2]
    size = (enlarged_side(height, engine.factor), enlarged_side(width, engine.factor))
    suffix = job.target.suffix.lower()
    check_target(suffix, size, job.name, opaque=picture.opaque)
    try:
        enlarged = engine.enlarge(picture, meter.tick)
        data = encode(enlarged, suffix, made=engine.made(picture.sha256))
    except MemoryError:
        raise SrbenchError(f"{job.name} would become {size[1]} x {size[0]} pixels, for which memory is short") from None
    except SrbenchError as error:
        raise type(error)(f"{job.name}: {error}") from error

    def write(stream: BinaryIO) -> None:
        stream.write(data)

    write_bytes(job.target, write)
    notes = tuple(f"{job.name} {note}" for note in picture.notes)
    image = Upscaled(job.source, job.target, job.name, (height, width), size, notes=notes)
    return image, _colour(picture), enlarged.pixels


# --- the classifier ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A classifier, the network that is asked about results (another one with adapted weights), and how it sees."""

    judge: Classifier
    after: nn.Module
    engine: _Engine

    def both(self, lr: Pixels, sr: Pixels) -> tuple[tuple[Guess, ...], tuple[Guess, ...]]:
        """Return the likeliest classes of the source, resized bilinearly, and of the result."""
        size = self.size(sr.shape[0], sr.shape[1])
        return (
            self._guess(self.judge, self._seen(lr, size, "bilinear")),
            self._guess(self.after, self._seen(sr, size, self.engine.protocol.sr.kernel)),
        )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which it looks at a result.

        Its own where its architecture fixes one; else the result's, but no more pixels than the protocol's HR has.
        """
        if self.judge.info.input_size is not None:
            return self.judge.info.input_size, self.judge.info.input_size
        side = self.engine.protocol.hr.crop
        shrink = min(1.0, side / math.sqrt(height * width)) if side is not None else 1.0
        return enlarged_side(height, shrink), enlarged_side(width, shrink)

    def _seen(self, pixels: Pixels, size: tuple[int, int], kernel: str) -> Tensor:
        def resized(window: Tensor, target: tuple[int, int]) -> Tensor:
            return window if tuple(window.shape[-2:]) == target else resize(window, target, kernel)

        ratio = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1], 1.0)
        # a tile that is shrunk must be large, or it would be all margin
        tile = None if self.engine.tile is None else max(self.engine.tile, math.ceil(8 * _KERNEL_MARGIN / ratio))
        seen = tiled(pixels, size, resized, tile=tile, margin=_KERNEL_MARGIN)
        image = torch.from_numpy(seen).permute(2, 0, 1)[None].to(self.engine.device).float() / 255
        return image.expand(-1, 3, -1, -1).contiguous()

    def _guess(self, network: nn.Module, image: Tensor) -> tuple[Guess, ...]:
        height, width = image.shape[-2:]
        where = f"classifier {self.judge.id} on {width} x {height} pixels"
        try:
            logits = network(image).float()
        except Exception as error:
            # as for methods: the picture is named, the others go on
            raise ContractError(f"{where} fails: {sentence(error)}") from error
        if not bool(torch.isfinite(logits).all()):
            raise ContractError(f"{where} returned NaN or infinite logits; check its weights")
        likeliest = logits[0].softmax(0).topk(min(TOP, logits.shape[1]))
        pairs = zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True)
        return tuple(Guess(_class_name(self.judge, index), probability) for probability, index in pairs)


def _asked(engine: _Engine, judge: Classifier | None) -> _Asked | None:
    """Say who is asked about the results; refuse a method that does not apply here."""
    contender, method = engine.contender, engine.method
    if method.info.output == "lr":
        raise UsageError(f"method {contender.name!r} hands images on as they are; choose one that enlarges")
    if method.info.channels not in (1, 3):
        raise UsageError(f"method {contender.name!r} takes {method.info.channels}-channel images; pictures have 1 or 3")
    task = TaskInfo(name="upscale", protocol=engine.protocol, channels=method.info.channels)
    if judge is not None:
        task = dataclasses.replace(
            task,
            classifier=judge.id,
            classifier_sha256=judge.info.weights_sha256,
            classifier_input_size=judge.info.input_size,
        )
    reason = method.skip(task) if judge is None else contender.skip_reason(task)
    if reason is not None:
        raise UsageError(f"method {contender.name!r} does not apply here: {reason}")
    if judge is None:
        return None
    judge.to(engine.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    after = contender.adapted_network(judge) if contender.track == "adapted" else judge
    return _Asked(judge, after, engine)


def _class_name(judge: Classifier, index: int) -> str:
    if judge.info.classes is None:
        return f"class {index}"
    name = judge.info.classes[index]
    if judge.info.classes != imagenet_wnids():
        return name
    from timm.data import ImageNetInfo

    return f"{name} {ImageNetInfo('imagenet-1k').index_to_description(index)}"
