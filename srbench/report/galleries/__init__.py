"""Pictures of the report: kept pixels beside each other, their errors, and patches; each distinct image once.

Numbers come from the exact pixels. What is embedded may be compressed, or left out, so that the page keeps its size;
the page then says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from srbench.report.galleries.collect import collect
from srbench.report.galleries.encoder import Encoder
from srbench.report.galleries.model import Gallery, NetworkImages, Picture, Pictures, Pixels, Plan, TaskImages
from srbench.report.galleries.patches import heat_map, patch_pairs_of
from srbench.report.galleries.selection import (
    left_out,
    plans,
    positions_of,
    restored_versions,
    shown_positions,
    shown_rows,
)
from srbench.report.galleries.strips import is_labelled, sample_strip
from srbench.task_types.overlays import class_colour

__all__ = ["Plan", "arrange", "collect"]

MOST_JUDGED = 4
SAFETY = 1.03  # encoding everything to find that it is too much takes seconds
TILE_BYTES = 750  # of markup around one picture


def arrange(tasks: Sequence[TaskImages], *, budget: int, problems: Sequence[str] = ()) -> Pictures:
    """Return as many pictures as fit into a number of characters, at the best quality that fits.

    Args:
        tasks: What `collect` returned.
        budget: Characters of the page that pictures may take.
        problems: Sentences to show with them.
    """
    encoder = Encoder()
    for plan in plans(tasks):
        if _estimate(tasks, plan, encoder) > budget:
            continue
        pictures = _pictures(tasks, plan, encoder, problems)
        thumbnails = sum(len(strip.thumbnails) for gallery in pictures.galleries for strip in gallery.strips)
        if sum(len(picture.uri) for picture in pictures.store) + thumbnails * TILE_BYTES <= budget:
            return pictures
    left = ["every picture was left out, so that the page keeps its size; --max-mb allows more"] if tasks else []
    return Pictures((), (), (), (*problems, *left), False)


def _estimate(tasks: Sequence[TaskImages], plan: Plan, encoder: Encoder) -> int:
    """Characters that a plan would take, judged by a few methods on two samples of each task."""
    total = 0.0
    for task in tasks:
        shown, versions = shown_positions(task, plan), restored_versions(task, plan)
        total += sum(
            len(positions_of(network, plan)) * (len(shown_rows(network, plan)) + 2) * TILE_BYTES
            for network in task.networks
        )
        order = list(shown)
        judged = dict.fromkeys((order[0], order[len(order) // 2]))
        sizes: dict[str, list[int]] = {"original": [], "restored": [], "heat": []}
        for at in judged:
            originals = [task.hr[at], *([task.lr[at]] if at in task.lr else [])]
            sizes["original"].append(sum(len(encoder.picture(image, plan.quality).uri) for image in originals))
            having = [sr[at] for sr in versions.values() if at in sr]
            for sr in having[:: -(-len(having) // MOST_JUDGED) or 1]:
                sizes["restored"].append(len(encoder.picture(sr, plan.quality).uri))
                if any(shown.values()) and sr.shape == task.hr[at].shape:
                    sizes["heat"].append(len(encoder.picture(heat_map(sr, task.hr[at]), plan.quality).uri))
        counts = {
            "original": len(shown),
            "restored": sum(len(sr) for sr in versions.values()),
            "heat": sum(shown[at] for sr in versions.values() for at in sr),
        }
        total += sum(counts[name] * sum(each) / len(each) for name, each in sizes.items() if each)
    return round(SAFETY * total)


def _pictures(tasks: Sequence[TaskImages], plan: Plan, encoder: Encoder, problems: Sequence[str]) -> Pictures:
    used: dict[str, Picture] = {}
    with ThreadPoolExecutor() as pool:  # Pillow encodes outside of the interpreter's lock
        list(pool.map(lambda image: encoder.picture(image, plan.quality), _needed(tasks, plan)))

    def embed(image: Pixels) -> Picture:
        picture = encoder.picture(image, plan.quality)
        return used.setdefault(picture.id, picture)

    galleries, patch_pairs = [], []
    for task in tasks:
        shown = shown_positions(task, plan)
        for network in task.networks:
            rows, positions = shown_rows(network, plan), positions_of(network, plan)
            strips = tuple(sample_strip(task, network, rows, at, embed, heat=shown[at]) for at in positions)
            galleries.append(Gallery(task.id, network.classifier, is_labelled(network), strips, _colours(network)))
        patch_pairs += patch_pairs_of(task, plan, embed)
    return Pictures(
        store=tuple(used.values()),
        galleries=tuple(galleries),
        patch_pairs=tuple(patch_pairs),
        notes=(*problems, *left_out(tasks, plan)),
        heats=plan.heats != 0,
    )


def _colours(network: NetworkImages) -> tuple[tuple[str, str], ...]:
    """Return the classes with the colours in which predictions are drawn, or none where nothing is drawn."""
    if not any(network.overlays.values()):
        return ()
    return tuple((network.names[index], f"#{bytes(class_colour(index)).hex()}") for index in sorted(network.names))


def _needed(tasks: Sequence[TaskImages], plan: Plan) -> Iterator[Pixels]:
    """Every image that a plan shows."""
    for task in tasks:
        shown = shown_positions(task, plan)
        for at in shown:
            yield task.hr[at]
            if at in task.lr:
                yield task.lr[at]
        for sr in restored_versions(task, plan).values():
            for at, image in sr.items():
                yield image
                if shown[at] and image.shape == task.hr[at].shape:
                    yield heat_map(image, task.hr[at])
