"""8-bit LR of a dataset as an exported graph takes it, with what a network should answer."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.catalogue import open_source
from srbench.data.hr_cache import build_hr_store
from srbench.errors import SrbenchError
from srbench.export.graph import Deployment
from srbench.imaging.degrade import degrade
from srbench.imaging.resample import to_uint8
from srbench.networks.classifiers import label_map


@dataclass(frozen=True)
class LrImages:
    """LR images.

    Attributes:
        images: `(H, W, C)`, RGB, uint8.
        hashes: Hash of the HR pixels of each, which tells the same photograph in two folders.
        outputs: Index of the network's output that is right for each, `(n,)` int64, or None where nobody says.
    """

    images: list[NDArray[np.uint8]]
    hashes: list[str]
    outputs: NDArray[np.int64] | None


def pixel_hash(pixels: Tensor) -> str:
    """Return what tells an image, `(1, C, H, W)`, uint8, in whatever folder it lies."""
    return hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()


def read_lr(deployment: Deployment, data: str, split: str | None, limit: int | None) -> LrImages:
    """Return the LR of a dataset, degraded as the protocol says to the sizes of a graph.

    Raises:
        SrbenchError: If the data cannot be read.
    """
    protocol = deployment.protocol
    source = open_source(data, split)
    store = build_hr_store(source, protocol.hr, limit=limit)
    channels, sizes = deployment.method.info.channels, deployment.lr_size.examples
    images, hashes = [], []
    for position in range(len(store)):
        height, width = sizes[position % len(sizes)]
        pixels = store.batch([position])
        hashes.append(pixel_hash(pixels))
        side = max(height, width)
        to_side = dataclasses.replace(protocol.lr, scale=None, lr_side=side, none=False, given=False)
        lr = to_uint8(degrade(pixels.float() / 255, to_side, sample_ids=[store.samples[position].id]))[0]
        top, left = (lr.shape[1] - height) // 2, (lr.shape[2] - width) // 2
        window = lr[:channels, top : top + height, left : left + width]
        images.append(np.ascontiguousarray(window.permute(1, 2, 0).numpy()))
    outputs = None
    if deployment.network_info is not None and source.classes is not None and store.labels is not None:
        try:
            outputs = label_map(deployment.network_info, source.classes)[store.labels]
        except SrbenchError:
            outputs = None  # the classes are not the network's: decisions alone are compared
    return LrImages(images, hashes, outputs)
