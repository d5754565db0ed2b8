"""Plans an evaluation: which cells a task has, which are stored (by the hash of their inputs), which do not apply."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from srbench.data.hr_cache import HRStore
from srbench.data.source import sample_list_sha256
from srbench.evaluation import runtimes
from srbench.evaluation.loaded_methods import LoadedMethod
from srbench.evaluation.overlap import trained_ids
from srbench.evaluation.resolve import Evaluation
from srbench.evaluation.sizes import SMALL_SIDE, further_sizes, lr_side, sr_side
from srbench.method import TaskInfo
from srbench.networks.classifiers import Classifier
from srbench.protocol import Protocol
from srbench.records.cells import cell_folder, is_fresh
from srbench.records.schema import BASELINE, ORACLE, CellKey, hash_inputs
from srbench.registry import listed
from srbench.task_types import OutputMap, TaskType, task_type
from srbench.weights import Card

ORACLE_VERSION = "1"


@dataclass(frozen=True)
class ScoredNetwork:
    """A classifier with what the pass must know of it.

    Attributes:
        classifier: The network on images in [0, 1], or None for image metrics alone.
        task_type: What it is asked for.
        outputs: How its outputs answer; None without a classifier.
    """

    classifier: Classifier | None
    task_type: TaskType
    outputs: OutputMap | None

    @property
    def id(self) -> str | None:
        """Id of the classifier, or None."""
        return self.classifier.id if self.classifier is not None else None


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a task: stored already, to be computed, or skipped.

    Attributes:
        key: Which cell it is.
        loaded: The method, or None for the original.
        scored: The classifier.
        folder: Where its record goes.
        input_hash: Hash of everything that its values depend on.
        skip: Why it does not apply, or None.
        fresh: Whether it is stored, ok or skipped, for exactly these inputs.
        own_side: Where images are small by nature: the shortest side to which they are enlarged for this classifier if
            no other input size is asked for. None where HR gives the size.
        adapted: The classifier that was trained along with the method, where the cell has to be computed by it.
        trained_on: How many of the samples the classifier was trained on, and how many the method.
    """

    key: CellKey
    loaded: LoadedMethod | None
    scored: ScoredNetwork
    folder: Path
    input_hash: str
    skip: str | None
    fresh: bool
    own_side: int | None = None
    adapted: nn.Module | None = field(default=None, repr=False)
    trained_on: tuple[int, int] = (0, 0)

    @property
    def is_missing(self) -> bool:
        """Whether the pass has to compute it."""
        return not self.fresh and self.skip is None

    @property
    def side(self) -> int | None:
        """Shortest side of what the classifier receives, pixels; None where it is that of HR."""
        return self.key.input_size if self.key.input_size is not None else self.own_side

    @property
    def network(self) -> nn.Module | None:
        """The classifier that decides on the method's images."""
        return self.adapted if self.adapted is not None else self.scored.classifier


def task_id(evaluation: Evaluation, protocol: Protocol, hr_store: HRStore) -> str:
    """Return the id of a task: another fingerprint or sample list under the same names is another task."""
    source, limit = evaluation.source, evaluation.options.limit
    inputs = f"{protocol.fingerprint}|{sample_list_sha256(hr_store.samples)}|{source.spec}"
    tag = hashlib.sha256(inputs.encode()).hexdigest()[:6]
    limited = f"-limit{limit}" if limit is not None else ""
    return f"{source.name}-{source.split}-{protocol.name}-{protocol.scale_label}{limited}-{tag}"


def plan_cells(evaluation: Evaluation, protocol: Protocol, hr_store: HRStore) -> list[PlannedCell]:
    """Return the cells of a task in the order of the table."""
    planner = _Planner(evaluation, protocol, hr_store)
    cells = []
    classifiers: list[Classifier | None] = [*evaluation.classifiers]
    for classifier in classifiers or [None]:
        scored = planner.scored(classifier)
        row = [planner.cell(loaded, scored) for loaded in evaluation.methods[protocol.fingerprint]]
        original = [] if protocol.is_small else [planner.cell(None, scored)]
        own = [*original, *(cell for cell in row if not _stands_elsewhere(cell, row))]
        cells += own
        for size in planner.further_sizes(classifier):
            cells += [planner.cell(cell.loaded, scored, size) for cell in own if cell.skip is None]
    return cells


