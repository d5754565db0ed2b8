"""The card: what one must know about trained weights; it travels inside their file."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from srbench.errors import WeightsError
from srbench.files.strict import canonical_json
from srbench.files.validate import PlainJson, Positive, validated

Anything = Annotated[dict[str, Any], PlainJson()]


@dataclass(frozen=True)
class Card:
    """What one must know about trained weights; it travels inside the file.

    Attributes:
        namespace: Method the weights belong to, or "classifiers".
        name: Name of the weights.
        parameters: Constructor arguments of the network.
        track: "frozen", or "adapted" when the file also holds the classifier trained along.
        tasks: Datasets the weights are offered on under `--all` (["demo"]); empty means any.
        scale: Scale of the degradation trained for, or None for any.
        factor: Enlargement of the network, or None for any.
        teacher: {"id", "sha256"} of the classifier trained against, the first of several, or None.
        recipe: Every setting of the run.
        data: What it was trained and validated on.
        command: Command line that made it.
        commit: Commit of srbench that made it.
        device: Device it was made on.
        date: Day it was made, ISO.
        licence: Licence of the weights.
        metrics: Figures of the selected epoch on the validation data.
        extra: Anything else worth keeping (input size, mean and std, class names, seconds, steps, all teachers).
    """

    namespace: str
    name: str
    parameters: Anything = field(default_factory=dict)
    track: Literal["frozen", "adapted"] = "frozen"
    tasks: tuple[str, ...] = ()
    scale: Annotated[float, Interval(gt=0, le=1)] | None = None
    factor: Positive | None = None
    teacher: dict[str, str] | None = None
    recipe: Anything = field(default_factory=dict)
    data: Anything = field(default_factory=dict)
    command: str = ""
    commit: str | None = None
    device: str = ""
    date: str = ""
    licence: str = ""
    metrics: Anything = field(default_factory=dict)
    extra: Anything = field(default_factory=dict)

    @property
    def teachers(self) -> tuple[dict[str, str], ...]:
        """{"id", "sha256"} of every classifier trained against, one or several."""
        return tuple(self.extra.get("teachers") or ([self.teacher] if self.teacher is not None else []))

    def taught_by(self, sha256: str) -> bool:
        """Say whether a classifier is among the teachers."""
        return any(teacher.get("sha256") == sha256 for teacher in self.teachers)

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain JSON types."""
        return dataclasses.asdict(self) | {"tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, text: str, *, origin: str = "the card") -> Card:
        """Read a card, ignoring fields that a newer srbench may have added; `origin` names it in error messages.

        Raises:
            WeightsError: If the text is no JSON, or a field is missing or of another type.
        """
        from pydantic_core import from_json

        remedy = "; save the weights again"
        try:
            raw = from_json(text.encode(errors="replace"))
        except ValueError as error:
            raise WeightsError(f"{origin} is damaged, it is not valid JSON ({error}){remedy}") from None
        if isinstance(raw, dict) and "owner" in raw:  # what cards of 0.1.0 call it
            raw = {"namespace": raw["owner"], **raw}
        card = validated(cls, raw, origin=origin, error=WeightsError, unknown="ignore", remedy=remedy)
        several = card.extra.get("teachers", [])
        for teacher in [card.teacher, *(several if isinstance(several, list) else [several])]:
            if teacher is not None and not (isinstance(teacher, dict) and {"id", "sha256"} <= teacher.keys()):
                raise WeightsError(f"{origin}: teacher must have id and sha256, got {teacher}{remedy}")
        return card


# What two trainings share that differ in the seed alone. Names, dates, machines and results are not among it.
_OF_TRAINING = ("namespace", "parameters", "track", "tasks", "scale", "factor", "teacher", "recipe", "data")
_OF_EXTRA = ("protocol", "precision", "ranks")


def lineage(card: Mapping[str, Any]) -> str:
    """Return a hash of all that a training was made from but its seed: equal for runs that differ in the seed alone.

    Args:
        card: Fields of a card, as `Card.to_json` gives them and records keep them.
    """
    extra = card.get("extra", {})
    parts = {name: card.get(name) for name in _OF_TRAINING} | {name: extra.get(name) for name in _OF_EXTRA}
    # Cards of before the start was recorded say it in their command line.
    parts["init"] = extra["init"] if "init" in extra else _start(card.get("command", ""))
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _start(command: str) -> str | None:
    """Return the argument of --init-from in a command line, or None."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    named = [value for option, value in itertools.pairwise(words) if option == "--init-from"]
    joined = [word.partition("=")[2] for word in words if word.startswith("--init-from=")]
    return next(iter([*named, *joined]), None)
