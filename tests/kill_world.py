"""What is killed, starved of disk and run at once: a world of small data, and commands that work on it for a second.

Every command says what it leaves, in a form that is equal bit for bit however often it was interrupted.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import training_world
from dummies import make_classifier, make_images
from nursery import Nursery, Run, files_below
from safetensors.torch import load_file

from srbench.records.cells import find_records, load_cell
from srbench.records.thumbnails import THUMBNAILS_FILE, read_thumbnails

PER_CLASS, SIDE = 50, 16  # 150 images: three shards a cell, as the nursery cuts them
PHOTOS, SMALL = "photos", "few"
_TIMES = ("seconds", "images_per_s", "wait_share")  # columns of curves.csv that differ from run to run
_LEFT = re.compile(r"\.(tmp|partial|part|new)(/|$)")


@dataclass(frozen=True)
class Place:
    """Where one command works: all that it may write lies below `root`.

    Attributes:
        world: The folder of what is only read.
        root: The folder of what is written.
    """

    world: Path
    root: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def environment(self) -> dict[str, str]:
        names = {"SRBENCH_CACHE": "cache", "SRBENCH_WEIGHTS": "weights", "TMPDIR": "tmp"}
        with contextlib.suppress(OSError):  # on a full disk
            (self.root / "tmp").mkdir(parents=True, exist_ok=True)
        return {name: str(self.root / folder) for name, folder in names.items()}


@dataclass(frozen=True)
class Command:
    """A command line whose results can be compared.

    Attributes:
        name: What it is called.
        words: Its words, given the place.
        result: What it leaves, equal for every run that ended well.
        check: Raises where a file under its final name is not whole; called at any moment.
        prepare: Makes what it works on in the place, such as results to report on.
        ranks: Processes that share the work.
        again: Words that a stopped run is continued with, beside its own.
    """

    name: str
    words: Callable[[Place], list[str]]
    result: Callable[[Place], Any]
    check: Callable[[Place], None]
    prepare: Callable[[Place], None] = lambda place: None
    ranks: int = 1
    again: Callable[[Place], list[str]] = lambda place: []

    def start(self, nursery: Nursery, place: Place, *, again: bool = False) -> list[Run]:
        words = [*self.words(place), *(self.again(place) if again else [])]
        return nursery.start_ranks(words, place.environment, self.ranks)

    def finish(self, nursery: Nursery, place: Place, *, again: bool = False) -> Any:
        """Run it to its end, and return its result."""
        runs = self.start(nursery, place, again=again)
        codes = [run.wait() for run in runs]
        assert codes == [0] * self.ranks, "\n".join(run.said for run in runs)
        return self.result(place)


def make_world(folder: Path) -> Path:
    """Write images, cards, a protocol and methods."""
    make_images(folder / PHOTOS, PER_CLASS, side=SIDE)
    make_images(folder / SMALL, 12, side=24)
    make_classifier(folder / "card", side=SIDE)
    (folder / "half.toml").write_text("[lr]\nscale = 0.5\n")
    training_world.make_method(folder)
    (folder / "pictures").mkdir()
    for number, path in enumerate(sorted((folder / SMALL).rglob("*.png"))[:30]):
        shutil.copy(path, folder / "pictures" / f"{number}.png")
    return folder


def leftovers(place: Place) -> list[Path]:
    """List what no finished run may leave."""
    every = [path for path in files_below(place.root) if _LEFT.search(path.relative_to(place.root).as_posix())]
    return every + files_below(place.root / "tmp")


# --- eval


def _eval_words(place: Place) -> list[str]:
    data = ["--data", f"folder:{place.world / PHOTOS}", "--classifier", str(place.world / "card" / "dummy.toml")]
    protocol = ["--protocol", str(place.world / "half.toml")]
    return ["eval", "nearest", "bicubic", *data, *protocol, "--device", "cpu", "--out", str(place.out)]


def _eval_result(place: Place) -> dict[str, Any]:
    cells, problems = find_records([place.out])
    assert problems == []
    found = {}
    for cell in cells:
        if cell.record.status == "ok":
            kept = read_thumbnails(cell.folder / THUMBNAILS_FILE)
            pixels = [(position, name, image.tobytes()) for position in kept for name, image in kept[position].items()]
            found[cell.record.cell.method] = _hashed(cell.samples().to_numpy().tolist(), pixels)
    assert len(found) == 5, found.keys()
    with (place.out / "leaderboard.csv").open(newline="") as stream:
        rows = [(row["method"], row["accuracy"], row["psnr"]) for row in csv.DictReader(stream)]
    return {"cells": found, "table": rows}


def _check_results(place: Place) -> None:
    for path in files_below(place.out):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet" and not path.name.startswith("."):
            assert pq.read_table(path).num_rows > 0
    for path in files_below(place.out):
        if path.name == "record.json":
            load_cell(path.parent)


def _hashed(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


# --- train


def _train_words(place: Place) -> list[str]:
    data = ["--data", f"folder:{place.world / PHOTOS}", "--limit", "60"]
    method = ["--classifier", str(place.world / "card" / "dummy.toml"), "--plugin", str(place.world / "tiny_method.py")]
    how = ["--protocol", str(place.world / "half.toml"), "--device", "cpu", "--epochs", "4"]
    return ["train", "tiny_method", *data, *method, *how, "--out", str(place.out)]


def _resume(place: Place) -> list[str]:
    return ["--resume"] if (place.out / "checkpoint.pt").exists() else []


def _train_result(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for folder in (place.out / "weights", place.root / "weights"):
        for path in files_below(folder):
            key = path.relative_to(place.root).as_posix()
            if path.suffix == ".safetensors":
                found[key] = _hashed([(name, tensor.numpy().tobytes()) for name, tensor in load_file(path).items()])
    curves = pd.read_csv(place.out / "curves.csv")
    found["curves"] = curves.drop(columns=list(_TIMES)).to_csv()
    assert len(found) == 3, found.keys()
    return found


def _check_training(place: Place) -> None:
    for path in files_below(place.root):
        if path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".json" and not path.name.startswith("."):
            json.loads(path.read_text())


# --- what writes files that are the same to the byte


def _contents(place: Place) -> dict[str, str]:
    return {
        path.relative_to(place.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files_below(place.out))
        if not path.name.startswith(".")
    }


def _whole(place: Place) -> None:
    """Nothing to look at before it is known what whole files are; see `known_bytes`."""


def _report_words(place: Place) -> list[str]:
    return ["report", str(place.root / "results"), "--out", str(place.out)]


def _site_words(place: Place) -> list[str]:
    return ["site", f"mine={place.root / 'results'}", "--out", str(place.out)]


def _pack_words(place: Place) -> list[str]:
    return ["pack", str(place.root / "results"), "--out", str(place.out / "entry.zip")]


def _export_words(place: Place, method: str = "bicubic") -> list[str]:
    sizes = ["--lr-size", "16", "--input-size", "32", "--protocol", str(place.world / "half.toml")]
    return ["export", method, *sizes, "--data", f"folder:{place.world / SMALL}", "--out", str(place.out / "m.onnx")]


def _upscale_words(place: Place) -> list[str]:
    return ["upscale", str(place.world / "pictures"), "--method", "bicubic", "--device", "cpu", "--out", str(place.out)]


def _with_results(place: Place) -> None:
    shutil.copytree(place.world / "results", place.root / "results")


def known_bytes(command: Command, whole: Any) -> Command:
    """Return a command whose files are the same to the byte with a check: what has its final name is whole already."""
    if command.result is not _contents:
        return command

    def check(place: Place) -> None:
        for name, digest in _contents(place).items():
            assert whole.get(name) == digest, f"{name} is torn"

    return replace(command, check=check)


EVAL = Command("eval", _eval_words, _eval_result, _check_results)
TRAIN = Command("train", _train_words, _train_result, _check_training, again=_resume)
COMMANDS = [
    EVAL,
    replace(EVAL, name="eval on 2 ranks", ranks=2),
    TRAIN,
    Command("report", _report_words, _contents, _whole, _with_results),
    Command("site", _site_words, _contents, _whole, _with_results),
    Command("pack", _pack_words, _contents, _whole, _with_results),
    Command("export", _export_words, _contents, _whole),
    Command("upscale", _upscale_words, _contents, _whole),
]
