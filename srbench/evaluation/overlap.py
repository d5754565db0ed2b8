"""Which of the samples that are scored a network was trained on, as far as the card of its weights tells it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from srbench.data.catalogue import open_source
from srbench.data.readers.files import hash_split
from srbench.data.source import Source
from srbench.errors import SrbenchError
from srbench.weights import Card


def trained_ids(card: Card | None, source: Source, data: str) -> frozenset[str]:
    """Return the ids of the samples of a source that weights were trained on.

    A card names each dataset that it was trained on by SPEC and split; only the dataset that is scored is looked up.

    Args:
        card: The card of the weights, or None where there is none.
        source: What is scored.
        data: The SPEC that opened it.
    """
    entries = (card.data.get("train") or ()) if card is not None else ()
    limit = card.data.get("limit") if card is not None else None
    found: set[str] = set()
    for entry in entries:
        if entry.get("spec") == source.spec:
            ids = [sample.id for sample in source.samples]
            found |= _trained(entry, data, limit) & set(ids)
    return frozenset(found)


def held_out(source: Source, data: str, trained: Iterable[frozenset[str]]) -> Source | None:
    """Return the test split of the data where all of them would be scored and some were trained on, else None."""
    if source.split != "all" or not any(trained):
        return None
    try:
        return open_source(data, "test")
    except SrbenchError:  # no image falls into it
        return None


def _trained(entry: Mapping[str, Any], data: str, limit: int | None) -> set[str]:
    """Return the ids that an entry of a card stands for: those of a split, its own or by the hash of the id."""
    split = entry.get("split")
    if split in ("all", "train+val"):
        ids = [each for each in _ids(data, "all") if split == "all" or hash_split(each) != "test"]
    else:
        ids = _ids(data, str(split))
        rest = [each for each in ids if hash_split(each) != "val"]
        if len(ids) != entry.get("n") and len(rest) == entry.get("n"):  # a tenth of its own split was for validation
            ids = rest
    if limit is None or limit >= len(ids):
        return set(ids)
    return set(sorted(ids, key=lambda each: hashlib.sha256(each.encode()).digest())[:limit])


def _ids(data: str, split: str) -> list[str]:
    try:
        return [sample.id for sample in open_source(data, split).samples]
    except SrbenchError:
        return []
