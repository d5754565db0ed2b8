"""Named, hashed sets of parameters: where they are, how they are read safely, and the card that explains them."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from srbench.errors import SrbenchError, UnknownNameError, WeightsError
from srbench.paths import cache_dir, weights_dir

if TYPE_CHECKING:
    from torch import Tensor, nn

    Network = TypeVar("Network", bound=nn.Module)

SUFFIX = ".safetensors"
UNTRAINED = "untrained"  # where the name of weights is asked for: the network as it is built
_METADATA_KEY = "srbench"
_METHOD_PREFIX, _CLASSIFIER_PREFIX = "method.", "classifier."


@dataclass(frozen=True)
class NamedWeights:
    """A set of weights that a method declares by name and that is fetched on first use.

    Attributes:
        uri: Where it is fetched from (https).
        sha256: Hexadecimal digest of the file, or its first digits (at least eight).
        licence: SPDX identifier or the licence's name.
        factor: Enlargement of the network, or None if it takes any.
        note: One clause for `srbench list weights`.
        architecture: spandrel's id of the network inside, where a file of another one must be refused.
    """

    uri: str
    sha256: str
    licence: str
    factor: int | None = None
    note: str = ""
    architecture: str | None = None


@dataclass(frozen=True)
class Card:
    """What one must know about trained weights; it travels inside the file.

    Attributes:
        owner: Method the weights belong to, or "classifiers".
        name: Name of the weights.
        parameters: Constructor arguments of the network.
        track: "frozen", or "adapted" when the file also holds the classifier trained along.
        tasks: Datasets the weights are offered on under `--all` (["demo"]); empty means any.
        scale: Scale of the degradation trained for, or None for any.
        factor: Enlargement of the network, or None for any.
        teacher: {"id", "sha256"} of the classifier trained against, or None.
        recipe: Every setting of the run.
        data: What it was trained and validated on.
        command: Command line that made it.
        commit: Commit of srbench that made it.
        device: Device it was made on.
        date: Day it was made, ISO.
        licence: Licence of the weights.
        metrics: Figures of the selected epoch on the validation data.
        extra: Anything else worth keeping (input size, mean and std, class names, seconds, steps).
    """

    owner: str
    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    track: str = "frozen"
    tasks: tuple[str, ...] = ()
    scale: float | None = None
    factor: int | None = None
    teacher: dict[str, Any] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    commit: str | None = None
    device: str = ""
    date: str = ""
    licence: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain JSON types."""
        return dataclasses.asdict(self) | {"tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Card:
        """Read a card, ignoring fields that a newer srbench may have added."""
        known = {item.name for item in dataclasses.fields(cls)}
        kept = {key: value for key, value in raw.items() if key in known}
        return cls(**(kept | {"tasks": tuple(kept.get("tasks", ()))}))


@dataclass(frozen=True)
class WeightsRef:
    """Weights that were found but not yet read.

    Attributes:
        label: Name in tables and in the folder `<method>@<label>`.
        path: The file.
        uri: Where it came from: "file:<name>", "package:<owner>/<name>", "user:<owner>/<name>" or an https address.
        sha256: Hexadecimal digest of the file.
        card: The card inside, or None for a foreign checkpoint.
        arguments: Constructor arguments of the network that were given behind a "?"; they come before the card's.
        licence: Licence that a name declares or a card states, or "".
    """

    label: str
    path: Path
    uri: str
    sha256: str
    card: Card | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""


@dataclass(frozen=True)
class WeightsFile:
    """Weights in memory.

    Attributes:
        ref: Where they are from.
        state: Parameters of the method's network by name.
        classifier_state: Parameters of the classifier trained along (track "adapted"), or None.
        parameters: Constructor arguments, from the card; {} for a foreign checkpoint.
    """

    ref: WeightsRef
    state: dict[str, Tensor]
    classifier_state: dict[str, Tensor] | None
    parameters: dict[str, Any]


def names(owner: str, declared: Mapping[str, NamedWeights] | None = None) -> list[str]:
    """Return the names of the weights that `owner` can be run with, sorted, without fetching anything."""
    found = set(declared or {})
    for folder in (weights_dir() / owner, _package_folder() / owner):
        if folder.is_dir():
            found |= {path.name.removesuffix(SUFFIX) for path in folder.iterdir() if path.name.endswith(SUFFIX)}
    return sorted(found)


def find(owner: str, spec: str, declared: Mapping[str, NamedWeights] | None = None) -> WeightsRef:
    """Find weights by file or by name: a file, then the user's folder, then the package's, then a declared address.

    What a file does not say itself may follow a question mark, as constructor arguments of the network:
    `x4.pth?tile=128` or `edsr.pth?arch=basicsr:EDSR(num_feat=256)`, several of them joined by `&`.

    Raises:
        WeightsError: If `spec` is a path that does not exist, or a download fails or has the wrong checksum.
        UnknownNameError: If no weights of that name exist.
    """
    path = Path(spec)
    if "?" in spec and not path.is_file():
        spec, _, query = spec.partition("?")
        return _with_arguments(find(owner, spec, declared), query)
    if path.is_file():
        return _ref(path, label=path.stem, uri=f"file:{path.name}")
    if "/" in spec or path.suffix in {".safetensors", ".pth", ".pt", ".ckpt", ".bin"}:
        raise WeightsError(
            f"there is no weights file {spec} for {owner!r}; give an existing file or one of {names(owner, declared)}"
        )
    for kind, folder in (("user", weights_dir()), ("package", _package_folder())):
        candidate = folder / owner / f"{spec}{SUFFIX}"
        if candidate.is_file():
            return _ref(candidate, label=spec, uri=f"{kind}:{owner}/{spec}")
    if declared and spec in declared:
        named = declared[spec]
        return dataclasses.replace(_ref(_fetch(owner, spec, named), label=spec, uri=named.uri), licence=named.licence)
    raise UnknownNameError(f"weights of {owner!r}", spec, names(owner, declared))


def local(owner: str, declared: Mapping[str, NamedWeights] | None = None) -> list[WeightsRef]:
    """Return every set of weights of `owner` that needs no download, by name."""
    refs = []
    for name in names(owner, declared):
        fetched = declared is not None and name in declared and not _cached(owner, name, declared[name]).is_file()
        if not fetched or any(
            (folder / owner / f"{name}{SUFFIX}").is_file() for folder in (weights_dir(), _package_folder())
        ):
            refs.append(find(owner, name, declared))
    return refs


def load(ref: WeightsRef) -> WeightsFile:
    """Read a weights file; code inside a pickle is never run.

    Raises:
        WeightsError: If the file is empty, a web page, truncated, or holds anything but tensors.
    """
    state = read_state(ref.path)
    parameters = (dict(ref.card.parameters) if ref.card else {}) | dict(ref.arguments)
    if ref.card and ref.card.track == "adapted":
        method = {
            key.removeprefix(_METHOD_PREFIX): value for key, value in state.items() if key.startswith(_METHOD_PREFIX)
        }
        classifier = {
            key.removeprefix(_CLASSIFIER_PREFIX): value
            for key, value in state.items()
            if key.startswith(_CLASSIFIER_PREFIX)
        }
        return WeightsFile(ref, method, classifier, parameters)
    return WeightsFile(ref, state, None, parameters)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or of a PyTorch checkpoint, unwrapping the usual outer keys.

    Raises:
        WeightsError: As for `load`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _refuse_obvious(path)
    if path.name.endswith(SUFFIX):
        try:
            return load_file(path)
        except (SafetensorError, ValueError) as error:
            raise WeightsError(
                f"{path.name} is not a whole safetensors file ({error}); fetch or save it again"
            ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 torch raises half a dozen unrelated types for damaged or unsafe files
        reason = (
            "it holds code or objects other than tensors"
            if "weights_only" in str(error).lower()
            else "it is damaged or truncated"
        )
        raise WeightsError(
            f"{path.name} cannot be read as a checkpoint: {reason}; use a file of plain tensors, .safetensors at best"
        ) from None
    for key in ("params_ema", "params", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise WeightsError(
            f"{path.name} holds no state dict of named tensors; expected a mapping from parameter name to tensor"
        )
    return dict(content)


def untrained(query: str = "") -> WeightsFile:
    """Return the weights that a network has when it is built: none, with the constructor arguments in `query`.

    Raises:
        WeightsError: If `query` is no list of key=value pairs joined by &.
    """
    ref = WeightsRef(label=UNTRAINED, path=Path(UNTRAINED), uri=UNTRAINED, sha256="", card=None)
    ref = _with_arguments(ref, query) if query else ref
    return WeightsFile(ref, {}, None, dict(ref.arguments))


def build(network_class: type[Network], loaded: WeightsFile) -> Network:
    """Build the empty network that a weights file was made for.

    Raises:
        WeightsError: If the file names a constructor argument that the class does not have.
    """
    known = inspect.signature(network_class).parameters
    unknown = sorted(set(loaded.parameters) - set(known))
    if unknown:
        raise WeightsError(
            f"{loaded.ref.path.name}: {network_class.__name__} takes no argument {unknown[0]!r}; it takes"
            f" {', '.join(known) or 'none'}"
        )
    return network_class(**loaded.parameters)


def fill(network: Network, loaded: WeightsFile) -> Network:
    """Copy the weights into a network, which must have exactly the same parameters.

    Raises:
        WeightsError: Naming the first parameters that are missing, unexpected or of another shape.
    """
    fill_state(network, loaded.state, origin=loaded.ref.path.name, expected=type(network).__name__)
    return network


def fill_state(network: nn.Module, state: Mapping[str, Tensor], *, origin: str, expected: str) -> None:
    """Copy `state` into `network`; `num_batches_tracked` counters may be missing, nothing else.

    Raises:
        WeightsError: Naming the first parameters that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} parameters are missing, such as {missing[0]}")
        if unexpected:
            parts.append(f"{len(unexpected)} are unknown, such as {unexpected[0]}")
        if shapes:
            key = shapes[0]
            parts.append(
                f"{len(shapes)} have another shape, such as {key}:"
                f" {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            )
        raise WeightsError(
            f"{origin} does not fit {expected}: {'; '.join(parts)}; use weights made for this architecture"
        )
    network.load_state_dict(dict(state), strict=False)


def save(
    path: Path,
    state: Mapping[str, Tensor],
    card: Card,
    *,
    classifier_state: Mapping[str, Tensor] | None = None,
    half: bool = False,
) -> WeightsRef:
    """Write weights and card atomically: `<name>.safetensors` with the card inside, and `<name>.json` to read.

    Args:
        path: Target, ending in .safetensors.
        state: Parameters of the method's network.
        card: The card.
        classifier_state: Parameters of the classifier trained along; goes with `card.track == "adapted"`.
        half: Store floating-point tensors in 16 bits.

    Raises:
        SrbenchError: If the disk is full or fails; the target is as it was then.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = dict(state)
    if classifier_state is not None:
        tensors = {f"{_METHOD_PREFIX}{key}": value for key, value in state.items()}
        tensors |= {f"{_CLASSIFIER_PREFIX}{key}": value for key, value in classifier_state.items()}
    packed = {
        key: (value.detach().cpu().to(torch.float16) if half and value.is_floating_point() else value.detach().cpu())
        .contiguous()
        .clone()
        for key, value in tensors.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as temporary:
            save_file(packed, temporary, metadata={_METADATA_KEY: json.dumps(card.to_json(), sort_keys=True)})
        ref = _ref(path, label=path.stem, uri=f"file:{path.name}")
        readable = json.dumps(card.to_json() | {"sha256": ref.sha256}, indent=2, sort_keys=True) + "\n"
        with _replacing(path.with_suffix(".json")) as temporary:
            temporary.write_text(readable, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise SrbenchError(f"cannot write {path}: {error}; free some space or choose another place") from error
    return ref


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that takes its place once it is whole and on the disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_card(path: Path) -> Card | None:
    """Return the card inside a .safetensors file, or None if there is none."""
    from safetensors import SafetensorError, safe_open

    if not path.name.endswith(SUFFIX):
        return None
    _refuse_obvious(path)
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a whole safetensors file ({error}); fetch or save it again") from None
    if _METADATA_KEY not in metadata:
        return None
    try:
        return Card.from_json(json.loads(metadata[_METADATA_KEY]))
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"the card inside {path.name} cannot be read ({error}); save the weights again") from None


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash a state dict's names, shapes, dtypes and values, for networks that come from no file of their own."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}|{tuple(value.shape)}|{value.dtype}|".encode())
        digest.update(value.reshape(-1).view(dtype=_torch_uint8()).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, remembered by its size and modification time."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _torch_uint8() -> Any:
    import torch

    return torch.uint8


def _package_folder() -> Path:
    return Path(str(resources.files("srbench.weights") / "shipped"))


def _ref(path: Path, *, label: str, uri: str) -> WeightsRef:
    card = read_card(path)
    licence = card.licence if card is not None else ""
    return WeightsRef(label=label, path=path, uri=uri, sha256=file_sha256(path), card=card, licence=licence)


def _with_arguments(ref: WeightsRef, query: str) -> WeightsRef:
    arguments: dict[str, Any] = {}
    for item in query.split("&"):
        key, equals, text = item.partition("=")
        if not equals or not key.isidentifier():
            raise WeightsError(f"behind the ? of a weights file stand key=value pairs joined by &, got {query!r}")
        try:
            arguments[key] = json.loads(text)
        except json.JSONDecodeError:
            arguments[key] = text
    # another network from the same file is another row of the table
    suffix = re.sub(r"[^A-Za-z0-9.]+", "-", query).strip("-")
    return dataclasses.replace(ref, label=f"{ref.label}+{suffix}", arguments=arguments)


def _refuse_obvious(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise WeightsError(f"{path.name} is empty; fetch or save it again")
    if head.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path.name} is a web page, not weights; download the file itself, not the page that shows it"
        )


def _cached(owner: str, name: str, declared: NamedWeights) -> Path:
    return cache_dir() / "weights" / owner / f"{name}{Path(declared.uri).suffix}"


def _fetch(owner: str, name: str, declared: NamedWeights) -> Path:
    import torch

    target = _cached(owner, name, declared)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(declared.uri, str(target), hash_prefix=declared.sha256, progress=True)
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            raise WeightsError(
                f"weights {name!r} of {owner!r} could not be fetched from {declared.uri} ({error});"
                f" download the file yourself and pass --weights {owner}=FILE"
            ) from None
    found = file_sha256(target)
    if not found.startswith(declared.sha256):
        raise WeightsError(
            f"{target} has sha256 {found[:12]}..., expected {declared.sha256[:12]}...; delete it and fetch it again"
        )
    return target
