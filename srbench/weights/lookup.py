"""Weights by name: those of the user, those that ship, and those that are fetched on first use."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import Any

from srbench.errors import UnknownNameError, WeightsError
from srbench.files.atomic import age_s
from srbench.files.paths import cache_dir, user_path, weights_dir
from srbench.files.strict import read_toml
from srbench.weights.files import SUFFIX, WeightsFile, WeightsRef, file_sha256, reference

_log = logging.getLogger(__name__)

_STALE_S = 3600.0  # a download that has not been written for so long belongs to no process
UNTRAINED = "untrained"  # where the name of weights is asked for: the network as it is built


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


def names(namespace: str, declared: Mapping[str, NamedWeights] | None = None) -> list[str]:
    """Return the names of the weights that `namespace` can be run with, sorted, without fetching anything."""
    known = set(declared or {})
    for folder in (weights_dir() / namespace, _package_folder() / namespace):
        if folder.is_dir():
            known |= {
                path.name.removesuffix(SUFFIX)
                for path in folder.iterdir()
                if path.name.endswith(SUFFIX) and not path.name.startswith(".")
            }
    return sorted(known)


def find(namespace: str, spec: str, declared: Mapping[str, NamedWeights] | None = None) -> WeightsRef:
    """Find weights by file or by name: a file, then the user's folder, then the package's, then a declared address.

    What a file does not say itself may follow a question mark, as constructor arguments of the network:
    `x4.pth?tile=128` or `edsr.pth?arch=basicsr:EDSR(num_feat=256)`, several of them joined by `&`.

    Raises:
        WeightsError: If `spec` is a path that does not exist, or a download fails or has the wrong checksum.
        UnknownNameError: If no weights of that name exist.
    """
    path = user_path(spec)
    if "?" in spec and not path.is_file():
        spec, _, query = spec.partition("?")
        return _with_arguments(find(namespace, spec, declared), query)
    if path.is_file() and path.suffix == ".toml":
        return _of_card(namespace, path)
    if path.is_file():
        return reference(path, label=path.stem, uri=f"file:{path.name}")
    if "/" in spec or path.suffix in {".safetensors", ".pth", ".pt", ".ckpt", ".bin"}:
        raise WeightsError(
            f"there is no weights file {spec} for {namespace!r};"
            f" give an existing file or one of {names(namespace, declared)}"
        )
    for kind, folder in (("user", weights_dir()), ("package", _package_folder())):
        candidate = folder / namespace / f"{spec}{SUFFIX}"
        if candidate.is_file():
            return reference(candidate, label=spec, uri=f"{kind}:{namespace}/{spec}")
    if declared and spec in declared:
        named = declared[spec]
        return dataclasses.replace(
            reference(_fetch(namespace, spec, named), label=spec, uri=named.uri), licence=named.licence
        )
    raise UnknownNameError(f"weights of {namespace!r}", spec, names(namespace, declared))


def _of_card(namespace: str, path: Path) -> WeightsRef:
    """Return the weights that a card of TOML names, which lie beside it.

    Raises:
        WeightsError: If it is no such card, or there is no such file, or it has another sha256.
    """
    raw = read_toml(path, what=f"card {path.name}", error=WeightsError)
    location, expected = raw.get("weights"), str(raw.get("sha256", "")).lower()
    if not isinstance(location, str) or "://" in location:
        raise WeightsError(f"card {path.name} names no weights file beside it; give the file itself")
    ref = find(namespace, str(path.parent / location))
    if not ref.sha256.startswith(expected):
        raise WeightsError(f"{location} has sha256 {ref.sha256[:12]}..., card {path.name} expects {expected[:12]}...")
    return ref


def local(namespace: str, declared: Mapping[str, NamedWeights] | None = None) -> list[WeightsRef]:
    """Return every set of weights of `namespace` that needs no download, by name; a file that is damaged is named."""
    refs = []
    for name in names(namespace, declared):
        fetched = declared is not None and name in declared and not _cached(namespace, name, declared[name]).is_file()
        if not fetched or any(
            (folder / namespace / f"{name}{SUFFIX}").is_file() for folder in (weights_dir(), _package_folder())
        ):
            try:
                refs.append(find(namespace, name, declared))
            except WeightsError as error:
                _log.warning("weights %s of %s are left out: %s", name, namespace, error)
    return refs


def untrained(query: str = "") -> WeightsFile:
    """Return the weights that a network has when it is built: none, with the constructor arguments in `query`.

    Raises:
        WeightsError: If `query` is no list of key=value pairs joined by &.
    """
    ref = WeightsRef(label=UNTRAINED, path=Path(UNTRAINED), uri=UNTRAINED, sha256="", card=None)
    ref = _with_arguments(ref, query) if query else ref
    return WeightsFile(ref, {}, None, dict(ref.arguments))


def _with_arguments(ref: WeightsRef, query: str) -> WeightsRef:
    arguments: dict[str, Any] = {}
    for item in query.split("&"):
        key, equals, text = item.partition("=")
        if not equals or not key.isidentifier():
            raise WeightsError(f"behind the ? of a weights file stand key=value pairs joined by &, got {query!r}")
        try:
            arguments[key] = json.loads(text)
        except (ValueError, RecursionError):
            arguments[key] = text
    # another network from the same file is another row of the table
    suffix = re.sub(r"[^A-Za-z0-9.]+", "-", query).strip("-")
    return dataclasses.replace(ref, label=f"{ref.label}+{suffix}", arguments=arguments)


def _package_folder() -> Path:
    return Path(str(resources.files("srbench.weights") / "shipped"))


def _cached(namespace: str, name: str, declared: NamedWeights) -> Path:
    # by the hash too: the address of a name may change with a version
    return cache_dir() / "weights" / namespace / f"{name}-{declared.sha256[:8].lower()}{Path(declared.uri).suffix}"


def _fetch(namespace: str, name: str, declared: NamedWeights) -> Path:
    import torch

    target = _cached(namespace, name, declared)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_partial(target.parent)
        try:
            torch.hub.download_url_to_file(declared.uri, str(target), hash_prefix=declared.sha256, progress=True)
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            raise WeightsError(
                f"weights {name!r} of {namespace!r} could not be fetched from {declared.uri} ({error});"
                f" download the file yourself and pass --weights {namespace}=FILE"
            ) from None
    digest = file_sha256(target)
    if not digest.startswith(declared.sha256):
        raise WeightsError(
            f"{target} has sha256 {digest[:12]}..., expected {declared.sha256[:12]}...; delete it and fetch it again"
        )
    return target


def _sweep_partial(folder: Path) -> None:
    """Remove what torch.hub left of downloads that were killed; one that is at work writes all the time."""
    for path in folder.glob("*.partial"):
        with contextlib.suppress(OSError):
            if age_s(path.stat().st_mtime) >= _STALE_S:
                path.unlink()
