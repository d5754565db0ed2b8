"""`srbench export`, `upscale`, `identify-resize`, `choose` and `rate`: methods at work, on pictures and in production.

They parse, call Python and print; `srbench.cli` registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench.cli.terminal import Device, Plugins, show, table, waiting, weights_by_method
from srbench.errors import UsageError
from srbench.files.paths import user_path


def export(
    method: Annotated[str, typer.Argument(help="Name of a method; see `srbench list methods`.")],
    lr_size: Annotated[
        str, typer.Option("--lr-size", help="Size of LR in pixels: 81, 56x84 (height x width), or a range 64-128.")
    ],
    out: Annotated[Path, typer.Option(help="File that ends in .onnx, or in .pt2 for torch.export's own format.")],
    weights: Annotated[str | None, typer.Option(help="Weights of the method, a name or a file.")] = None,
    classifier: Annotated[
        str | None, typer.Option("--classifier", "--network", help="SPEC of the network behind; SR itself if left out.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option("--input-size", help="Shortest side of SR in pixels; the protocol's if left out.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="Name of a preset, or a TOML file.")] = "clean",
    data: Annotated[str, typer.Option(help="SPEC of the images that torch and the runtime are compared on.")] = "demo",
    split: Annotated[str | None, typer.Option(help="Name of the split.")] = None,
    limit: Annotated[int | None, typer.Option(help="Take only so many of them.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or int8 for static quantisation.")] = "fp32",
    calibrate: Annotated[
        str | None, typer.Option(help="With int8: SPEC of training images; none of them may be in --data.")
    ] = None,
    calibrate_split: Annotated[str | None, typer.Option(help="With int8: name of their split.")] = None,
    calibrate_images: Annotated[int, typer.Option(help="With int8: how many of them are taken.")] = 192,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="With int8: one scale a weight and no falling back.")
    ] = False,
    gate: Annotated[float, typer.Option(help="With int8: points of accuracy that may be lost.")] = 1.0,
    plugin: Plugins = None,
) -> None:
    """Write a method, and the network behind it, as one ONNX graph from 8-bit LR; hold it against torch."""
    if precision not in {"fp32", "int8"}:
        raise UsageError(f"--precision takes fp32 or int8, got {precision!r}")
    if (precision == "int8") != (calibrate is not None):
        raise UsageError("--precision int8 and --calibrate SPEC go together; give both, or neither")
    with waiting("loading torch, the method and ONNX"):
        from srbench.evaluation.exporting import Int8Options
        from srbench.evaluation.exporting import export as write
    int8 = None
    if calibrate is not None:
        int8 = Int8Options(calibrate, calibrate_split, calibrate_images, per_tensor, gate)
    result = write(
        method,
        out=out,
        lr_size=lr_size,
        weights=weights,
        classifier=classifier,
        input_size=input_size,
        protocol=protocol,
        data=data,
        split=split,
        limit=limit,
        int8=int8,
        plugins=plugin or (),
    )
    if result.parity is not None:
        head, *rows = result.parity.rows("onnxruntime")
        show([table(head, rows)])
    for line in result.int8.lines if result.int8 is not None else ():
        typer.echo(line)
    for note in result.notes:
        typer.echo(f"srbench: note: {note}", err=True)
    typer.echo(f"srbench: {result.summary()}", err=True)


def upscale(
    method: Annotated[str, typer.Option(help="Name of a method; see `srbench list methods`.")],
    out: Annotated[str, typer.Option(help="File for a single image, else a folder.")],
    images: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of them.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="SPEC of data instead of images: the LR of every sample, as `srbench eval` makes it."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --data: name of the split.")] = None,
    protocol: Annotated[str | None, typer.Option(help="With --data: name of a preset, or a TOML file.")] = None,
    scale: Annotated[str | None, typer.Option(help="With --data: LR side / HR side.")] = None,
    limit: Annotated[int | None, typer.Option(help="With --data: take only so many images.")] = None,
    factor: Annotated[
        float | None, typer.Option(help="Enlargement of both sides, any number above 0; 4 if left out.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in pixels of the image, for images too large for the memory.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the method, a name or a file.")] = None,
    classifier: Annotated[str | None, typer.Option(help="SPEC of a classifier that is asked before and after.")] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(help="Decode images of at most so many 10^6 pixels; 179 if left out.")
    ] = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Enlarge images of any size, or every image of a dataset, which `srbench eval --precomputed` takes as a row."""
    of_data = {"--split": split, "--protocol": protocol, "--scale": scale, "--limit": limit}
    of_images = {"--tile": tile, "--classifier": classifier, "--max-megapixels": max_megapixels}
    if (data is None) == (not images):
        raise UsageError("give images or folders of them, or data with --data SPEC, and not both")
    for option, value in (of_data if data is None else of_images).items():
        if value is not None:
            raise UsageError(f"{option} goes with {'--data' if data is None else 'images'} alone; leave it out")
    if data is not None:
        _upscale_data(
            data,
            method,
            out=out,
            split=split,
            protocol=protocol,
            scale=scale,
            factor=factor,
            weights=weights,
            limit=limit,
            device=device,
            plugins=plugin or [],
        )
        return
    with waiting("loading torch and the method"):
        from srbench.upscaling import render as render_guesses
        from srbench.upscaling import upscale as enlarge
    result = enlarge(
        images or [],
        method,
        out=out,
        factor=4.0 if factor is None else factor,
        tile=tile,
        weights=weights,
        classifier=classifier,
        max_megapixels=max_megapixels,
        device=device,
        plugins=plugin or (),
    )
    show(render_guesses(result))
    for note in [*result.notes, *(note for image in result.images for note in image.notes)]:
        typer.echo(f"srbench: note: {note}", err=True)
    typer.echo(f"srbench: {result.summary()}", err=True)
    for problem in result.problems:
        typer.echo(f"srbench: failed: {problem}", err=True)
    if result.problems:
        raise typer.Exit(1)


