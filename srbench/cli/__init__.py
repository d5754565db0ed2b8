"""The command line: it parses, calls Python, prints; everything heavy is imported inside the commands."""

from __future__ import annotations

import io
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from srbench.cli import caching, publishing, shipping
from srbench.cli.guard import Commands, guarded, stopped
from srbench.cli.signals import STOPPED, leave_stopped, stop_on_signals
from srbench.cli.terminal import Device, Plugins, show, waiting, weights_by_method
from srbench.compute.process import prepare_process
from srbench.errors import UsageError
from srbench.files.paths import user_path

app = typer.Typer(
    name="srbench",
    cls=Commands,
    help="Which way of resizing small images wins back the most classification accuracy, and what it costs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Prepare the process, which is the command line's own, and run the command."""
    prepare_process()
    if os.environ.get("COLUMNS") == "0":  # no width at all; Rich would print empty tables
        os.environ["COLUMNS"] = "80"
    stop_on_signals()
    _say_what_can_be_said()
    try:
        app()
    except KeyboardInterrupt as stop:  # before any command has begun
        stopped(stop)
        leave_stopped()
    except SystemExit as end:
        if end.code == STOPPED:
            leave_stopped()
        raise


def _say_what_can_be_said() -> None:
    """Replace what the encoding of the output lacks, such as a dagger under cp932, instead of ending with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


_NETWORKS = ("classifier", "network")  # what `srbench train` calls the network that says what an image shows

Methods = Annotated[list[str] | None, typer.Argument(help="Names of methods; see `srbench list methods`.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show rows without weights, and why they have none.")]
Slices = Annotated[
    list[str] | None,
    typer.Option("--slice", help="Column to slice by: of --meta, or hr_side, lr_side, source_side, format, channels."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]


def _version(show: bool) -> None:
    if show:
        from srbench import __version__

        typer.echo(f"srbench {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command("eval")
@guarded
def eval_(
    methods: Methods = None,
    every: Annotated[bool, typer.Option("--all", help="Every registered method.")] = False,
    data: Annotated[str, typer.Option(help="SPEC of the data; see `srbench list datasets`.")] = "demo",
    split: Annotated[str | None, typer.Option(help="Name of the split; the dataset's own default if left out.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Name of a preset, or a TOML file.")] = None,
    scale: Annotated[list[str] | None, typer.Option(help="LR side / HR side, such as 0.32 or 1/3; repeatable.")] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            "--classifier",
            "--network",
            help="SPEC of the network behind; see `srbench list classifiers`; repeatable.",
        ),
    ] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(help="Score under this degradation too: blur, noise, ..., all, or a TOML file; repeatable."),
    ] = None,
    input_size: Annotated[
        list[str] | None,
        typer.Option(help="Shortest side that classifiers see, pixels, or sweep for LR to HR by 32; repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="METHOD=NAME or METHOD=FILE; repeatable, one row each.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Score the methods as exported files too: onnx or onnx-int8; repeatable, one row each."),
    ] = None,
    calibrate: Annotated[
        str | None, typer.Option(help="With onnx-int8: SPEC of training images; none of them may be in --data.")
    ] = None,
    calibrate_split: Annotated[str | None, typer.Option(help="With onnx-int8: name of their split.")] = None,
    calibrate_images: Annotated[int, typer.Option(help="With onnx-int8: how many of them are taken.")] = 192,
    precomputed: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: images restored elsewhere, named by sample id; repeatable.")
    ] = None,
    meta: Annotated[
        Path | None, typer.Option(help="CSV about the images: ids in the first column, further columns to slice by.")
    ] = None,
    slice_: Slices = None,
    limit: Annotated[int | None, typer.Option(help="Take only so many images; never ranked.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a batch; else by device and image size.")] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto (fp32 when scoring), fp32, tf32 or bf16.")] = "auto",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the results; out/<dataset> if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute every cell anew.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code a cell failed.")] = False,
    verbose: Verbose = False,
    plugin: Plugins = None,
) -> None:
    """Score methods and print the comparison table; a run that was stopped goes on where it was."""
    if every and methods:
        raise UsageError(f"give either --all or names of methods, not both; got --all and {', '.join(methods)}")
    elsewhere = _folders(precomputed or [])
    if not every and not methods and not elsewhere:
        raise UsageError("give names of methods, or --all for every registered one; see `srbench list methods`")
    from srbench.protocol import parse_scale

    scales = [parse_scale(text) for text in scale or []]
    by_method = weights_by_method(weights or [])
    with waiting("loading torch, methods and classifiers"):
        from srbench.evaluation import evaluate
        from srbench.evaluation.quantising import Int8Options
        from srbench.records.schema import BASELINE
    result = evaluate(
        methods or ("all" if every else [BASELINE]),
        data=data,
        split=split,
        classifiers=classifier or (),
        protocol=protocol,
        scales=scales,
        shifts=shift or (),
        input_sizes=[int(size) if size.isdecimal() else size for size in input_size or []],
        weights=by_method,
        runtimes=runtime or (),
        int8=None if calibrate is None else Int8Options(calibrate, calibrate_split, calibrate_images),
        precomputed=elsewhere,
        meta=meta,
        slices=slice_ or (),
        limit=limit,
        batch_size=batch_size,
        device=device,
        precision=precision,
        seed=seed,
        out=out,
        force=force,
        plugins=plugin or (),
    )
    if result.rank == 0:
        _print_board(result.own_board, result.out, verbose=verbose)
        typer.echo(_done(result), err=True)
        for record in result.failed:
            key = record.cell
            typer.echo(f"srbench: failed: {key.name} with {key.classifier} on {key.task}: {record.reason}", err=True)
            if debug and record.traceback is not None:
                typer.echo(record.traceback, err=True)
    if result.failed:
        raise typer.Exit(1)


@app.command()
@guarded
def train(
    method: Annotated[
        str, typer.Argument(help="Name of a method that can be trained, or `classifier`, also called `network`.")
    ],
    arch: Annotated[
        str | None,
        typer.Argument(help="With `classifier`: architecture of timm, such as resnet18, or torchvision:NAME."),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="SPEC of the training data; repeatable.")] = None,
    val: Annotated[
        str | None, typer.Option(help="SPEC of the validation data; a tenth of the data if left out.")
    ] = None,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            "--classifier",
            "--network",
            help="SPEC of a teacher (or of the network to adapt); teachers take turns.",
        ),
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="SPEC of a classifier that validation shows and nothing is trained by.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Name of a preset, or a TOML file.")] = None,
    scale: Annotated[str | None, typer.Option(help="LR side / HR side, such as 0.32 or 1/3.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Name of one of the method's recipes, or a TOML file.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value of the recipe; repeatable.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs, instead of the recipe's.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="With `network DECODER`: its encoder, such as timm:mobilenetv2_100 (extra: dense)."),
    ] = None,
    init_encoder: Annotated[
        str | None, typer.Option(help="SPEC of a classifier whose weights the encoder starts from.")
    ] = None,
    in_chans: Annotated[int, typer.Option(help="With `classifier`: channels it takes, 1 or 3.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Take only so many images of each dataset.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; out/train/<method> if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the weights.")] = None,
    init_from: Annotated[str | None, typer.Option(help="Weights to start from, a name or a file.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, for their card; that of --init-from if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over where --out holds a checkpoint.")] = False,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, tf32 or bf16.")] = "auto",
    seed: Seed = 0,
    plugin: Plugins = None,
) -> None:
    """Train a method against a frozen classifier, or together with it, or train a classifier."""
    if method not in _NETWORKS and arch is not None:
        raise UsageError(f"`srbench train {method}` takes no second name, got {arch!r}; options start with --")
    if method in _NETWORKS and arch is None:
        raise UsageError(f"`srbench train {method}` needs an architecture of timm, such as resnet18")
    if arch is None and (encoder is not None or init_encoder is not None):
        raise UsageError(f"--encoder and --init-encoder are for `srbench train network`, not for {method}")
    from srbench.protocol import parse_scale
    from srbench.training.options import TrainOptions

    options = TrainOptions(
        data=data or ["demo"],
        val=val,
        protocol=protocol,
        scale=parse_scale(scale) if scale is not None else None,
        recipe=recipe,
        overrides=set_ or [],
        epochs=epochs,
        limit=limit,
        out=out if out is not None else Path("out") / "train" / (name or arch or method),
        name=name,
        init_from=init_from,
        licence=licence,
        resume=resume,
        force=force,
        device=device,
        precision=precision,
        seed=seed,
        command=shlex.join(["srbench", *sys.argv[1:]]),
    )
    with waiting("loading torch, timm and Lightning"):
        from srbench.training.api import train_method, train_network
    if arch is not None:
        result = train_network(arch, options, in_chans=in_chans, encoder=encoder, init_encoder=init_encoder)
    else:
        result = train_method(method, options, classifier=classifier or (), judge=judge or (), plugins=plugin or ())
    typer.echo(result.summary())


@app.command("list")
@guarded
def list_(
    what: Annotated[str, typer.Argument(help="methods, classifiers, datasets, protocols or weights.")] = "methods",
    plugin: Plugins = None,
) -> None:
    """Show what can be named on the command line."""
    from srbench.cli import listing

    tables = {
        "methods": lambda: listing.methods(plugin or ()),
        "classifiers": listing.classifiers,
        "datasets": listing.datasets,
        "protocols": listing.protocols,
        "weights": lambda: listing.weights_of_all(plugin or ()),
    }
    if what not in tables:
        raise UsageError(f"`srbench list` takes one of {', '.join(tables)}; got {what!r}")
    listing.show(tables[what]())


@app.command()
@guarded
def check(
    method: Annotated[str, typer.Argument(help="Name of a method.")],
    plugin: Plugins = None,
) -> None:
    """Hold a method against the contract; every finding says how to mend it."""
    with waiting("loading torch and the method"):
        from srbench.conformance import check as hold_against_contract
        from srbench.registry import Registry
    findings = hold_against_contract(Registry(plugin or ()).get(method), method)
    for finding in findings:
        typer.echo(f"{'ok    ' if finding.ok else 'FAILED'} {finding.check}: {finding.message}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
@guarded
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `srbench eval --out` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write leaderboard.{json,csv,md} here too.")] = None,
    slice_: Slices = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    format_: Annotated[
        str, typer.Option("--format", help="What is printed: table, markdown or latex (booktabs, for papers).")
    ] = "table",
    verbose: Verbose = False,
) -> None:
    """Build the table anew from the records of one or several folders."""
    with waiting("reading records"):
        from srbench.files.atomic import check_out_dir, sweep_temporary
        from srbench.files.turns import only_writer
        from srbench.leaderboard import build
        from srbench.leaderboard.latex import latex
        from srbench.leaderboard.tables import markdown, write
        from srbench.records.cells import find_records
    texts = {"markdown": markdown, "latex": latex}
    if format_ not in ("table", *texts):
        raise UsageError(f"--format is one of table, {', '.join(texts)}; got {format_!r}")
    if out is not None:
        out = user_path(out)
        check_out_dir(out)
    cells, problems = find_records(folders)
    board = build(cells, seed=seed, warnings=problems, slices=slice_ or ())
    if out is not None:
        with only_writer(out, wait=True):
            sweep_temporary(out)
            write(board, out)
    if format_ in texts:
        typer.echo(texts[format_](board), nl=False)
        return
    _print_board(board, out or folders[0], verbose=verbose)


@app.command()
@guarded
def bench(
    methods: Methods = None,
    size: Annotated[list[str] | None, typer.Option(help="Size of LR in pixels, H or HxW; repeatable.")] = None,
    factor: Annotated[float, typer.Option(help="SR side / LR side.")] = 4.0,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Images a batch, beside batch 1; repeatable; by the device if left out.")
    ] = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="fp32, tf32 or bf16.")] = "fp32",
    compiled: Annotated[bool, typer.Option("--compile", help="Send the networks through torch.compile.")] = False,
    classifier: Annotated[
        str | None,
        typer.Option("--classifier", "--network", help="SPEC of a network, to be timed alone and end to end."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="METHOD=NAME, METHOD=FILE or METHOD=untrained; repeatable, one row each.")
    ] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="Time exported files too: onnx.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this .json file too.")] = None,
    plugin: Plugins = None,
) -> None:
    """Measure how fast methods run, and which share of the device's speed they reach; all of them if none is named."""
    by_method = weights_by_method(weights or [])
    with waiting("loading torch, methods and classifiers"):
        from srbench import bench as speed
        from srbench.bench.table import render
    sizes = [speed.parse_size(text) for text in size or []]
    if out is not None:
        out = user_path(out)
        speed.check_out_file(out)
    result = speed.bench(
        methods or None,
        sizes=sizes or [speed.DEFAULT_SIZE],
        factor=factor,
        batch_sizes=batch_size or [],
        device=device,
        precision=precision,
        compiled=compiled,
        classifier=classifier,
        weights=by_method,
        runtimes=runtime or (),
        plugins=plugin or (),
    )
    if out is not None:
        speed.write(result, out)
    from rich.console import Console

    show(render(result, width=Console().width))
    if result.failed:
        raise typer.Exit(1)


@app.command()
@guarded
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `srbench eval --out` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder of report.html; the first folder if left out.")] = None,
    max_mb: Annotated[
        float, typer.Option("--max-mb", help="Size of the page in MB that pictures are fitted to.")
    ] = 5.0,
) -> None:
    """Write one HTML page that needs no network, with tables, figures and pictures; the figures as SVG and PNG too."""
    with waiting("loading matplotlib"):
        from srbench.report import write_report
    page, *figures = write_report(folders, out, max_mb=max_mb)
    drawn = sum(path.suffix == ".svg" for path in figures)
    typer.echo(f"srbench: wrote {page} ({page.stat().st_size / 1e6:.1f} MB) and {drawn} figures beside it")


