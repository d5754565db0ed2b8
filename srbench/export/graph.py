"""The network that is traced: from 8-bit LR to SR or to a network's outputs, by the harness's own restoring.

It calls what an evaluation calls, `restore` and `for_classifier`, so that the file holds the very steps of the table:
the method, the return to size, clamp, rounding, normalisation, and the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from srbench import __version__
from srbench.errors import ContractError, SrbenchError, UsageError
from srbench.export.sizes import LrSize
from srbench.imaging.degrade import for_classifier
from srbench.imaging.resample import Matrices, as_matrices, to_uint8
from srbench.method import Method
from srbench.networks.classifiers import ClassifierInfo
from srbench.protocol import Protocol
from srbench.restore import restore

INPUT, LOGITS, SR = "lr", "logits", "sr"  # names of the graph's tensors


class ExportError(SrbenchError):
    """A graph that cannot be made, or that differs from what was measured; the message names what does not go."""


@dataclass(frozen=True)
class Deployment:
    """What ships together.

    Attributes:
        name: Name of the method.
        method: The method, filled, in eval mode.
        weights: Label of its weights, or None.
        weights_sha256: Hash of their file, or None.
        network: What sees SR, [0, 1], or None where SR itself is the output.
        network_info: What identifies the network, or None.
        protocol: Its `sr` part: the return to size, clamp and rounding.
        lr_size: Sizes of LR.
        sr_size: Height and width of SR, pixels; None keeps the method's own factor.
    """

    name: str
    method: Method
    weights: str | None
    weights_sha256: str | None
    network: nn.Module | None
    network_info: ClassifierInfo | None
    protocol: Protocol
    lr_size: LrSize
    sr_size: tuple[int, int] | None

    def __post_init__(self) -> None:
        """Refuse what no graph can be.

        Raises:
            UsageError: If a range of sizes meets a fixed output, or a method has no factor of its own.
        """
        info = self.method.info
        if self.sr_size is None and info.factor == "any" and info.output == "hr":
            raise UsageError(
                f"{self.name} returns any size that it is asked for; say which with --input-size N, and give one LR"
                " size"
            )
        if self.lr_size.fixed:
            return
        if self.sr_size is not None:
            raise UsageError(
                f"--lr-size {self.lr_size} is a range, and the return to --input-size stands in the graph as matrices"
                " of one LR size; leave out --input-size, or export one graph a size"
            )
        if self.network is not None:
            raise UsageError(
                f"--lr-size {self.lr_size} is a range, and the network was measured at one input size; export one graph"
                " a size, or SR alone without --classifier"
            )

    @property
    def rounds(self) -> bool:
        """Whether SR has the 256 levels of 8 bits, so that it leaves the graph as uint8."""
        return self.protocol.sr.clamp and self.protocol.sr.round

    def metadata(self) -> dict[str, Any]:
        """Return what a file says about itself, as plain JSON types."""
        network = self.network_info
        sr = self.sr_size
        return {
            "srbench": __version__,
            "method": self.name,
            "method_version": self.method.info.version,
            "weights": self.weights,
            "weights_sha256": self.weights_sha256,
            "network": None if network is None else network.id,
            "network_sha256": None if network is None else network.sha256,
            "network_weights_sha256": None if network is None else network.weights_sha256,
            "classes": None if network is None or network.classes is None else list(network.classes),
            "protocol": self.protocol.name,
            "fingerprint": self.protocol.fingerprint,
            "lr_size": [list(self.lr_size.low), list(self.lr_size.high)],
            "sr_size": None if sr is None else list(sr),
            "input_size": None if sr is None else min(sr),
            "input": "lr: uint8, (N, H, W, C), RGB",
            "output": f"{LOGITS}: float32, (N, K)"
            if network is not None
            else f"{SR}: {'uint8' if self.rounds else 'float32, [0, 1]'}, (N, H, W, C), RGB",
            "precision": "fp32",
        }


class Graph(nn.Module):
    """A deployment as one network on 8-bit LR."""

    def __init__(self, deployment: Deployment) -> None:
        """Take the deployment's networks, and make the matrices that its sizes need.

        Raises:
            ExportError: If the method does not run as a graph.
        """
        super().__init__()
        self._deployment = deployment
        self.method = deployment.method
        self.network = deployment.network
        self.matrices = Matrices()
        self.eval()
        with torch.no_grad():
            try:
                self(self.example())
            except ContractError as error:
                raise ExportError(f"{deployment.name} cannot be exported: {error}") from error

    def example(self, n: int = 1) -> Tensor:
        """Return LR `(n, H, W, C)`, uint8, of the smallest size."""
        channels = self._deployment.method.info.channels
        generator = torch.Generator().manual_seed(0)
        size = (n, *self._deployment.lr_size.low, channels)
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)

    def forward(self, lr: Tensor) -> tuple[Tensor, ...]:
        """Return SR `(N, H, W, C)`, and before it the network's outputs `(N, K)`, float32, where there is a network.

        Args:
            lr: `(N, H, W, C)`, RGB, uint8.
        """
        deployment = self._deployment
        image = lr.permute(0, 3, 1, 2).float() / 255
        with as_matrices(self.matrices):
            sr = restore(
                deployment.method,
                image,
                deployment.sr_size or native_size(deployment.method, (lr.shape[1], lr.shape[2])),
                restoration=deployment.protocol.sr,
                numerics=None,
                name=deployment.name,
            )
            seen = for_classifier(sr, deployment.protocol)
            shown = (to_uint8(seen) if deployment.rounds else seen).permute(0, 2, 3, 1)
            return (shown,) if self.network is None else (self.network(seen), shown)


def native_size(method: Method, lr_size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of what a method makes of LR of a size, where nothing asks for another."""
    factor = method.info.factor
    return lr_size if factor == "any" else (lr_size[0] * factor, lr_size[1] * factor)