def _upscale_data(data: str, method: str, *, scale: str | None, **options: Any) -> None:
    from srbench.protocol import parse_scale

    with waiting("loading torch and the method"):
        from srbench.upscaling import upscale_data
    result = upscale_data(data, method, scale=parse_scale(scale) if scale is not None else None, **options)
    for note in result.notes:
        typer.echo(f"srbench: note: {note}", err=True)
    typer.echo(f"srbench: {result.summary()}", err=True)


def identify_resize(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A command with {image} and {result} in it, which is run for every known image, or a folder: the first"
            " call writes the images there, the second reads what your pipeline has put beside them."
        ),
    ],
    size: Annotated[str, typer.Option(help="Size of the known images in pixels, H or HxW.")] = "96x72",
    suffix: Annotated[str, typer.Option(help="With a command: file type of {result}, npy or png.")] = "npy",
) -> None:
    """Say which kernel, antialiasing, offset, rounding, channel order and scale a pipeline of yours uses."""
    with waiting("sending images through the pipeline"):
        from srbench.imaging.pipelines import identify_command, identify_folder
    if "{" in pipeline:
        found = identify_command(pipeline, size=size, suffix=suffix)
    else:
        found, said = identify_folder(user_path(pipeline), size=size)
        if said is not None:
            typer.echo(said)
            return
    if found is None:
        typer.echo("none that I know")
        raise typer.Exit(1)
    show([table(("", "your pipeline"), found.lines())])


