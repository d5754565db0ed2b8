"""What `srbench bench --runtime onnx` measures: the calls of an exported file, beside those of torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from srbench.evaluation.loaded_methods import LoadedMethod, load_method
from srbench.evaluation.runtimes import ExportedFile, eight_bits, export_float
from srbench.imaging.decode import decode
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.registry import Registry

Size = tuple[int, int]


class ExportedCalls:
    """The calls of one method and network as a file, which is made when the first of them is called."""

    def __init__(
        self, loaded: LoadedMethod, network: Classifier | None, protocol: Protocol, lr_size: Size, sr_size: Size
    ) -> None:
        """Keep what the file is made of.

        Args:
            loaded: The method.
            network: The network behind, or None.
            protocol: The protocol.
            lr_size: Height and width of LR.
            sr_size: Those of SR.
        """
        self._made_of = loaded, network, protocol, lr_size, sr_size

    @classmethod
    def of_network(cls, network: Classifier, protocol: Protocol, size: Size) -> ExportedCalls:
        """Return those of a network alone, behind the method that hands on images of this size as they are."""
        return cls(load_method("none", Registry().get("none"), None, protocol), network, protocol, size, size)

    def restore(self, lr: Tensor) -> None:
        """Restore LR `(N, 3, h, w)`, RGB, float32, on the levels of 8 bits."""
        self._file.restoring(eight_bits(lr))

    def classify(self, image: Tensor) -> None:
        """Run the whole file on images `(N, 3, h, w)`, RGB, float32."""
        self._file.shipped(eight_bits(image))

    def from_files(self, paths: Sequence[Path]) -> None:
        """Decode images and run the whole file on them."""
        self._file.shipped(np.stack([decode(path).permute(1, 2, 0).numpy() for path in paths]))

    @cached_property
    def _file(self) -> ExportedFile:
        return export_float(*self._made_of)
