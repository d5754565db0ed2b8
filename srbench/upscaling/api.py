"""The call: `upscale`, and what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from srbench.compute.devices import use_device
from srbench.compute.progress import track
from srbench.errors import RecordError, SrbenchError, UsageError
from srbench.evaluation.loaded_methods import load_method
from srbench.evaluation.one_method import choose_weights, weights_notes
from srbench.files.atomic import sweep_beside
from srbench.imaging.codecs import MAX_PIXELS
from srbench.networks.loading import load_classifier
from srbench.registry import Registry
from srbench.upscaling.engine import Engine, protocol_of_factor
from srbench.upscaling.guesses import Guesser, check_applies
from srbench.upscaling.plan import check_numbers, count_steps, plan_jobs
from srbench.upscaling.results import Upscaled, UpscaleResult
from srbench.upscaling.writing import StepCounter, enlarge_file, refuse_foreign


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
    max_megapixels: float | None = None,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> UpscaleResult:
    """Enlarge pictures, and folders of them at any depth.

    Args:
        images: Files and folders.
        method: Registry name of the method.
        out: A file for a single picture, else a folder, in which folders are mirrored.
        factor: Enlargement of both sides, any number above 0; a network's own is brought to it by resampling.
        tile: Side of a tile in LR pixels, for pictures that do not fit into memory; None restores them whole. It is
            rounded up to the windows of a network with attention. A tile sees `MARGIN` more LR pixels on every side
            (`MARGIN / factor` where the factor is below 1).
        weights: Name or file of the method's weights; None takes those on this computer, if only one choice is
            possible.
        classifier: SPEC of a classifier that is asked before and after.
        device: "auto", "cpu" or "cuda".
        max_megapixels: A picture that claims more than this, in 10^6 pixels, is not decoded, since a small file can
            fill the memory. None is 179, which is Pillow's own limit.
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
    check_numbers(factor, tile)
    max_pixels = MAX_PIXELS if max_megapixels is None else max_megapixels * 1e6
    if not max_pixels > 0:
        raise UsageError(f"--max-megapixels takes a number above 0, got {max_megapixels:g}")
    where = use_device(device)
    plan = plan_jobs(images, out)
    network = load_classifier(classifier) if classifier is not None else None
    ref = choose_weights(method, cls, weights, network)
    protocol = protocol_of_factor(factor)
    engine = Engine(load_method(method, cls, ref, protocol), protocol, factor, tile, where)
    check_applies(engine, network)
    guesser = Guesser.of(engine, network) if network is not None else None
    if not plan.alone:
        refuse_foreign(plan.jobs, engine)
    sweep_beside(job.target for job in plan.jobs)
    done: list[Upscaled] = []
    problems: list[str] = []
    counts = [count_steps(job.source, factor, tile, engine.multiple) for job in plan.jobs]
    unit = "images" if tile is None else "tiles"
    with torch.inference_mode(), track("upscale", sum(counts), show=progress, unit=unit) as advance:
        for job, count in zip(plan.jobs, counts, strict=True):
            counter = StepCounter(advance, count)
            try:
                image, lr, sr = enlarge_file(
                    job, engine, counter, look=guesser is not None, again=plan.alone, max_pixels=max_pixels
                )
            except RecordError:
                raise  # the disk, not the picture
            except SrbenchError as error:
                if plan.alone:
                    raise
                problems.append(str(error))
            else:
                try:
                    if guesser is not None and lr is not None and sr is not None:
                        before, after = guesser.both(lr, sr)
                        image = dataclasses.replace(image, before=before, after=after)
                except SrbenchError as error:
                    problems.append(f"{job.name}: {error}")
                done.append(image)
            counter.finish()
    return UpscaleResult(
        images=tuple(done),
        problems=tuple(problems),
        method=method,
        weights=engine.loaded.label,
        factor=factor,
        classifier=network.id if network is not None else None,
        notes=(*weights_notes(ref), *engine.notes, *plan.notes),
    )
