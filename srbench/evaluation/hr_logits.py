"""Caches the classifier's predictions on HR, so that it classifies each original once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.hr_cache import HRStore
from srbench.errors import ContractError
from srbench.evaluation.batches import Batch
from srbench.evaluation.counters import Counters
from srbench.evaluation.options import PassSettings
from srbench.files.atomic import write_bytes
from srbench.files.paths import cache_dir
from srbench.files.strict import canonical_json
from srbench.networks.classifiers import Classifier
from srbench.restore import is_finite


class HrLogits:
    """The logits of a chunk's HR images by one network: from the cache, or computed as the batches of the chunk pass.

    Attributes:
        logits: `(len(chunk), K)`, float32, on the device; rows of batches that have not passed yet are undefined.
    """

    def __init__(
        self,
        classifier: Classifier,
        chunk: NDArray[np.int64],
        hr_store: HRStore,
        settings: PassSettings,
        counters: Counters,
    ) -> None:
        """Read the cache.

        Args:
            classifier: The network.
            chunk: Positions of the images.
            hr_store: The HR images.
            settings: Device and arithmetic, on which logits depend.
            counters: Raised by what is classified.
        """
        self._classifier, self._settings, self._counters = classifier, settings, counters
        self._path = _path(classifier, chunk, hr_store, settings)
        shape = (len(chunk), classifier.info.n_classes)
        cached = _read(self._path, shape)
        self._complete = cached is not None
        self.logits: Tensor = (
            torch.empty(shape, device=settings.device)
            if cached is None
            else torch.from_numpy(cached).to(settings.device)
        )

    def add(self, batch: Batch) -> None:
        """Classify the HR images of a batch of the chunk, unless their logits are known."""
        if self._complete:
            return
        with self._settings.numerics.active():
            logits = self._classifier(batch.hr)
        self.logits[batch.rows] = logits.float()
        self._counters.add(self._counters.hr_classified, self._classifier.id, len(batch.ids))

    def flush(self) -> None:
        """Store the logits once all batches of the chunk have passed.

        Raises:
            ContractError: If they are not finite.
            RecordError: If they cannot be written.
        """
        if self._complete:
            return
        if not bool(is_finite(self.logits)):
            raise ContractError(not_finite_logits(self._classifier.id))
        array = self.logits.cpu().numpy()
        write_bytes(self._path, lambda stream: np.save(stream, array, allow_pickle=False))
        self._complete = True


def not_finite_logits(classifier: str | None) -> str:
    """Return what is said of a network whose logits are not finite."""
    return f"classifier {classifier} returned NaN or infinite logits; check its weights"


def _path(classifier: Classifier, chunk: NDArray[np.int64], hr_store: HRStore, settings: PassSettings) -> Path:
    key = hashlib.sha256(
        f"{hr_store.key}|{classifier.info.sha256}|{canonical_json(settings.numerics.to_json())}".encode()
    ).hexdigest()
    rows = hashlib.sha256(np.ascontiguousarray(chunk, dtype=np.int64).tobytes()).hexdigest()[:16]
    return cache_dir() / "logits" / key / f"{int(chunk[0]):08d}-{int(chunk[-1]) + 1:08d}-{rows}.npy"


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Read cached logits, or return None where there are none, or where they are damaged."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    intact = array.shape == shape and array.dtype == np.float32 and bool(np.isfinite(array).all())
    return array if intact else None
