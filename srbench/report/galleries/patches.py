"""Maps of the error, and enlarged patches of highest and lowest PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.leaderboard import BASELINE, ORACLE, Row
from srbench.report.galleries.model import PLAIN, Crop, NetworkImages, PatchPair, Picture, Pixels, Plan, TaskImages
from srbench.report.galleries.selection import positions_of, shown_rows
from srbench.report.galleries.text import decibels, mark

HEAT_MAX = 64  # of 255; larger errors are rare, and a fixed end makes any two maps comparable
PATCH_SHARE, SMALLEST_PATCH = 4, 12
MOST_ZOOMED = 6


def error_map(sr: Pixels, hr: Pixels) -> NDArray[np.float32]:
    """Mean over the channels of |SR - HR|, `(H, W)`, [0, 255]."""
    apart = np.moveaxis(np.maximum(sr, hr) - np.minimum(sr, hr), 2, 0).astype(np.uint16)
    total = np.asarray(sum(apart), dtype=np.float32)  # plane by plane: numpy is slow along so short an axis
    return total / np.float32(len(apart))


def heat_map(sr: Pixels, hr: Pixels) -> Pixels:
    """The error as a grey image, 255 standing for `HEAT_MAX` and more; the page's filter gives it colours."""
    return np.rint(np.minimum(error_map(sr, hr) / HEAT_MAX, 1.0) * 255).astype(np.uint8)


def patch_pairs_of(task: TaskImages, plan: Plan, embed: Callable[[Pixels], Picture]) -> list[PatchPair]:
    """Zoomed patches of the networks, or else of the best ranked rows, of every track once."""
    pairs: list[PatchPair] = []
    seen: set[Any] = set()
    for network in task.networks:
        plain = next((row for name in (PLAIN, BASELINE) for row in network.rows if row.method == name), None)
        rivals = [row for row in network.rows if row is not plain and row.role != "control"]
        rivals = [row for row in rivals if row.role == "network"] or sorted(rivals, key=lambda row: row.rank or 0)[:3]
        wanted = {row.key for row in shown_rows(network, plan)}
        for row in rivals:
            identity = (row.method, row.weights, row.track)
            if plain is None or row.key not in wanted or identity in seen or len(pairs) == MOST_ZOOMED:
                continue
            seen.add(identity)
            patches = sorted(
                _patches(task, network.sr[row.key], positions_of(network, plan)), key=lambda patch: patch[0]
            )
            patches = [patch for patch in patches if patch[1] in network.sr[plain.key]]
            if patches:
                lowest, highest = (
                    _crops(task, network, row, plain, patch, embed) for patch in (patches[0], patches[-1])
                )
                pairs.append(PatchPair(task.id, row.label, mark(row), plain.label, highest, lowest))
    return pairs


def _patches(
    task: TaskImages, sr: Mapping[int, Pixels], positions: Iterable[int]
) -> Iterator[tuple[float, int, tuple[int, int, int]]]:
    """(PSNR, position, (x, y, side)) of the patches of a grid over all images."""
    for at in positions:
        hr = task.hr[at]
        if at not in sr or sr[at].shape != hr.shape:
            continue
        height, width = hr.shape[:2]
        side = min(max(min(height, width) // PATCH_SHARE, SMALLEST_PATCH), height, width)
        for y in range(0, height - side + 1, side):
            for x in range(0, width - side + 1, side):
                yield _patch_psnr(sr[at], hr, (x, y, side)), at, (x, y, side)


def _patch_psnr(sr: Pixels, hr: Pixels, box: tuple[int, int, int]) -> float:
    x, y, side = box
    ours, theirs = (image[y : y + side, x : x + side].astype(np.float64) for image in (sr, hr))
    mse = float(((ours - theirs) ** 2).mean()) / 255**2
    return math.inf if mse == 0 else -10 * math.log10(mse)


def _crops(
    task: TaskImages,
    network: NetworkImages,
    row: Row,
    plain: Row,
    patch: tuple[float, int, tuple[int, int, int]],
    embed: Callable[[Pixels], Picture],
) -> tuple[Crop, ...]:
    psnr, at, box = patch
    hr, other, own = task.hr[at], network.sr[plain.key][at], network.sr[row.key][at]
    return (
        Crop(ORACLE, embed(hr), box, None),
        Crop(
            plain.label, embed(other), box, decibels(_patch_psnr(other, hr, box)) if other.shape == hr.shape else None
        ),
        Crop(row.label, embed(own), box, decibels(psnr)),
    )
