"""The batches of an epoch: which images they hold, and reading them a few ahead of the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from srbench.errors import UsageError
from srbench.training.crops import RawBatch
from srbench.training.images import ImageSet, Positions, fill_batches
from srbench.training.recipe import Recipe

_READERS, _AHEAD = 2, 4


def epoch_plan(
    images: ImageSet, recipe: Recipe, *, seed: int, epoch: int, rank: int, world: int
) -> list[list[Positions]]:
    """Return this rank's part of an epoch: optimiser steps, each a list of batches of one shape.

    A pure function of its arguments, so that a resumed run sees what the uninterrupted one would have seen. The ranks'
    parts are disjoint and have equally many batches of equal size; what the number of ranks does not divide is left
    out of this epoch, never repeated, and so is a last batch of a single image, which has no statistics for batch norm.
    An image that gives several patches stands in its batch as often, in a row.
    """
    repeats = min(recipe.patches_per_image, recipe.batch_size)
    images_a_batch = -(-recipe.batch_size // repeats)
    group = images.shape_groups(recipe.patch, recipe.augment.shift)
    members = np.bincount(group)
    wanted = None if recipe.steps_per_epoch is None else recipe.steps_per_epoch * recipe.accumulate
    batches: list[Positions] = []
    rounds = 0
    while True:
        order = np.random.default_rng([seed, 1, epoch, rounds]).permutation(len(images))
        for together in fill_batches(order, group, images_a_batch * world):
            whole = len(together) // world * world
            alone = whole == world and images_a_batch > 1 and members[group[together[0]]] > world
            if whole and not (alone and repeats == 1):
                batches.append(np.repeat(together[rank:whole:world], repeats)[: recipe.batch_size])
        rounds += 1
        if wanted is None or len(batches) >= wanted or not batches:
            break
    if not batches:
        raise UsageError(f"{len(images)} training images are too few for {world} ranks; start fewer ranks")
    batches = batches[:wanted]
    return [batches[start : start + recipe.accumulate] for start in range(0, len(batches), recipe.accumulate)]


def read_ahead(read: Callable[[int], RawBatch], numbers: range) -> Iterator[RawBatch]:
    """Yield `read(number)` for every number, in order; threads read a few ahead of whoever asks."""
    pending: deque[Future[RawBatch]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="read") as pool:
        try:
            for number in numbers:
                pending.append(pool.submit(read, number))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
