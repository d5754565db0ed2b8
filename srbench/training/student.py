"""Wraps all trained modules into one, because DDP watches one forward call a step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from srbench.errors import UsageError
from srbench.method import Batch
from srbench.training.trainee import Helpers, Phase, Trainee

_SINGLE_VALUE = "Expected more than 1 value per channel"  # how torch's error begins


class SealedBatch:
    """Carries a batch through Fabric, which would otherwise take the frozen dataclass apart.

    Attributes:
        batch: The batch.
        sr: SR of the batch, detached, for a helper.
        phase: Number of the phase whose losses are wanted.
    """

    def __init__(self, batch: Batch, sr: Tensor | None = None, *, phase: int = 0) -> None:
        """Wrap a batch."""
        self.batch, self.sr, self.phase = batch, sr, phase


class Student(nn.Module):
    """All that is trained, as one module; its forward is one phase of a training step."""

    def __init__(self, trainee: Trainee, phases: Sequence[Phase]) -> None:
        """Take over the trainee's parts."""
        super().__init__()
        self.parts = nn.ModuleDict(dict(trainee.parts()))
        self._phases, self._who = tuple(phases), trainee.who

    def forward(self, sealed: SealedBatch) -> dict[str, Tensor]:
        """Return the wanted terms of a phase, each a scalar.

        Raises:
            UsageError: If the trainee lacks a term that the recipe weighs, or batch norm gets a single value.
        """
        phase = self._phases[sealed.phase]
        try:
            terms = phase.step(sealed.batch)
        except ValueError as error:
            if not str(error).startswith(_SINGLE_VALUE):
                raise
            count, _, height, width = sealed.batch.hr.shape
            raise UsageError(
                f"batch norm of {self._who} gets a single value from {count} image of {height} x {width} pixels, which"
                " has no statistics; leave the image out where no other has its size, bring all to one size by"
                " --protocol, or cut patches with --set patch=SIDE"
            ) from error
        missing = [name for name in phase.losses if name not in terms]
        if missing:
            raise UsageError(
                f"the recipe weighs the loss term {missing[0]!r}, which {self._who} does not return;"
                f" it returns {', '.join(sorted(terms)) or 'none'}"
            )
        return {name: terms[name] for name in phase.losses}


class Helper(nn.Module):
    """A network that is trained beside the student, on its detached SR."""

    def __init__(self, name: str, helpers: Helpers) -> None:
        """Take over one of the helpers by its name."""
        super().__init__()
        self.network = helpers.networks[name]
        self._name, self._loss = name, helpers.loss

    def forward(self, sealed: SealedBatch) -> Tensor:
        """Return the helper's loss, a scalar."""
        assert sealed.sr is not None
        return self._loss(self._name, sealed.batch, sealed.sr)
