"""The record: what one cell's result file says, and its strict JSON form.

`srbench.records.cells` writes and finds records; `srbench.records.provenance` fills in environment and code.
Deltas are never part of a record: they are computed from the samples, between cells of one task and classifier.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Final, Literal

from srbench.compute.numerics import Numerics
from srbench.errors import RecordError
from srbench.files.strict import canonical_json
from srbench.files.validate import Count, NotNegative, Number, PlainJson, Positive, Share, validated

SCHEMA_VERSION: Final = 2
MAX_SCORE_CLASSES = 50
MAX_UNREADABLE_NAMED = 20
ORACLE = "original"  # the method whose cell is HR itself
NO_WEIGHTS = "no weights fit this task"  # begins the reason of a cell that was skipped for this
BASELINE = "bilinear"  # the method that every difference refers to

Status = Literal["ok", "skipped", "error"]
Track = Literal["frozen", "adapted"]
# Marks a field that older records of this version lack: not written at its default, so that they stay as they were.
ADDED: Final = {"added": True}
Anything = Annotated[dict[str, Any], PlainJson()]


def named(method: str, runtime: str | None) -> str:
    """Return the name of a row: that of its method, and what runs it where it is not torch."""
    return method if runtime is None else f"{method}[{runtime}]"


@dataclass(frozen=True)
class CellKey:
    """Which cell a record belongs to.

    Attributes:
        task: Id of the task.
        method: Registry name of the method; "original" is the oracle.
        weights: Label of the method's weights, or None where it has none.
        classifier: Id of the classifier (of the frozen base in the adapted track), or None for image metrics alone.
        track: "frozen", or "adapted" where the classifier was trained together with, or for, the method.
        input_size: Shortest side of what the classifier receives, pixels; None is the protocol's own size.
        runtime: What ran method and classifier as one exported file, such as "onnx-int8"; None is torch.
    """

    task: str
    method: str
    weights: str | None
    classifier: str | None
    track: Track = "frozen"
    input_size: Positive | None = dataclasses.field(default=None, metadata=ADDED)
    runtime: str | None = dataclasses.field(default=None, metadata=ADDED)

    @property
    def name(self) -> str:
        """Name of the row: the method's, and the runtime where it is not torch: "darionet[onnx]"."""
        return named(self.method, self.runtime)

    @property
    def row(self) -> tuple[str, str, str | None, str | None, str]:
        """What identifies the row that the cell belongs to: task, name, weights, classifier, track."""
        return self.task, self.name, self.weights, self.classifier, self.track


@dataclass(frozen=True)
class Metric:
    """One number over the samples of a cell.

    Attributes:
        value: The value, which may be infinite (PSNR of the oracle); None where it does not apply.
        n: Number of samples that it is taken over.
        n_infinite: How many of them are infinite.
        reason: Why `value` is None.
    """

    value: Annotated[float, Number()] | None
    n: Count
    n_infinite: Count = 0
    reason: str | None = None


@dataclass(frozen=True)
class ProtocolPart:
    """The protocol that was in force."""

    name: str
    fingerprint: str
    fields: dict[str, Anything]


@dataclass(frozen=True)
class CodeState:
    """The code that made the record; commit and dirty are None where it was installed from a wheel."""

    version: str
    commit: str | None
    dirty: bool | None


@dataclass(frozen=True)
class Environment:
    """The machine and the libraries that made the record."""

    python: str
    torch: str
    torchvision: str | None
    timm: str | None
    device: str
    driver: str | None
    threads: Count
    platform: str


@dataclass(frozen=True)
class WeightsPart:
    """The weights of a method: label, origin, sha256 of the file, and the fields of its card."""

    label: str
    uri: str
    sha256: str
    card: Anything


@dataclass(frozen=True)
class MethodPart:
    """The method: what its `MethodInfo` says, its constructor's arguments, its weights and its size.

    `trained_on` is the number of samples of the task that its weights were trained on.
    """

    name: str
    role: Literal["baseline", "network", "control", "precomputed", "oracle"]
    family: str
    version: str
    factor: Positive | Literal["any"]
    parameters: Anything
    weights: WeightsPart | None
    n_parameters: Count | None
    macs: float | None
    citation: str
    trained_on: Count = dataclasses.field(default=0, metadata=ADDED)


@dataclass(frozen=True)
class ClassifierPart:
    """The classifier: where it comes from, the hash of its weights, how it normalises, and what one image takes.

    Attributes:
        macs: Multiply-accumulates of the network that decides, on one image as it is shown to it; None where they were
            not counted.
        trained_on: Samples of the task that it was trained on.
    """

    id: str
    library: str
    name: str
    weights_sha256: str
    input_size: Positive | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_classes: Positive
    track: Track
    macs: Count | None = dataclasses.field(default=None, metadata=ADDED)
    trained_on: Count = dataclasses.field(default=0, metadata=ADDED)


