"""In which arithmetic a run computes: the type of its device, its precision, and whether TF32 is allowed.

Values that were computed in different arithmetic differ by more than methods do, so a record says which it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from srbench.errors import UsageError

if TYPE_CHECKING:  # records are read without torch, and they say numerics
    import torch

PRECISIONS = ("auto", "fp32", "tf32", "bf16")  # what `--precision` takes


@dataclass(frozen=True)
class Numerics:
    """The arithmetic of a run.

    Attributes:
        device: Type of the device.
        precision: "fp32", or "bf16" for autocast to bfloat16.
        tf32: Whether a CUDA device may multiply float32 in TF32, which keeps 10 of the 23 bits of a mantissa.
    """

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: bool = False

    @classmethod
    def of(cls, device: torch.device | str, precision: str, *, auto: Literal["fp32", "bf16"] = "fp32") -> Numerics:
        """Return the arithmetic that `--precision` asks for on a device.

        Args:
            device: Where the run computes.
            precision: One of `PRECISIONS`; "tf32" is fp32 with TF32 allowed.
            auto: What "auto" stands for.

        Raises:
            UsageError: If the precision is unknown, or the device does not have it.
        """
        where = str(device).partition(":")[0]
        if precision not in PRECISIONS:
            raise UsageError(f"--precision takes {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {precision!r}")
        if where not in {"cpu", "cuda"}:
            raise UsageError(f"srbench computes on cpu or cuda, got a device of type {where!r}")
        if precision == "tf32" and where != "cuda":
            raise UsageError("--precision tf32 needs a CUDA device; a CPU takes fp32 or bf16")
        wanted = auto if precision == "auto" else precision
        return cls(
            device="cuda" if where == "cuda" else "cpu",
            precision="bf16" if wanted == "bf16" else "fp32",
            tf32=wanted == "tf32",
        )

    @property
    def name(self) -> str:
        """What `--precision` calls it: "fp32", "tf32" or "bf16"."""
        return "tf32" if self.tf32 else self.precision

    @property
    def dtype(self) -> torch.dtype:
        """The type that matrices are multiplied in."""
        import torch

        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def arithmetic(self) -> str:
        """What matrices are multiplied in: "float32", "tf32" or "bfloat16"."""
        return "tf32" if self.tf32 else {"fp32": "float32", "bf16": "bfloat16"}[self.precision]

    def autocast(self) -> torch.autocast:
        """Return the autocast context; where the precision is fp32 it switches an outer autocast off."""
        import torch

        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Compute in this arithmetic inside the block: autocast, and TF32 as it is stated. Both are restored."""
        with tf32_allowed(self.tf32), self.autocast():
            yield

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON types, for input hashes."""
        return dataclasses.asdict(self)

    def difference(self, other: Numerics) -> str | None:
        """Say which fields differ from another's, such as "precision (fp32 and bf16)", or None where none does."""
        parts = [
            f"{item.name} ({_word(getattr(self, item.name))} and {_word(getattr(other, item.name))})"
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != getattr(other, item.name)
        ]
        return ", ".join(parts) or None


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in convolutions and matrix products inside the block, and restore what was set before.

    PyTorch allows it in convolutions by default. The setting belongs to the process, whatever the thread.
    """
    import torch

    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    if before == (allowed, allowed):  # writing it, even unchanged, would break the graph of a compiled network
        yield
        return
    convolutions.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply in float32 inside the block, whatever the precision of the run: no autocast, and no TF32."""
    import torch

    if device.type not in ("cpu", "cuda"):  # "meta", where MACs are counted and nothing is computed
        yield
        return
    with torch.autocast(device.type, enabled=False):
        if device.type == "cuda":
            with tf32_allowed(False):
                yield
        else:
            yield


def _word(value: object) -> str:
    return {True: "allowed", False: "not allowed"}.get(value, str(value)) if isinstance(value, bool) else str(value)
