"""Plain data as somebody may damage it by hand."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

HUGE = 10**400
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([HUGE, -HUGE, 2**63, 2**63 - 1]),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab.", max_size=3), inner, max_size=2)
)


def paths(raw: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every entry inside plain data."""
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [path for key, entry in items for path in ((*before, key), *paths(entry, (*before, key)))]


@st.composite
def damaged(draw: st.DrawFn, good: Any) -> Any:
    """Return a copy of plain data with one or two entries replaced, removed or added."""
    raw = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 2))):
        *way, last = draw(st.sampled_from(paths(raw)))
        entry = raw
        for key in way:
            entry = entry[key]
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "remove":
            del entry[last]
        elif how == "add" and isinstance(entry, dict):
            entry[draw(st.text("abc", min_size=1, max_size=3))] = draw(VALUES)
        else:
            entry[last] = draw(VALUES)
        if not paths(raw):
            break
    return raw