@app.command()
@guarded
def compare(
    old: Annotated[Path, typer.Argument(help="Folder or leaderboard.json of before.")],
    new: Annotated[Path, typer.Argument(help="Folder or leaderboard.json of now.")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option("--fail-on", help="Rule such as 'accuracy -0.3pp'; repeatable; fires with exit 1."),
    ] = None,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            help="Test non-inferiority: a rule holds only where the interval of the change on the same samples does.",
        ),
    ] = False,
) -> None:
    """Show what changed between two leaderboards; with rules, fail where it became worse."""
    from srbench.leaderboard.changes import render_comparison
    from srbench.leaderboard.compare import compare as compare_boards
    from srbench.leaderboard.compare import load_board, parse_rule

    rules = [parse_rule(text) for text in fail_on or []]
    result = compare_boards(load_board(old), load_board(new), rules, paired=paired)
    from rich.console import Console

    show(render_comparison(result, width=Console().width))
    if result.fired:
        raise typer.Exit(1)


for _name, _command in {**shipping.COMMANDS, **publishing.COMMANDS, "cache": caching.cache}.items():
    app.command(_name)(guarded(_command))


def _print_board(board: Any, out: Path, *, verbose: bool) -> None:
    from rich.console import Console

    from srbench.leaderboard.tables import render

    show(render(board, width=Console().width, where=str(out / "leaderboard.csv"), verbose=verbose))


def _folders(pairs: list[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for pair in pairs:
        name, separator, folder = pair.partition("=")
        if not separator or not name or not folder:
            raise UsageError(f"--precomputed takes NAME=DIR, got {pair!r}")
        if name in folders:
            raise UsageError(f"--precomputed {name}=... is given twice; choose a name for each folder")
        folders[name] = Path(folder)
    return folders


def _done(result: Any) -> str:
    counters = result.counters
    classified = sum(counters.hr_classified.values())
    restored = sum(counters.restored.values())
    return (
        f"srbench: decoded {counters.decoded} images, classified {classified} of them at HR, restored {restored};"
        f" results in {result.out}"
    )


if __name__ == "__main__":
    main()
