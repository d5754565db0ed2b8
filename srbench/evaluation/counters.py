"""Counts what an evaluation read, degraded and classified; tests check that each happened once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields


@dataclass
class Counters:
    """What an evaluation really did.

    Attributes:
        decoded: Images decoded and cropped.
        hr_read: HR images that the pass read from the cache of decoded images.
        degraded: LR images made.
        hr_classified: HR images classified, by classifier.
        restored: Images restored, by method@weights; once for all input sizes where the method's factor is fixed.
        sr_classified: SR images classified, by method@weights and classifier; HR at another input size counts here too.
    """

    decoded: int = 0
    hr_read: int = 0
    degraded: int = 0
    hr_classified: dict[str, int] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    sr_classified: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def add(group: dict[str, int], key: str, count: int) -> None:
        """Add to one of the counters by name."""
        group[key] = group.get(key, 0) + count

    @classmethod
    def total(cls, parts: Iterable[Counters]) -> Counters:
        """Return the sum of the counters of several processes."""
        total = cls()
        for part in parts:
            for each in fields(cls):
                count = getattr(part, each.name)
                if isinstance(count, int):
                    setattr(total, each.name, getattr(total, each.name) + count)
                else:
                    for key, value in count.items():
                        cls.add(getattr(total, each.name), key, value)
        return total
