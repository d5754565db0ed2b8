"""Anonymous memory and time of an evaluation against the number of images; run as a script, it prints the figures.

    python tests/benchmarks/memory.py 2000 20000 100000
    python tests/benchmarks/memory.py --data masks 100 2000
    python tests/benchmarks/memory.py --data boxes 100 2000

The latter two are scenes of 96 pixels with the networks that ship for them; the first is made of 32-pixel images with a
dummy classifier. Each size runs in a process of its own. The mapped cache is not anonymous memory and does not count;
/proc tells the two apart, so this runs on Linux only. Time is the CPU's, of the whole call on cold caches in one
thread: decoding, the pass, timing, records and the leaderboard.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SIDE, CLASSES = 32, ("bar", "dot", "net", "web")


def main() -> None:
    """Print the peak and the time of each size, and the ratios of the last to the first."""
    words = sys.argv[1:]
    kind = "labels"
    if words[:1] == ["--data"]:
        kind, words = words[1], words[2:]
    sizes = [int(word) for word in words] or [2000, 20000]
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--make", kind, str(size), folder]
            subprocess.run(command, check=True)  # what a process that makes images leaves in its heap is not measured
            command[2] = "--one"
            words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
            found.append((float(words[0]), float(words[1])))
        peak, seconds = found[-1]
        each = 1e3 * seconds / size
        print(
            f"{size:>7} images: peak anonymous memory {peak:.1f} MiB, {seconds:.1f} s, {each:.3f} ms an image",
            flush=True,
        )
    (first, first_s), (last, last_s) = found[0], found[-1]
    slower = (last_s / sizes[-1]) / (first_s / sizes[0])
    print(f"the last over the first: memory {last / first:.3f}, time an image {slower:.3f}")
    if len(sizes) > 2:  # what an evaluation takes once is in the first size, not in the step from one to the next
        steps = [
            (more - less) / (large - small)
            for (_, less), (_, more), small, large in zip(found, found[1:], sizes, sizes[1:], strict=False)
        ]
        print(f"time of each further image, the last step over the first: {steps[-1] / steps[0]:.3f}")


def make(kind: str, size: int, folder: Path) -> None:
    """Make the images, the classifier and the protocol of one size."""
    if kind != "labels":
        make_scenes(size, folder)
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from dummies import make_classifier, make_images

    make_classifier(folder, classes=CLASSES, side=SIDE)
    make_images(folder / "data", size // len(CLASSES), side=SIDE, classes=CLASSES)
    (folder / "half.toml").write_text("[lr]\nscale = 0.5\n", encoding="utf-8")


def make_scenes(size: int, folder: Path) -> None:
    """Make scenes of shapes with a mask and with boxes."""
    import json

    from PIL import Image

    from srbench.data.synthetic.shapes import CLASSES, GROUND, SIDE, draw_scene

    for name in ("images", "masks"):
        (folder / name).mkdir()
    (folder / "classes.txt").write_text("\n".join((GROUND, *CLASSES)), encoding="utf-8")
    images, boxes = [], []
    for number in range(size):
        scene = draw_scene("train", number)
        Image.fromarray(scene.pixels.transpose(1, 2, 0)).save(folder / "images" / f"{number}.png")
        Image.fromarray(scene.mask).save(folder / "masks" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for left, top, right, bottom, label, *_ in scene.boxes.tolist():
            box = [left, top, right - left, bottom - top]
            boxes.append({"id": len(boxes), "image_id": number, "category_id": int(label), "bbox": box})
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES)]
    text = json.dumps({"images": images, "annotations": boxes, "categories": categories})
    (folder / "boxes.json").write_text(text, encoding="utf-8")


def one(kind: str, folder: Path) -> None:
    """Evaluate the images in a folder, print the peak in MiB and the CPU's seconds."""
    import os
    import time

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ |= {"SRBENCH_CACHE": str(folder / "cache"), "SRBENCH_WEIGHTS": str(folder / "weights")}

    import srbench
    from srbench.compute.process import prepare_process

    prepare_process()
    data, network, protocol = {
        "labels": (f"folder:{folder / 'data'}", str(folder / "dummy.toml"), str(folder / "half.toml")),
        "masks": (
            f"masks:{folder / 'images'},{folder / 'masks'}?classes={folder / 'classes.txt'}",
            "demo-seg",
            "dense-x4",
        ),
        "boxes": (f"coco:{folder / 'images'},{folder / 'boxes.json'}", "demo-det", "dense-x4"),
    }[kind]
    start = time.process_time()
    with PeakAnonymous() as peak:
        srbench.evaluate(
            ["nearest", "bicubic"],
            data=data,
            classifiers=[network],
            protocol=protocol,
            out=folder / "out",
            progress=False,
        )
    print(peak.mib, time.process_time() - start)


class PeakAnonymous:
    """Samples RssAnon of this process every 20 ms while a block runs."""

    def __enter__(self) -> PeakAnonymous:
        self.mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.mib = max(self.mib, int(line.split()[1]) / 1024)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--make", kind, size, folder]:
            make(kind, int(size), Path(folder))
        case ["--one", kind, _, folder]:
            one(kind, Path(folder))
        case _:
            main()
