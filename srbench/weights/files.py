"""Reads weights files and foreign checkpoints: unwraps their outer keys, runs no code; hashes and writes files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from srbench.errors import WeightsError
from srbench.files.atomic import write_content, write_text
from srbench.files.regular import open_regular
from srbench.weights.card import Card

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
_ZIP = b"PK\x03\x04"
_UNPACKED_LIMIT = 50  # weights that someone zipped anew unpack to 1.1 times their size, constant masks to 10 times
_LFS = b"version https://git-lfs.github.com/spec/"
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12")  # the version of ONNX, then the name of what wrote it
_METADATA_KEY = "srbench"
_METHOD_PREFIX, _CLASSIFIER_PREFIX = "method.", "classifier."
# Where training scripts put the state dict in their checkpoints; the first that a file has counts.
_OUTER_KEYS = (
    "params_ema", "params-ema", "state_dict_ema", "model_ema", "ema",
    "params", "state_dict", "model_state_dict", "model", "net", "generator",
)  # fmt: skip
_WRAPPERS = ("module.", "_orig_mod.")
_SAFE_PICKLES = (2, 10)  # of torch: before it weights_only=True could be led to run code (CVE-2026-24747)


@dataclass(frozen=True)
class WeightsRef:
    """Weights that were found but not yet read.

    Attributes:
        label: Name in tables and in the folder `<method>@<label>`.
        path: The file.
        uri: Where it came from: "file:<name>", "package:<namespace>/<name>", "user:<namespace>/<name>" or an https
            address.
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
    if torch.__version__ < _SAFE_PICKLES:  # type: ignore[operator]
        raise WeightsError(
            f"{path.name} is a pickle, which torch {torch.__version__} cannot read safely (CVE-2026-24747);"
            " install torch 2.10 or later, or use a .safetensors file"
        )
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
    content = _unwrapped(content, path.name)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())
    ):
        raise WeightsError(
            f"{path.name} holds no state dict of named tensors; expected a mapping from parameter name to tensor"
        )
    return _without_wrappers(content, path.name)


def _unwrapped(content: Any, name: str) -> Any:
    """Return the state dict in a checkpoint of a training script; averaged weights come before the last step's."""
    found = [key for key in _OUTER_KEYS if isinstance(content, dict) and isinstance(content.get(key), dict)]
    if not found:
        return content
    if len(found) > 1:
        _log.warning("%s: took the weights under %r; %s also there", name, found[0], ", ".join(map(repr, found[1:])))
    return content[found[0]]


def _without_wrappers(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return parameters under the names that the network itself gives them, without those of modules around it."""
    state = dict(state)
    for prefix in _WRAPPERS * 2:  # torch.compile of DistributedDataParallel, and the reverse
        if all(key.startswith(prefix) for key in state):
            _log.warning("%s: left out %r at the start of every name, which a wrapper has put there", name, prefix)
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def save(
    path: Path,
    state: Mapping[str, Tensor],
    card: Card,
    *,
    classifier_state: Mapping[str, Tensor] | None = None,
    store_fp16: bool = False,
) -> WeightsRef:
    """Write weights and card atomically: `<name>.safetensors` with the card inside, and `<name>.json` to read.

    Args:
        path: Target, ending in .safetensors.
        state: Parameters of the method's network.
        card: The card.
        classifier_state: Parameters of the classifier trained along; goes with `card.track == "adapted"`.
        store_fp16: Store floating-point tensors in 16 bits.

    Raises:
        RecordError: If the disk is full or fails; the target is as it was then.
    """
    from safetensors.torch import save as packed_bytes

    tensors = dict(state)
    if classifier_state is not None:
        tensors = {f"{_METHOD_PREFIX}{key}": value for key, value in state.items()}
        tensors |= {f"{_CLASSIFIER_PREFIX}{key}": value for key, value in classifier_state.items()}
    packed = {key: _to_disk(value, store_fp16=store_fp16) for key, value in tensors.items()}
    content = packed_bytes(packed, metadata={_METADATA_KEY: json.dumps(card.to_json(), sort_keys=True)})
    write_content(path, content)
    ref = reference(path, label=path.stem, uri=f"file:{path.name}")
    readable = json.dumps(card.to_json() | {"sha256": ref.sha256}, indent=2, sort_keys=True) + "\n"
    write_text(path.with_suffix(".json"), readable)
    return ref


def _to_disk(value: Tensor, *, store_fp16: bool) -> Tensor:
    value = value.detach().cpu()
    return (value.half() if store_fp16 and value.is_floating_point() else value).contiguous().clone()


def read_card(path: Path) -> Card | None:
    """Return the card inside a .safetensors file, or None if there is none.

    Raises:
        WeightsError: If the file is empty, a web page or truncated, or the card is damaged.
    """
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
    return Card.from_json(metadata[_METADATA_KEY], origin=f"the card inside {path.name}")


def reference(path: Path, *, label: str, uri: str) -> WeightsRef:
    """Return what is known of a file without reading its tensors.

    Raises:
        WeightsError: As `read_card`.
    """
    _refuse_obvious(path)
    card = read_card(path)
    licence = card.licence if card is not None else ""
    return WeightsRef(label=label, path=path, uri=uri, sha256=file_sha256(path), card=card, licence=licence)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash a state dict's names, shapes, dtypes and values, for networks that come from no file of their own."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key}|{tuple(value.shape)}|{value.dtype}|".encode())
        digest.update(value.reshape(-1).view(dtype=torch.uint8).numpy().tobytes() if value.numel() else b"")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, remembered by its size and modification time."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_obvious(path: Path) -> None:
    try:
        with open_regular(path) as stream:
            head = stream.read(512)
            if head.startswith(_ZIP):
                _refuse_bomb(stream, path.name)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    if not head:
        raise WeightsError(f"{path.name} is empty; fetch or save it again")
    if head[8:9] == b"{":  # the length of a safetensors header, whatever its bytes are, and the header
        return
    if head.startswith(_LFS):
        raise WeightsError(f"{path.name} is a Git LFS pointer, not the file; fetch the file with `git lfs pull`")
    if path.suffix.lower() == ".onnx" or _ONNX.match(head):
        raise WeightsError(
            f"{path.name} is an ONNX graph, whose weights have lost their names; use the .safetensors or .pth file that"
            " it was made from"
        )
    if head.lstrip()[:1] in {b"{", b"["}:
        raise WeightsError(f"{path.name} is a text in JSON, not weights, perhaps an error of a server; fetch it again")
    if head.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path.name} is a web page, not weights; download the file itself, not the page that shows it"
        )


def _refuse_bomb(stream: BinaryIO, name: str) -> None:
    """Refuse an archive whose tensors unpack to many times its size: a few bytes could fill the memory.

    torch.save stores its tensors as they are; a checkpoint that somebody zipped anew has compressed ones and is good.
    """
    size = os.fstat(stream.fileno()).st_size
    try:
        with zipfile.ZipFile(stream) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # noqa: BLE001 a damaged archive raises many unrelated types; torch says what is wrong with it
        return
    if unpacked > _UNPACKED_LIMIT * size:
        raise WeightsError(
            f"{name} is an archive of {size:,} bytes that unpacks to {unpacked:,}, more than {_UNPACKED_LIMIT} times as"
            " many; save the weights again with torch.save, which does not compress"
        )
