"""How much of the kept images a page shows, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srbench.leaderboard import BASELINE, Row
from srbench.report.galleries.model import PLAIN, NetworkImages, Pixels, Plan, TaskImages

FEWER_METHODS, FEWER_IMAGES = (16, 12, 8), (8, 6, 4)


def plans(tasks: Sequence[TaskImages]) -> Iterator[Plan]:
    """Ever smaller selections: first quality goes, then maps of the error, then methods, then images."""
    images = max((len(task.hr) for task in tasks), default=0)
    methods = max((len(network.rows) for task in tasks for network in task.networks), default=0)
    yield Plan(None, None, None, None)
    for quality, heats in ((92, None), (80, None), (80, images // 2), (65, images // 2), (65, 2)):
        yield Plan(quality, heats, None, None)
    for fewer in (number for number in FEWER_METHODS if number < methods):
        yield Plan(65, 2, fewer, None)
    for count in (number for number in FEWER_IMAGES if number < images):
        yield Plan(65, 2 if count > 4 else 0, FEWER_METHODS[-1], count)
    yield Plan(65, 0, 4, 2)


def positions_of(network: NetworkImages, plan: Plan) -> tuple[int, ...]:
    """Return the positions of the samples that a plan shows of a network."""
    return network.positions[: plan.images]


def shown_positions(task: TaskImages, plan: Plan) -> dict[int, bool]:
    """Positions of a plan in any network -> whether their errors are mapped."""
    mapped: dict[int, bool] = {}
    for network in task.networks:
        for number, at in enumerate(positions_of(network, plan)):
            mapped[at] = mapped.get(at, False) or plan.heats is None or number < plan.heats
    return mapped


def restored_versions(task: TaskImages, plan: Plan) -> dict[tuple[str, str | None, str], dict[int, Pixels]]:
    """Restored images of a plan by method, weights and track; a frozen method restores alike for every classifier."""
    versions: dict[tuple[str, str | None, str], dict[int, Pixels]] = {}
    for network in task.networks:
        for row in shown_rows(network, plan):
            images = {at: network.sr[row.key][at] for at in positions_of(network, plan) if at in network.sr[row.key]}
            versions.setdefault((row.method, row.weights, row.track), {}).update(images)
    return versions


def shown_rows(network: NetworkImages, plan: Plan) -> list[Row]:
    """The rows of a plan: the yardsticks stay, then networks and what stands highest."""
    if plan.methods is None or len(network.rows) <= plan.methods:
        return list(network.rows)
    first = [row for row in network.rows if row.method in (BASELINE, PLAIN)]
    rest = sorted(
        (row for row in network.rows if row not in first), key=lambda row: (row.role != "network", row.rank or 0)
    )
    kept = {row.key for row in [*first, *rest][: plan.methods]}
    return [row for row in network.rows if row.key in kept]


def left_out(tasks: Sequence[TaskImages], plan: Plan) -> list[str]:
    """Say what a plan leaves out."""
    lines = []
    whole = Plan(None, None, None, None)
    images = sum(len(shown_positions(task, whole)) for task in tasks)
    shown = sum(len(shown_positions(task, plan)) for task in tasks)
    if plan.quality is not None:
        lines.append(
            f"the pictures are compressed (quality {plan.quality} of 100), so the finest texture is not to be judged by"
            " them; all numbers come from the exact pixels"
        )
    if shown < images:
        lines.append(f"{images - shown} of {images} kept images are left out")
    if plan.methods is not None and any(
        len(network.rows) > plan.methods for task in tasks for network in task.networks
    ):
        lines.append(f"the galleries show at most {plan.methods} methods; the tables have all of them")
    if plan.heats is not None:
        with_heat = sum(sum(shown_positions(task, plan).values()) for task in tasks)
        if with_heat < shown:
            lines.append(f"maps of the error are shown for {with_heat} of {shown} images")
    if lines:
        lines[-1] += "; --max-mb allows a larger page"
    return lines