def originals_and_baselines(cells: Sequence[PlannedCell]) -> dict[str | None, tuple[PlannedCell, PlannedCell]]:
    """Return the cells of the original and of frozen bilinear, at the protocol's size, by classifier, if planned."""
    frozen = {
        (cell.key.classifier, cell.key.method): cell
        for cell in cells
        if cell.key.track == "frozen" and cell.key.input_size is None
    }
    return {
        classifier: (cell, frozen[classifier, BASELINE])
        for (classifier, method), cell in frozen.items()
        if method == ORACLE and (classifier, BASELINE) in frozen
    }


def _stands_elsewhere(cell: PlannedCell, row: Sequence[PlannedCell]) -> bool:
    """Say whether adapted weights of another classifier are skipped where the method has weights for this one."""
    return (
        cell.skip is not None
        and cell.key.track == "adapted"
        and any(
            other.key.method == cell.key.method and other.key.track == "adapted" and not other.skip for other in row
        )
    )


def _why_not_at_other_sizes(loaded: LoadedMethod | None, classifier: Classifier) -> str | None:
    """Say why a cell has no other input size than the protocol's own, or return None if it can have."""
    if classifier.info.input_size is not None:
        return f"classifier {classifier.id} takes no other input size than its {classifier.info.input_size} pixels"
    if loaded is not None and loaded.cls.info.output == "lr":
        return f"{loaded.name} hands LR on as it is, whatever the input size"
    if loaded is not None and loaded.cls.info.output == "own":
        return f"{loaded.name} brings images to a size of its own, whatever the input size"
    return None


