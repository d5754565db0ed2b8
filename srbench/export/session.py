"""An exported file in ONNX Runtime; nothing here needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srbench.errors import UsageError
from srbench.files.regular import read_regular

METADATA = "srbench"  # key of what a file says about itself


class Session:
    """A graph that ONNX Runtime runs on the CPU.

    Attributes:
        metadata: What the file says about itself.
        megabytes: Size of the file, 10^6 bytes.
    """

    def __init__(self, model: Path | bytes, *, threads: int = 0) -> None:
        """Load a file, or its bytes.

        Args:
            model: The file.
            threads: Threads within an operator; 0 leaves the choice to the runtime.

        Raises:
            UsageError: If ONNX Runtime is missing, or this is no file of `srbench export`.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UsageError(
                "onnxruntime is missing; install it with: pip install 'srbench-resizing[export]'"
            ) from None
        data = model if isinstance(model, bytes) else _read(model)
        where = "the graph" if isinstance(model, bytes) else str(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # the runtime raises types of its own, which share no base class
            raise UsageError(f"{where} cannot be run by ONNX Runtime: {str(error).splitlines()[0]}") from error
        properties = self._session.get_modelmeta().custom_metadata_map
        if METADATA not in properties:
            raise UsageError(f"{where} was not written by `srbench export`; make it with: srbench export METHOD ...")
        self.metadata = _metadata(properties[METADATA], where)
        self.megabytes = len(data) / 1e6
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise UsageError(f"{where} has {len(inputs)} inputs, expected LR alone; export it again")
        self._input = inputs[0].name

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs: "logits", "sr"."""
        return [output.name for output in self._session.get_outputs()]

    def __call__(self, lr: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """Return the outputs for LR `(N, H, W, C)`, RGB, uint8."""
        return self._session.run(None, {self._input: lr})


def _metadata(text: str, where: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise UsageError(f"{where} holds damaged metadata; export it again")
    return metadata


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
