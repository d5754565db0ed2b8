"""Reads rate.json of `srbench rate`: ways of sending an image, with bytes and decisions of every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from srbench.errors import RecordError, UsageError
from srbench.files.paths import user_path
from srbench.files.validate import Count, NotNegative, PlainJson, Positive, Share, validated

RATE_FILE: Final = "rate.json"
WHOLE: Final = "whole"  # the "method" of images that are sent at HR size: none


@dataclass(frozen=True)
class Sending:
    """One way of sending an image; see `srbench.evaluation.rate.Setting` and `Scored`."""

    side: Positive
    codec: str
    quality: Positive
    method: str
    mean_bytes: NotNegative
    accuracy: Share
    ci: tuple[float, float]
    best_input_sizes: tuple[Positive, Positive]
    frontier: bool
    bytes: tuple[Count, ...]
    right: tuple[Count, ...]

    @property
    def label(self) -> str:
        """What a person reads."""
        return f"{self.side} px {self.codec} q{self.quality}, {self.method}"


@dataclass(frozen=True)
class Sendings:
    """A rate.json."""

    schema_version: Literal[1]
    network: str
    protocol: Annotated[dict[str, Any], PlainJson()]
    ids: tuple[str, ...]
    settings: tuple[Sending, ...]
    bd_rate: tuple[Annotated[dict[str, Any], PlainJson()], ...]


def read_sendings(folders: Sequence[Path | str]) -> Sendings:
    """Read the one rate.json that lies in these folders.

    Raises:
        UsageError: If there is none, or more than one.
        RecordError: If it cannot be read.
    """
    paths = [path for folder in folders if (path := user_path(folder) / RATE_FILE).is_file()]
    if len(paths) != 1:
        where = ", ".join(map(str, paths)) if paths else "none of the folders"
        raise UsageError(
            f"--max-bytes chooses among what `srbench rate --out FOLDER` measured, one {RATE_FILE}; it lies in {where}"
        )
    try:
        text = paths[0].read_bytes()
    except OSError as error:
        raise RecordError(f"cannot read {paths[0]}: {error.strerror or error}") from error
    return validated(Sendings, text, origin=str(paths[0]), error=RecordError, remedy="; run srbench rate again")