class _Planner:
    """What the cells of a task share."""

    def __init__(self, evaluation: Evaluation, protocol: Protocol, hr_store: HRStore) -> None:
        self._evaluation, self._protocol, self._hr = evaluation, protocol, hr_store
        self._task = task_id(evaluation, protocol, hr_store)
        self._trained: dict[int, frozenset[str]] = {}  # by the card of the weights
        self._adapted: dict[tuple[int, str | None], nn.Module] = {}  # one for all input sizes

    def further_sizes(self, classifier: Classifier | None) -> tuple[int, ...]:
        """Return the input sizes that are asked for beside the protocol's own."""
        asked = listed(self._evaluation.options.input_sizes)
        if classifier is None or not asked:
            return ()
        low = lr_side(self._hr, self._protocol)
        if self._protocol.is_small:
            high = max(classifier.usual_side, SMALL_SIDE)
            return further_sizes(asked, low=low, high=high, own=classifier.usual_side)
        side = sr_side(self._hr, self._protocol)
        return further_sizes(asked, low=low, high=side, own=classifier.info.input_size or side)

    def scored(self, classifier: Classifier | None) -> ScoredNetwork:
        source = self._evaluation.source
        asked = task_type(source.task_type)
        if classifier is None:
            return ScoredNetwork(None, asked, None)
        present = self._protocol.score.logits == "present"
        return ScoredNetwork(classifier, asked, asked.map_outputs(classifier.info, source, present=present))

    def cell(self, loaded: LoadedMethod | None, scored: ScoredNetwork, input_size: int | None = None) -> PlannedCell:
        classifier = scored.classifier
        skip = loaded.skip_reason(self._task_info(classifier)) if loaded is not None else None
        if loaded is not None and skip is None and classifier is None and loaded.cls.info.output != "hr":
            skip = "without a classifier there is nothing to score where SR is not at HR size"
        if loaded is not None and skip is None and loaded.runtime is not None:
            skip = runtimes.why_no_file(loaded, self._protocol, self._hr, channels=self._evaluation.settings.channels)
        if skip is None and input_size is not None and classifier is not None:
            skip = _why_not_at_other_sizes(loaded, classifier)
        key = CellKey(
            task=self._task,
            method=loaded.name if loaded is not None else ORACLE,
            weights=loaded.label if loaded is not None else None,
            classifier=scored.id,
            track=loaded.track if loaded is not None else "frozen",
            input_size=input_size,
            runtime=loaded.runtime if loaded is not None else None,
        )
        folder = cell_folder(
            self._evaluation.out, key.task, key.classifier, key.method, key.weights, input_size, key.runtime
        )
        own_side = classifier.usual_side if classifier is not None and self._protocol.is_small else None
        trained_on = (
            self._trained_on(classifier.card if classifier is not None else None),
            self._trained_on(loaded.weights.ref.card if loaded is not None and loaded.weights is not None else None),
        )
        size = input_size or own_side
        input_hash = self._input_hash(loaded, classifier, skip, input_size=size, trained_on=trained_on)
        fresh = not self._evaluation.options.force and is_fresh(folder, input_hash)
        adapted = None
        if loaded is not None and loaded.track == "adapted" and skip is None and not fresh:
            assert classifier is not None  # the cell would be skipped
            network = id(loaded), classifier.id
            if network not in self._adapted:
                self._adapted[network] = loaded.adapted_network(classifier)
            adapted = self._adapted[network]
        return PlannedCell(key, loaded, scored, folder, input_hash, skip, fresh, own_side, adapted, trained_on)

    def _task_info(self, classifier: Classifier | None) -> TaskInfo:
        return TaskInfo(
            name=self._task,
            protocol=self._protocol,
            classifier=classifier.id if classifier is not None else None,
            classifier_sha256=classifier.info.weights_sha256 if classifier is not None else None,
            classifier_input_size=classifier.info.input_size if classifier is not None else None,
            channels=self._evaluation.source.channels,
        )

    def _trained_on(self, card: Card | None) -> int:
        """Count the samples that weights were trained on."""
        if card is None:
            return 0
        if id(card) not in self._trained:
            evaluation = self._evaluation
            self._trained[id(card)] = trained_ids(card, evaluation.source, evaluation.options.data)
        ids = self._trained[id(card)]
        return sum(sample.id in ids for sample in self._hr.samples) if ids else 0

    def _input_hash(
        self,
        loaded: LoadedMethod | None,
        classifier: Classifier | None,
        skip: str | None,
        *,
        input_size: int | None,
        trained_on: tuple[int, int],
    ) -> str:
        weights = loaded.weights if loaded is not None else None
        settings = self._evaluation.settings
        return hash_inputs(
            {
                "method": loaded.name if loaded is not None else ORACLE,
                "version": loaded.cls.info.version if loaded is not None else ORACLE_VERSION,
                "weights": weights.ref.sha256 if weights else None,
                "parameters": {key: repr(value) for key, value in weights.parameters.items()} if weights else {},
                "classifier": classifier.info.sha256 if classifier is not None else None,
                "classes": list(classifier.info.classes or ()) if classifier is not None else None,
                "samples": self._hr.key,
                "protocol": self._protocol.fingerprint,
                "numerics": settings.numerics.to_json(),
                "seed": settings.seed if self._protocol.lr.seeded else None,
                "skip": skip,
            }
            # not a part of colour data's hash, nor of the protocol's own size, so that the cells of before stay fresh
            | ({} if settings.channels == 3 else {"channels": settings.channels})
            | ({} if not any(trained_on) else {"trained_on": list(trained_on)})
            | ({} if loaded is None or loaded.images is None else {"images": loaded.images.sha256})
            | ({} if input_size is None else {"input_size": input_size})
            | (
                {}
                if loaded is None or loaded.runtime is None
                else dict(self._evaluation.runtime_inputs[loaded.runtime])
            )
        )
