"""What a device shows, stage by stage: `.ci/gpu`.

    .ci/gpu
    DEVICE=cpu .ci/gpu
    OUT=out/h100 SRBENCH_REAL=../photographs .ci/gpu --only bench --only measure
    DEVICE=cpu .ci/gpu --patience 10
    .ci/gpu --dry-run

Each stage is a command line with a time limit, and together the limits stay under eight minutes. A stage that fails or
takes too long is named, the others go on, and the exit code is 1. The environment says where and what: `OUT` is the
folder that is written to (out/gpu), `DEVICE` is cuda or cpu, and `SRBENCH_REAL` is the folder of photographs that
`results/speed/measure.sh` takes. Without photographs it gets images of noise and a network of random weights, which are
as fast and decide nothing. On a CPU the networks are small, and the tests are those on a CUDA device that is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 8
NOISE = {"cuda": 1000, "cpu": 24}  # images that stand in for photographs
IMAGES, SECONDS = 25_000, 30  # the aim: so many images of 81 x 81 in so many seconds


@dataclass(frozen=True)
class Stage:
    """A command line and the most seconds that it may take; it runs in a folder of its own name."""

    name: str
    limit_s: int
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: `ok`, `exit code N` or `over N s`; the wall-clock seconds that it took."""

    name: str
    said: str
    seconds: float
    limit_s: int


def stages(device: str, real: Path) -> list[Stage]:
    """List the stages of a device, in the order in which they run.

    Args:
        device: "cuda" or "cpu".
        real: Folder that `results/speed/measure.sh` takes.
    """
    gpu = device == "cuda"
    root, on = shlex.quote(str(ROOT)), f"--device {device}"
    tests = f"-m gpu {root}/tests" if gpu else f"{root}/tests/test_fake_cuda.py"
    methods = "--all" if gpu else "bicubic esrgan --limit 32"
    batches = "--batch-size 128 --precision bf16" if gpu else "--batch-size 2"
    lines = {
        ("tests", 75): f"{shlex.quote(sys.executable)} -m pytest -c {root}/pyproject.toml -n 0 {tests}",
        ("evaluation", 60): f"srbench eval {methods} {on} --out table",
        ("evaluation-bf16", 30): "srbench eval bicubic esrgan"
        f" --precision bf16 {on} {'' if gpu else '--limit 8'} --out table",
        ("training-bf16", 45): "srbench train darionet --data demo --classifier demo-resnet --epochs 1"
        f" --set steps_per_epoch={100 if gpu else 2} --precision bf16 {on} --out run --name device-x4",
        ("export", 45): "srbench export darionet --weights demo-x4 --classifier demo-resnet --protocol demo"
        " --lr-size 15 --limit 64 --out darionet.onnx",
        ("bench", 45): f"srbench bench bicubic darionet --weights darionet=photos-x4 --size 81 {batches} {on}"
        " --out bench.json",
        ("measure", 170): f"{root}/results/speed/measure.sh {shlex.quote(str(real))} {device} speed",
    }
    return [Stage(name, limit_s, tuple(shlex.split(line))) for (name, limit_s), line in lines.items()]


