"""A batch restored by one method, at as many sizes as classifiers ask for."""

from __future__ import annotations

import torch
from torch import Tensor

from srbench.evaluation.batches import Batch
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.options import PassSettings, in_parts
from srbench.evaluation.rows import Stopwatch
from srbench.imaging.colour import to_channels
from srbench.imaging.degrade import restore_size
from srbench.protocol import Protocol
from srbench.restore import native, serves_all_sizes


class RestoredBatch:
    """A batch restored by one method, brought to as many sizes as are asked for.

    A network of fixed factor runs once, and its native output serves all sizes, as do images restored elsewhere. A
    method of factor "any" runs once for each size.

    Attributes:
        loaded: The method.
        calls: How often it has run.
    """

    def __init__(self, loaded: LoadedMethod, batch: Batch, protocol: Protocol, settings: PassSettings) -> None:
        """Run the method where one run serves all sizes.

        Args:
            loaded: The method.
            batch: The images.
            protocol: The protocol.
            settings: Device, arithmetic and channels.

        Raises:
            ContractError: If the method's output is not what its contract says.
        """
        self.loaded, self.calls = loaded, 0
        self._batch, self._protocol, self._settings = batch, protocol, settings
        self._native: Tensor | None = None
        self._watches: tuple[Stopwatch, ...] = ()
        watch = Stopwatch(settings.device)
        if loaded.images is not None:
            with watch:
                sr = loaded.images.batch(batch.ids).to(settings.device)
                self._native = to_channels(to_channels(sr, settings.channels), 3)
            self._watches = (watch,)
        elif loaded.method is not None and serves_all_sizes(loaded.method):
            self._native, self._watches = self._run(batch.sr_size, watch), (watch,)

    def at(self, size: tuple[int, int]) -> tuple[Tensor, tuple[Stopwatch, ...]]:
        """Return SR `(N, 3, *size)`, RGB, float32, as the method made it, and what restoring it takes in all.

        What does not come at the size of SR, such as LR that is handed on, stays as it comes.

        Raises:
            ContractError: If the method's output is not what its contract says.
        """
        watch = Stopwatch(self._settings.device)
        if self._native is None:
            return self._run(size, watch), (watch,)
        if self.loaded.cls.info.output != "hr":
            return self._native, self._watches
        with watch:
            sr = restore_size(self._native, size, self._protocol.sr)
        return sr, (*self._watches, watch)

    def _run(self, size: tuple[int, int], watch: Stopwatch) -> Tensor:
        assert self.loaded.method is not None and self._batch.lr is not None
        self.calls += 1
        method = self.loaded.method

        def restored(lr: Tensor) -> Tensor:
            return native(
                method,
                lr.clone(),  # a method that writes to its input must not change what the others see
                size,
                numerics=self._settings.numerics,
                channels=self._settings.channels,
                name=self.loaded.name,
            )

        with watch:
            parts = in_parts(self._settings, self.loaded.title, restored, self._batch.lr)
            return parts[0] if len(parts) == 1 else torch.cat(parts)