@dataclass(frozen=True)
class DatasetPart:
    """The samples of the task.

    Attributes:
        name: Name of the dataset.
        spec: What was given as `--data`.
        split: Name of the split.
        unit: What one sample is ("image", "patch"); intervals are over these.
        note: A sentence that must stand wherever the numbers appear, or "".
        sample_list_sha256: Hash of the ordered list of samples: ids, labels and what the files hold.
        n: Samples that are scored.
        n_unreadable: Images left out because they could not be decoded.
        unreadable: Names of the first of them.
        n_not_degraded: Samples whose degradation does nothing (already at or below the LR size).
        classes: Names of the classes present, in the order of their labels; None for unlabelled data.
        task_type: What a network is asked for; see `srbench.task_types`.
        n_one_channel: Samples whose file stores one channel; a protocol of Y takes such an image as Y itself.
        n_turned: Samples whose EXIF asks that viewers turn or mirror them; they are scored as they are stored.
        decode_s: Seconds of decoding and cropping all samples, whenever that was; None where it is not known.
        sr_side: Shortest side of SR under the protocol, pixels, the median where samples differ: the protocol's own
            input size. None where it is not known.
    """

    name: str
    spec: str
    split: str
    unit: str
    note: str
    sample_list_sha256: str
    n: Count
    n_unreadable: Count
    unreadable: tuple[str, ...]
    n_not_degraded: Count
    classes: tuple[str, ...] | None
    task_type: str = "classification"
    decode_s: NotNegative | None = None
    n_one_channel: Count = dataclasses.field(default=0, metadata=ADDED)
    n_turned: Count = dataclasses.field(default=0, metadata=ADDED)
    sr_side: Positive | None = dataclasses.field(default=None, metadata=ADDED)


@dataclass(frozen=True)
class ClassPart:
    """Precision, recall and F1 of one class; `index` is its place among the classifier's outputs.

    Of segmentation, all are of pixels, and `iou` is the intersection over union. Of detection, they are of boxes with a
    score of at least 0.5, which are right at an IoU of 0.5, and `ap` is the mean AP.
    """

    index: Count
    name: str
    support: Count
    precision: Share
    recall: Share
    f1: Share
    iou: Share | None = dataclasses.field(default=None, metadata=ADDED)
    ap: Share | None = dataclasses.field(default=None, metadata=ADDED)