def run(stage: Stage, out: Path, environment: Mapping[str, str]) -> Outcome:
    """Run a stage below `out`, with its output in NAME.log; at its limit its processes are killed."""
    folder = out / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with (out / f"{stage.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            stage.command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=stage.limit_s)
            said = "ok" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            said = f"over {stage.limit_s} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return Outcome(stage.name, said, time.monotonic() - begin, stage.limit_s)


def make_noise(folder: Path, count: int) -> Path:
    """Write what `results/speed/measure.sh` takes: JPEGs of smooth noise, and a network of random weights."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from srbench.networks.loading import create_network

    draws = np.random.default_rng(0)
    for part in ("photos", "train1000"):
        for index in range(count):
            path = folder / part / f"class{index % 10}" / f"{index:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(draws.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            coarse.resize((400, 300), Image.Resampling.BICUBIC).save(path, quality=90)
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    torch.manual_seed(0)
    args = {"num_classes": 10}
    save_file(create_network("timm", "mobilenetv2_100", args).state_dict(), weights / "noise.safetensors")
    (weights / "noise.txt").write_text("".join(f"class{index}\n" for index in range(10)), encoding="utf-8")
    (weights / "mobilenetv2_tfquant.toml").write_text(
        'library = "timm"\nname = "mobilenetv2_100"\nargs = { num_classes = 10 }\nweights = "noise.safetensors"\n'
        'mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\nclasses = "noise.txt"\n',
        encoding="utf-8",
    )
    return folder


def figures(out: Path) -> dict[str, Any]:
    """Gather the numbers of the stages that left any, unrounded."""
    found: dict[str, Any] = {"code": _code()}
    if (bench := out / "bench" / "bench.json").is_file():
        written = json.loads(bench.read_text(encoding="utf-8"))
        found["environment"] = written["environment"]
        found["bench"] = [
            {"method": row["method"], "stage": row["stage"], "batch": row["batch"]}
            | {"images_per_s": row["images_per_s"]["median"], "share": row["share"]}
            for row in written["rows"]
            if row["status"] == "ok"
        ]
    for name in ("evaluation", "evaluation-bf16"):
        if (board := out / name / "table" / "leaderboard.json").is_file():
            found[name] = _numbers(json.loads(board.read_text(encoding="utf-8")))
    return found


def _code() -> dict[str, Any]:
    from srbench.records.provenance import code_state

    return asdict(code_state())


def _numbers(board: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("classifier", "method", "weights", "status", "accuracy", "psnr", "latency_ms", "total_time_s")
    return [{name: row.get(name) for name in names} for row in board["rows"]]


def summary(out: Path, device: str, outcomes: Sequence[Outcome], found: Mapping[str, Any], *, noise: bool) -> str:
    """Write the summary in Markdown: the device, what became of each stage, and the figures."""
    machine = found.get("environment", {})
    code = found.get("code", {})
    commit = (code.get("commit") or "unknown")[:9] + (" with changes" if code.get("dirty") else "")
    parts = [
        f"# {machine.get('device', device)}",
        f"`DEVICE={device} .ci/gpu` at commit {commit}, torch {version('torch')}, driver"
        f" {machine.get('driver') or 'unknown'}, {time.strftime('%Y-%m-%d')}.",
        "| stage | outcome | seconds | limit |\n|:--|:--|--:|--:|\n"
        + "\n".join(f"| {each.name} | {each.said} | {each.seconds:.0f} | {each.limit_s} |" for each in outcomes),
    ]
    if "bench" in found:
        parts.append(
            f"| method, at 81 x 81 | stage | batch | images/s | {IMAGES:,} images take s (aim: {SECONDS}) | share |\n"
            "|:--|:--|--:|--:|--:|--:|\n" + "\n".join(_line(row) for row in found["bench"])
        )
    if (speed := out / "measure" / "speed" / "summary.md").is_file():
        parts.append("## results/speed/measure.sh" + (", on images of noise" if noise else ""))
        parts.append(speed.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    rate, share = row["images_per_s"], "–" if row["share"] is None else f"{row['share']:.0%}"
    cells = (row["method"], row["stage"], row["batch"], f"{rate:.3g}", f"{IMAGES / rate:.3g}", share)
    return f"| {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; return 0 where every one of them went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="STAGE", help="run this stage alone; repeatable")
    parser.add_argument("--patience", type=float, default=1.0, metavar="TIMES", help="each limit so many times as long")
    parser.add_argument("--dry-run", action="store_true", help="print the command lines")
    given = parser.parse_args(arguments)
    device, out = os.environ.get("DEVICE", "cuda"), Path(os.environ.get("OUT", "out/gpu")).absolute()
    if device not in NOISE:
        parser.error(f"DEVICE is cuda or cpu, got {device}")
    photographs = os.environ.get("SRBENCH_REAL")
    real = Path(photographs).absolute() if photographs else out / "noise"
    listed = stages(device, real)
    if unknown := set(given.only or ()) - {stage.name for stage in listed}:
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(stage.name for stage in listed)}")
    chosen = [
        replace(stage, limit_s=round(stage.limit_s * given.patience))
        for stage in listed
        if not given.only or stage.name in given.only
    ]
    if given.dry_run:
        for stage in chosen:
            print(f"{stage.name} ({stage.limit_s} s): {shlex.join(stage.command)}")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    if not photographs and any(stage.name == "measure" for stage in chosen):
        make_noise(real, NOISE[device])
    # what is trained here, and what an earlier call has cached, stays apart from the caller's own
    own = {f"SRBENCH_{name}": str(out / "user" / name.lower()) for name in ("CACHE", "WEIGHTS")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    outcomes = []
    for stage in chosen:
        outcomes.append(run(stage, out, os.environ | own | {"PATH": path}))
        print(f"{stage.name}: {outcomes[-1].said}, {outcomes[-1].seconds:.0f} s", flush=True)
    found = figures(out)
    page = summary(out, device, outcomes, found, noise=not photographs)
    (out / "summary.md").write_text(page, encoding="utf-8")
    numbers = {"device": device, "stages": [asdict(each) for each in outcomes], **found}
    (out / "figures.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(f"\n{page}")
    failed = [each.name for each in outcomes if each.said != "ok"]
    if failed:
        print(f"failed: {', '.join(failed)}; their output is in {out}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
