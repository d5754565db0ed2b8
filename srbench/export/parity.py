"""Holds a file against what was measured: torch and the runtime on the same LR, decisions, pixels, time and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srbench.compute.numerics import Numerics
from srbench.compute.timing import Timing, measure
from srbench.export.graph import Deployment, ExportError, native_size
from srbench.export.session import Session
from srbench.imaging.degrade import for_classifier
from srbench.restore import restore

_BUDGET_S = 0.5  # of each measurement
_LARGEST_STEP = 1.01  # of 8 bits: a value that lies on the border of two levels may be rounded either way
Images = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Parity:
    """How far a file is from torch.

    Attributes:
        n: Images compared.
        equal: Images with the same largest logit; None without a network.
        largest_logit: Largest difference of a logit, or None.
        largest_step: Largest difference of a pixel of SR, in steps of 8 bits.
        torch_ms: Milliseconds an image of torch at batch 1, from 8-bit LR on: median, 10th and 90th percentile.
        runtime_ms: The same of the file in the runtime, taken in the same run.
        torch_mb: Size of the networks' parameters and buffers, 10^6 bytes.
        file_mb: Size of the file, 10^6 bytes.
        threads: Threads of both.
    """

    n: int
    equal: int | None
    largest_logit: float | None
    largest_step: float
    torch_ms: tuple[float, float, float]
    runtime_ms: tuple[float, float, float]
    torch_mb: float
    file_mb: float
    threads: int

    def rows(self, runtime: str) -> list[tuple[str, str, str, str]]:
        """Return the table: what, torch, the runtime, and how they differ."""
        ms, other = self.torch_ms, self.runtime_ms
        rows = [
            (
                "ms an image",
                f"{ms[0]:.1f} ({ms[1]:.1f}..{ms[2]:.1f})",
                f"{other[0]:.1f} ({other[1]:.1f}..{other[2]:.1f})",
                f"{ms[0] / other[0]:.2f} x as fast",
            ),
            ("MB", f"{self.torch_mb:.2f}", f"{self.file_mb:.2f}", _times(self.file_mb, self.torch_mb)),
            ("SR, 8-bit steps", "", "", f"at most {self.largest_step:.3g}"),
        ]
        if self.equal is not None:
            rows.insert(0, ("equal decisions", "", "", f"{self.equal} of {self.n}"))
            rows.insert(1, ("logits", "", "", f"at most {self.largest_logit:.2g}"))
        return [("", "torch", runtime, f"{self.n} images, {self.threads} thread(s)"), *rows]


class Reference(nn.Module):
    """What an evaluation makes of 8-bit LR, in torch: the restored image and the network's outputs."""

    def __init__(self, deployment: Deployment) -> None:
        """Take the networks, and lay them out as an evaluation does."""
        super().__init__()
        self._deployment = deployment
        self.method, self.network = deployment.method, deployment.network
        self.eval()
        self.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(self, lr: NDArray[np.uint8]) -> tuple[Tensor | None, Tensor]:
        """Return logits `(N, K)` or None, and SR `(N, C, H, W)`, of LR `(N, H, W, C)`, uint8."""
        deployment = self._deployment
        image = torch.from_numpy(np.ascontiguousarray(lr.transpose(0, 3, 1, 2))).float() / 255
        numerics = Numerics(device="cpu")
        size = deployment.sr_size or native_size(deployment.method, lr.shape[1:3])
        sr = restore(
            deployment.method,
            image,
            size,
            restoration=deployment.protocol.sr,
            numerics=numerics,
            name=deployment.name,
        )
        seen = for_classifier(sr, deployment.protocol)
        with numerics.active():
            return (None if self.network is None else self.network(seen)), seen

    @property
    def megabytes(self) -> float:
        """Size of parameters and buffers, 10^6 bytes."""
        tensors = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6


@dataclass
class _Worst:
    n: int = 0
    equal: int = 0
    logit: float = 0.0
    step: float = 0.0


def compare(reference: Reference, shipped: Session, images: Images, *, probe: Session | None = None) -> Parity:
    """Run every image through torch and the file, then time both.

    Args:
        reference: Torch.
        shipped: The file.
        images: LR, `(H, W, C)`, RGB, uint8.
        probe: The same graph with SR as a further output, where the file has none; None where it is not asked for.
    """
    worst, has_network = _Worst(), reference.network is not None
    for lr in images:
        logits, sr = reference(lr[None])
        outputs = dict(zip(shipped.outputs, shipped(lr[None]), strict=True))
        if probe is not None:
            outputs |= {name: value for name, value in zip(probe.outputs, probe(lr[None]), strict=True) if name == "sr"}
        worst.n += 1
        if logits is not None:
            mine, its = logits.float().numpy(), outputs["logits"]
            worst.equal += int((mine.argmax(1) == its.argmax(1)).sum())
            worst.logit = max(worst.logit, float(np.abs(mine - its).max()))
        if "sr" in outputs:
            restored = sr.permute(0, 2, 3, 1).numpy() * 255
            its = outputs["sr"].astype(np.float32) * (1 if outputs["sr"].dtype == np.uint8 else 255)
            worst.step = max(worst.step, float(np.abs(restored - its).max()))
    one = images[0][None]
    ms = [
        _ms(measure(call, device="cpu", batch_size=1, budget_s=_BUDGET_S))
        for call in (lambda: reference(one), lambda: shipped(one))
    ]
    return Parity(
        n=worst.n,
        equal=worst.equal if has_network else None,
        largest_logit=worst.logit if has_network else None,
        largest_step=worst.step,
        torch_ms=ms[0],
        runtime_ms=ms[1],
        torch_mb=reference.megabytes,
        file_mb=shipped.megabytes,
        threads=torch.get_num_threads(),
    )


def check_faithful(parity: Parity, name: str) -> None:
    """Refuse a float file whose SR is not the one that was measured.

    Raises:
        ExportError: If a pixel is off by more than one step of 8 bits.
    """
    if parity.largest_step > _LARGEST_STEP:
        raise ExportError(
            f"the graph of {name} is not faithful: SR differs from torch's by up to {parity.largest_step:.3g} steps of"
            " 8 bits, expected at most 1; nothing was written, ship the torch network instead"
        )


def _times(mine: float, its: float) -> str:
    return f"{mine / its:.2f} x" if its else ""  # an interpolation has no parameters


def _ms(timing: Timing) -> tuple[float, float, float]:
    return 1e3 * timing.median_s, 1e3 * timing.p10_s, 1e3 * timing.p90_s