@dataclass(frozen=True)
class Spread:
    """A timed quantity: the median of its repeats with the 10th and 90th percentile."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class TimingPart:
    """What the cell cost.

    Attributes:
        pass_s: Seconds of restoring and classifying in the scoring pass, None where nothing was timed.
        pass_batch: Fewest images that the method or the network took at once in that pass, where the memory did not
            hold a batch; None where it held all.
        total_time_s: What this cell takes alone, seconds: `DatasetPart.decode_s` and `pass_s`.
        latency_ms: Restoring alone at batch 1, milliseconds an image.
        classify_ms: Classifying alone at batch 1, milliseconds an image.
        end_to_end_ms: Decoding, restoring and classifying at batch 1, milliseconds an image.
        throughput: Restoring alone at `throughput_batch`, images a second.
        throughput_batch: Images a batch of the throughput measurement.
        peak_memory_mb: Peak memory of restoring at `throughput_batch`, 10^6 bytes.
        dtype: Precision of the measurement, such as "float32".
    """

    pass_s: float | None = None
    total_time_s: float | None = None
    latency_ms: Spread | None = None
    classify_ms: Spread | None = None
    end_to_end_ms: Spread | None = None
    throughput: Spread | None = None
    throughput_batch: Positive | None = None
    peak_memory_mb: float | None = None
    dtype: str | None = None
    pass_batch: Positive | None = dataclasses.field(default=None, metadata=ADDED)


@dataclass(frozen=True)
class RuntimePart:
    """The exported file that computed a cell.

    Attributes:
        library: The library that ran it, with its version.
        precision: "fp32" or "int8".
        file_mb: Size of the file of method and classifier, 10^6 bytes.
        restoring_mb: Size of the method's part of it, a file that ends with SR, 10^6 bytes.
        float32_parts: Parts of an int8 file that stayed in float32.
        calibration: The images that an int8 file was calibrated on: "spec", "split" and "images"; None in fp32.
    """

    library: str
    precision: str
    file_mb: NotNegative
    restoring_mb: NotNegative
    float32_parts: tuple[str, ...] = ()
    calibration: Anything | None = None


class _ContradictionError(RecordError):
    """Two fields of a record contradict each other; which file holds it is known where it is read."""


@dataclass(frozen=True)
class Record:
    """The result of one cell.

    Attributes:
        schema_version: Version of this layout.
        cell: Which cell it is.
        status: "ok", "skipped" or "error".
        reason: Why it was skipped or failed, one sentence; None where it is ok.
        partial: Whether `--limit` cut the samples; such a cell is never ranked.
        input_hash: Hash of everything that the result depends on; see `hash_inputs`.
        protocol: The protocol.
        code: The code's version and commit.
        environment: Machine and libraries.
        numerics: Arithmetic that the values were computed in.
        method: The method and its weights.
        classifier: The classifier, or None.
        dataset: The samples.
        metrics: Metrics by name.
        per_class: One entry a class present, in the order of labels; None without labels or classifier.
        score_histograms: One-vs-rest histograms of the scores where there are more than 50 classes, else None.
        timing: What it cost.
        training: How the weights were trained, as their card tells it, or None.
        created: UTC time in ISO 8601.
        traceback: Where a cell with the status "error" failed in the code, as Python tells it; None where it is ok.
        samples_sha256: Hexadecimal hash of the samples' file, which is stored before the record; None without samples.
        runtime: The exported file that computed the cell; None where torch did, or where it is not ok.
    """

    schema_version: Literal[2]
    cell: CellKey
    status: Status
    reason: str | None
    partial: bool
    input_hash: str
    protocol: ProtocolPart
    code: CodeState
    environment: Environment
    numerics: Numerics
    method: MethodPart
    classifier: ClassifierPart | None
    dataset: DatasetPart
    metrics: dict[str, Metric]
    per_class: tuple[ClassPart, ...] | None
    score_histograms: Anything | None
    timing: TimingPart
    training: Anything | None
    created: str
    traceback: str | None = None
    samples_sha256: str | None = None
    runtime: RuntimePart | None = dataclasses.field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        if self.status == "ok" and self.reason is not None:
            raise _ContradictionError(f"an ok record has no reason, got {self.reason!r}; leave it None")
        if self.status != "ok" and not self.reason:
            raise _ContradictionError(f"a record with status {self.status!r} needs a reason, got {self.reason!r}")

    @property
    def is_small(self) -> bool:
        """Whether its images are small by nature, so that there is no original."""
        lr = self.protocol.fields.get("lr", {})
        return bool(lr.get("given")) and lr.get("scale") is None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON types; an infinite metric becomes the string "inf"."""
        return typing.cast(dict[str, Any], _encode(self))

    @classmethod
    def from_json(cls, text: bytes, *, origin: str = "record") -> Record:
        """Read a record from the bytes of its file; `origin` names it in error messages.

        Raises:
            RecordError: If the schema version is unknown, a field is missing, unknown, or of another type.
        """
        remedy = "; delete it and run the evaluation again"
        try:
            return validated(cls, text, origin=origin, error=RecordError, remedy=remedy)
        except _ContradictionError as error:
            raise RecordError(f"{origin}: {error}{remedy}") from None
        except RecordError:
            _check_version(text, origin)
            raise


def hash_inputs(parts: Mapping[str, Any]) -> str:
    """Return the hexadecimal sha256 of the canonical JSON of everything that a cell's result depends on.

    Raises:
        RecordError: If a part is not plain JSON, or not finite.
    """
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _encode(value: Any) -> Any:
    if type(value) in (str, int, float, bool, NoneType):  # nearly all of a record, and quicker than isinstance
        return value
    if isinstance(value, Metric):
        entry = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        if value.value is not None and math.isinf(value.value):
            entry["value"] = "inf" if value.value > 0 else "-inf"
        return entry
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((item, getattr(value, item.name)) for item in dataclasses.fields(value))
        shown = (each for each in fields if each[0].metadata != ADDED or each[1] != each[0].default)
        return {item.name: _encode(held) for item, held in shown}
    if isinstance(value, Mapping):
        return {key: _encode(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(entry) for entry in value]
    return value


def _check_version(text: bytes, origin: str) -> None:
    """Name the version of a record of another one: that says more than the first field that does not fit.

    Raises:
        RecordError: If the text is a JSON object of another version.
    """
    from pydantic_core import from_json

    try:
        raw = from_json(text)
    except ValueError:
        return
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise RecordError(
            f"{origin} has schema version {version}, but this srbench reads {SCHEMA_VERSION};"
            " read it with the srbench that wrote it, or run the evaluation again with --force"
        )
