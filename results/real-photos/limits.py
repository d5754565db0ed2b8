"""Prepares the runs of limits.sh and draws what they found: `prepare`, or `draw FOLDER`, in the runs' folder."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from safetensors.torch import save_file

from srbench.compute.timing import count_macs
from srbench.data.source import Source
from srbench.registry import Registry
from srbench.training.splits import open_splits
from srbench.weights.files import load, reference

DATA = ("real/train_more", "real/train1000")
SUBSETS = (260, 1040)
BLOCKS = (2, 8)
IMAGES = 4173  # what trains of all
BATCH, STEPS = 8, 520
TEACHERS, JUDGE = "val_logits", "val_logits:squeezenet1_1"
CLASSIFIERS = ("mobilenetv2_tfquant", "tf_efficientnet_lite0", "squeezenet1_1")
OBJECTIVES = {  # runs of 130 steps
    "steps-130": "logits\nAdam",
    "logits-soap": "logits\nSOAP",
    "stages-adam": "logits, stages\nAdam",
    "stages-soap": "logits, stages\nSOAP",
}
HELD_OUT = Path("held-out") / "leaderboard.json"
RUNS = (
    "steps-130",
    "steps-520",
    "steps-5200",
    *(f"images-{count}" for count in SUBSETS),
    *(f"blocks-{blocks}" for blocks in BLOCKS),
    *list(OBJECTIVES)[1:],
)


def prepare() -> None:
    """Link the photographs of each subset and of the validation, and write a start for each number of blocks."""
    training, validation = open_splits([f"images:{each}" for each in DATA], "test")
    chosen = _photographs(training)
    assert len(chosen) == IMAGES, len(chosen)
    for folder, photographs in {
        "validation": _photographs(validation),
        **{f"images-{count}": chosen[:count] for count in SUBSETS},
    }.items():
        Path(folder).mkdir(exist_ok=True)
        for number, photograph in enumerate(photographs):
            link = Path(folder) / f"{number:04}{photograph.suffix}"
            if not link.exists():
                link.symlink_to(photograph.resolve())
    file = Path("real/weights/disp_x4.safetensors")
    loaded = load(reference(file, label=file.stem, uri=str(file)))
    published = Registry().get("darionet").from_weights(loaded).state_dict()
    for blocks in BLOCKS:
        save_file(resized(published, blocks), f"start-{blocks}.safetensors")


def network(blocks: int) -> torch.nn.Module:
    """Return DISP with so many blocks, the same random values each time."""
    torch.manual_seed(0)
    return Registry().get("darionet")(blocks, 32, arch="disp")


def resized(published: Mapping[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    """Return DISP with its first blocks only, or with further ones that add nothing, as their last layer is zero."""
    return {
        name: published[name] if name in published else torch.zeros_like(value) if ".convolutions.3." in name else value
        for name, value in network(blocks).state_dict().items()
    }


def draw(target: Path) -> None:
    """Collect the last validation and the recovered gaps of each run, and draw them."""
    table = pd.DataFrame(_rows())
    table.to_csv(target / "limits.csv", index=False, float_format="%.5g")
    figure, panes = plt.subplots(2, 4, figsize=(13, 5), sharey="row", sharex="col")
    seen = f"{STEPS * BATCH:,} images seen"
    words = {
        "steps": "images seen",
        "images": f"photographs, {seen}",
        "blocks": f"blocks, {seen}",
        "objective": f"losses and optimiser, {130 * BATCH:,} images seen",
    }
    start = pd.read_csv("steps-520/curves.csv").iloc[0]
    styles = ("o-", "s-", "^--")
    for (above, below), (varied, label) in zip(panes.T, words.items(), strict=True):
        rows = table[table["varied"] == varied]
        named = varied == "objective"
        if not named:
            rows = rows.sort_values("value")
        places = list(range(len(rows))) if named else rows["value"]
        for column, name, style in ((TEACHERS, "both teachers", "o-"), (JUDGE, "SqueezeNet, no teacher", "^--")):
            above.plot(places, rows[column] / start[column], style, label=name)
        for classifier, style in zip(CLASSIFIERS, styles, strict=True):
            below.plot(places, rows[f"gap:{classifier}"], style, label=classifier)
        if not named:
            below.set_xscale("log")
        labels = [OBJECTIVES[value] if named else f"{value:,}" for value in rows["value"]]
        below.set_xticks(places, labels, fontsize=6 if named else None)
        below.set_xlabel(label)
        for pane in (above, below):
            pane.minorticks_off()
            pane.grid(alpha=0.3)
    panes[0, 0].set_ylabel("distance of logits\n(DISP as published = 1)")
    panes[1, 0].set_ylabel("recovered gap")
    for pane in panes[:, 0]:
        pane.legend(fontsize=7)
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "limits"
    figure.savefig(target / "limits.svg", metadata={"Date": None})


def _rows() -> list[dict[str, object]]:
    """Return a row for each run and panel; the run with all photographs and four blocks is in all three."""
    at = {name: pd.read_csv(Path(name) / "curves.csv").iloc[-1] for name in RUNS}
    gaps = {
        (row["weights"], row["classifier"]): row["recovered_gap"]
        for row in json.loads(HELD_OUT.read_text(encoding="utf-8"))["rows"]
    }
    found: list[tuple[str, Any, int, str]] = [("steps", int(at[name]["step"]) * BATCH, 4, name) for name in RUNS[:3]]
    found += [("images", count, 4, f"images-{count}") for count in SUBSETS] + [("images", IMAGES, 4, "steps-520")]
    found += [("blocks", blocks, blocks, f"blocks-{blocks}") for blocks in BLOCKS] + [("blocks", 4, 4, "steps-520")]
    found += [("objective", name, 4, name) for name in OBJECTIVES]
    return [
        {
            "varied": varied,
            "value": value,
            "images_seen": int(at[name]["step"]) * BATCH,
            "multiply_adds": count_macs(network(blocks), torch.empty(1, 3, 81, 81), (324, 324)),
            **{column: at[name][column] for column in at[name].index if column.startswith("val_")},
            **{f"gap:{classifier}": gaps[name, classifier] for classifier in CLASSIFIERS},
        }
        for varied, value, blocks, name in found
    ]


def _photographs(sources: Sequence[Source]) -> list[Path]:
    """Return the files of sources in an order that only their names decide."""
    files = [
        Path(folder) / sample.id for folder, source in zip(DATA, sources, strict=True) for sample in source.samples
    ]
    return sorted(files, key=lambda file: hashlib.sha256(str(file).encode()).hexdigest())


if __name__ == "__main__":
    prepare() if sys.argv[1] == "prepare" else draw(Path(sys.argv[2]))