def choose(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `srbench eval --out` wrote.")],
    max_ms: Annotated[float | None, typer.Option(help="Milliseconds an image that the method may take.")] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Size of its parameters in float32, or of its part of an exported file, MB.")
    ] = None,
    max_bytes: Annotated[
        float | None, typer.Option(help="Mean bytes sent of an image, by the rate.json in one of the folders.")
    ] = None,
    at_least: Annotated[float | None, typer.Option(help="Smallest value of what ranks the table (accuracy).")] = None,
    margin: Annotated[float, typer.Option(help="Loss against the best that counts as none.")] = 0.01,
    task: Annotated[str | None, typer.Option(help="Id of the task, where the folders hold several.")] = None,
    network: Annotated[
        str | None, typer.Option("--network", "--classifier", help="Id of the network, where there are several.")
    ] = None,
) -> None:
    """Say which row of a table to ship within limits, what the limits cost, and how to export it."""
    with waiting("reading records"):
        from srbench.leaderboard import build
        from srbench.leaderboard.choose import Limits
        from srbench.leaderboard.choose import choose as pick
        from srbench.leaderboard.sendings import read_sendings
        from srbench.records.cells import find_records
    limits = Limits(max_ms, max_mb, at_least, margin, max_bytes)
    sendings = None if max_bytes is None else read_sendings(folders)
    cells, problems = find_records(folders)
    board = build(cells, warnings=problems)
    choice = pick(board, limits, task=task, network=network, sendings=sendings)
    show([table(choice.header, choice.frontier_rows())])
    for line in choice.lines(board):
        typer.echo(line)
    if choice.chosen is None:
        raise typer.Exit(1)


def rate(
    data: Annotated[str, typer.Option(help="SPEC of a labelled dataset.")],
    classifier: Annotated[str, typer.Option("--classifier", "--network", help="SPEC of the network.")],
    side: Annotated[list[int], typer.Option(help="Shortest side of what is sent, pixels; repeatable.")],
    codec: Annotated[list[str] | None, typer.Option(help="jpeg, webp or avif; repeatable; jpeg if left out.")] = None,
    quality: Annotated[
        list[int] | None, typer.Option(help="Quality from 1 to 100; repeatable; 30, 60 and 90 if left out.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="What restores smaller images; repeatable; bilinear if left out.")
    ] = None,
    weights: Annotated[list[str] | None, typer.Option(help="METHOD=NAME or METHOD=FILE; repeatable.")] = None,
    at_least: Annotated[
        list[float] | None, typer.Option(help="Accuracy whose cheapest setting is wanted; repeatable.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Name of the split.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Name of a preset, or a TOML file.")] = None,
    limit: Annotated[int | None, typer.Option(help="Take only so many images.")] = None,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of rate.json and rate.svg.")] = None,
    plugin: Plugins = None,
) -> None:
    """Hold accuracy against bytes: every side and quality, restored and classified; what should be sent?"""
    with waiting("loading torch, methods and the network"):
        from srbench.evaluation.rate import rate as measure
    out = None if out is None else user_path(out)
    result = measure(
        method or ["bilinear"],
        data=data,
        classifier=classifier,
        sides=side,
        codecs=codec or ["jpeg"],
        qualities=quality or [30, 60, 90],
        split=split,
        protocol=protocol,
        weights=weights_by_method(weights or []),
        limit=limit,
        device=device,
        out=out,
        plugins=plugin or (),
    )
    if out is not None:
        from srbench.report.rate import draw_rate

        draw_rate(result, out / "rate.svg")
    show([table(("frontier", "bytes", "accuracy", "95 %", "input size"), result.rows())])
    for reference, other, share in result.deltas():
        typer.echo(f"BD-rate: {other} needs {100 * share:+.1f} % bytes against {reference} at equal accuracy")
    for wanted in at_least or []:
        cheapest = result.cheapest(wanted)
        found = "no setting reaches it"
        if cheapest is not None:
            found = f"{cheapest.setting.label}, {cheapest.point[0]:,.0f} bytes"
        typer.echo(f"cheapest for accuracy {wanted:g}: {found}")


COMMANDS: dict[str, Callable[..., Any]] = {
    "upscale": upscale,
    "export": export,
    "identify-resize": identify_resize,
    "choose": choose,
    "rate": rate,
}
