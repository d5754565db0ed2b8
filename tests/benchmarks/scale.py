"""Time and memory of the leaderboard, and of the report, on records of many classes; run as a script.

    python tests/benchmarks/scale.py --images 50000 --classes 1000 --methods 20
    python tests/benchmarks/scale.py --images 10000 --classes 1000 --methods 20 --report
    python tests/benchmarks/scale.py --images 1000000 --classes 1000 --methods 3 --shards

Records are made up in one process and read in another. Both print their CPU time, imports included, and the peak of
their resident memory. With `--shards` rows are written as an evaluation writes them, 256 at a time, and merged. The
report gets kept pixels of twelve images of 224 pixels as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEPT, SIDE = 12, 224
CHUNK = 256  # that of srbench.evaluation.options, which imports torch


def main() -> None:
    """Make records, and print what reading them takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--methods", type=int, default=20)
    parser.add_argument("--report", action="store_true", help="write the report instead of the leaderboard")
    parser.add_argument("--shards", action="store_true", help="write rows 256 at a time, as an evaluation does")
    parser.add_argument("--step", choices=("make", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step == "make":
        make(given.folder, given.images, given.classes, given.methods, kept=given.report, shards=given.shards)
    elif given.step == "read":
        read(given.folder, report=given.report)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("make", "read"):
                command = [sys.executable, __file__, *sys.argv[1:], "--step", step, "--folder", folder]
                subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def make(root: Path, images: int, classes: int, methods: int, *, kept: bool, shards: bool) -> None:
    """Write the records of `original`, `bilinear` and as many methods more as are asked for."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import numpy as np
    from record_factory import commit, make_record, make_samples, predictions

    from srbench.records.shards import discard_partial, merge_shards, write_shard
    from srbench.records.thumbnails import THUMBNAILS_FILE, write_thumbnails

    labels = np.arange(images) % classes
    names = [f"class number {index}" for index in range(classes)]
    smooth = np.kron(np.random.default_rng(0).uniform(0, 255, (KEPT, 14, 14, 3)), np.ones((1, 16, 16, 1)))
    photos = {at * (images // KEPT): smooth[at] for at in range(KEPT)}
    hr_preds = predictions(labels, 0.8, seed=0, classes=classes)
    for seed, method in enumerate(["original", "bilinear", *(f"method_{at}" for at in range(methods - 1))]):
        accuracy = {"original": 0.8, "bilinear": 0.4}.get(method, 0.3 + 0.4 * seed / methods)
        mse = 0.004 * np.random.default_rng(seed).uniform(0.5, 1.5, images) * (method != "original")
        network = method.startswith("method")
        record = make_record(
            method,
            role="network" if network else "control" if method == "original" else "baseline",
            weights="w" if network else None,
            n=images,
            names=names,
        )
        preds = hr_preds if method == "original" else predictions(labels, accuracy, seed=seed, classes=classes)
        samples = make_samples(labels, preds, hr_preds=hr_preds, mse=mse, seed=seed)
        if shards:
            for first in range(0, images, CHUNK):
                write_shard(root / "running", method, samples.iloc[first : first + CHUNK])
            samples = merge_shards(root / "running", method, range(images))
            discard_partial(root / "running")
        cell = commit(root, record, samples)
        if kept:
            noise = np.random.default_rng(seed)
            shown = {at: noise.normal(photo, 4 * seed).clip(0, 255).astype(np.uint8) for at, photo in photos.items()}
            pixels = {
                at: {"hr": image, "lr": image[::3, ::3]} if method == "original" else {"sr": image}
                for at, image in shown.items()
            }
            write_thumbnails(cell.folder / THUMBNAILS_FILE, pixels, key=method)
    on_disk = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    tell(f"records of {methods + 1} rows, {on_disk / 1e6:.0f} MB", 0.0)


def read(root: Path, *, report: bool) -> None:
    """Build and write the leaderboard, or the report; print what the process took."""
    from srbench.compute.process import prepare_process

    prepare_process()
    from srbench import leaderboard
    from srbench.leaderboard import tables
    from srbench.records.cells import find_records
    from srbench.report import write_report

    start = time.process_time()
    if report:
        paths = write_report([root], progress=False)
        what = f"report of {len(paths) - 1} files, {paths[0].stat().st_size / 1e6:.1f} MB"
    else:
        cells, problems = find_records([root])
        board = leaderboard.build(cells, warnings=problems)
        tables.write(board, root)
        what = f"leaderboard of {len(board.rows)} rows"
    tell(what, start)


def tell(what: str, start: float) -> None:
    """Print what was done, the CPU time since `start` and in all, and the peak of resident memory."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    now = time.process_time()
    print(f"{what}: {now - start:.1f} s of CPU time, {now:.1f} s with imports, peak memory {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
