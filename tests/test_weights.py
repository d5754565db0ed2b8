"""Weights: which file a name means, what is refused before it is trusted, and what travels with the parameters."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from damage import damaged
from hypothesis import given, settings
from safetensors.torch import save_file
from torch import nn
from torch.torch_version import TorchVersion

from srbench import weights
from srbench.errors import SrbenchError, UnknownNameError, WeightsError
from srbench.weights import Card, NamedWeights, lookup


class Net(nn.Module):
    """Two parameters and a counter."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(3, width, 1)
        self.norm = nn.BatchNorm2d(width)


def state(width: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return Net(width).state_dict()


def card(name: str = "w", **changes) -> Card:
    return Card(**({"namespace": "net", "name": name, "parameters": {"width": 2}} | changes))


def put(folder: Path, name: str, seed: int = 0, **changes) -> weights.WeightsRef:
    return weights.save(folder / "net" / f"{name}.safetensors", state(seed=seed), card(name, **changes))


@pytest.fixture
def homes(own_folders, tmp_path, monkeypatch):
    """The user's folder, a stand-in for the package's, and a working directory."""
    package, here = tmp_path / "package", tmp_path / "here"
    here.mkdir()
    monkeypatch.setattr(lookup, "_package_folder", lambda: package)
    monkeypatch.chdir(here)
    return own_folders / "weights", package, here


@pytest.fixture
def downloads(monkeypatch):
    """Replace the network by a table of addresses; what is fetched is listed."""
    content: dict[str, bytes | Exception] = {}
    fetched: list[str] = []

    def download(url, dst, hash_prefix=None, progress=True):
        fetched.append(url)
        data = content[url]
        if isinstance(data, Exception):
            raise data
        digest = hashlib.sha256(data).hexdigest()
        if hash_prefix is not None and not digest.startswith(hash_prefix):
            raise RuntimeError(f'invalid hash value (expected "{hash_prefix}", got "{digest}")')
        Path(dst).write_bytes(data)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    content["fetched"] = fetched  # type: ignore[assignment]
    return content


def encoded(seed: int = 9) -> bytes:
    buffer = io.BytesIO()
    torch.save(state(seed=seed), buffer)
    return buffer.getvalue()


# --- which file a name means -------------------------------------------------------------------------------------


def test_file_comes_before_user_before_package_before_address(homes, downloads):
    user, package, here = homes
    declared = {"w": NamedWeights("https://host/w.pth", hashlib.sha256(encoded()).hexdigest(), "MIT")}
    downloads["https://host/w.pth"] = encoded()

    def found() -> str:
        return weights.find("net", "w", declared).uri

    assert found() == "https://host/w.pth"
    put(package, "w", seed=1)
    assert found() == "package:net/w"
    put(user, "w", seed=2)
    assert found() == "user:net/w"
    torch.save(state(seed=3), here / "w")
    assert found() == "file:w"
    seeds = [weights.load(weights.find("net", "w", declared)).state["conv.bias"]]
    assert torch.equal(seeds[0], state(seed=3)["conv.bias"])


def test_file_is_found_by_path_and_called_by_its_stem(homes):
    _, _, here = homes
    torch.save(state(), here / "net.v1.pth")
    ref = weights.find("net", str(here / "net.v1.pth"))
    assert (ref.label, ref.uri, ref.card) == ("net.v1", "file:net.v1.pth", None)
    assert ref.sha256 == hashlib.sha256((here / "net.v1.pth").read_bytes()).hexdigest()


@pytest.mark.parametrize("spec", ["folder/w", "w.pth", "w.safetensors", "~/w.ckpt"])
def test_path_that_does_not_exist_is_refused(homes, spec):
    put(homes[0], "mine")
    with pytest.raises(WeightsError, match=r"there is no weights file .* for 'net'; .*\['mine'\]"):
        weights.find("net", spec)


def test_unknown_name_offers_those_that_exist(homes):
    put(homes[0], "mine-x4")
    with pytest.raises(UnknownNameError, match="did you mean mine-x4"):
        weights.find("net", "mine-x2", {"other": NamedWeights("https://host/o.pth", "0" * 64, "MIT")})


def test_names_are_listed_without_fetching(homes, downloads):
    user, package, _ = homes
    put(user, "b")
    put(package, "a")
    put(package, "b", seed=1)
    (package / "net" / "notes.txt").write_text("no weights")
    declared = {"far": NamedWeights("https://host/far.pth", "0" * 64, "MIT"), "a": NamedWeights("https://x/a", "0", "")}
    assert weights.names("net", declared) == ["a", "b", "far"]
    assert [ref.uri for ref in weights.local("net", declared)] == ["package:net/a", "user:net/b"]
    assert weights.names("other") == [] and weights.local("other") == []
    assert downloads["fetched"] == []


def test_arguments_of_the_network_follow_a_question_mark(homes):
    put(homes[0], "w")
    ref = weights.find("net", "w?tile=128&arch=RRDB(n=3)&flag=true")
    assert ref.arguments == {"tile": 128, "arch": "RRDB(n=3)", "flag": True}
    assert ref.label != "w" and weights.load(ref).parameters == {
        "width": 2,
        "tile": 128,
        "arch": "RRDB(n=3)",
        "flag": True,
    }
    assert weights.find("net", "w?tile=64").label != ref.label
    with pytest.raises(WeightsError, match="key=value pairs joined by &"):
        weights.find("net", "w?tile")


# --- fetching ----------------------------------------------------------------------------------------------------


def test_declared_weights_are_fetched_once(homes, downloads):
    data = encoded()
    declared = {"far": NamedWeights("https://host/far.pth", hashlib.sha256(data).hexdigest()[:8], "MIT", factor=4)}
    downloads["https://host/far.pth"] = data
    first, second = (weights.find("net", "far", declared) for _ in range(2))
    assert first == second and first.label == "far" and first.sha256 == hashlib.sha256(data).hexdigest()
    assert downloads["fetched"] == ["https://host/far.pth"]
    assert [ref.label for ref in weights.local("net", declared)] == ["far"]


def test_download_of_another_file_is_refused(homes, downloads):
    declared = {"far": NamedWeights("https://host/far.pth", "0" * 64, "MIT")}
    downloads["https://host/far.pth"] = encoded()
    with pytest.raises(
        WeightsError, match=r"could not be fetched from https://host/far.pth \(invalid hash.*--weights net=FILE"
    ):
        weights.find("net", "far", declared)


@pytest.mark.parametrize(
    "error", [URLError("no route"), TimeoutError("slow"), ValueError("unknown url type"), ConnectionResetError("gone")]
)
def test_failed_download_says_what_to_do(homes, downloads, error):
    downloads["https://host/far.pth"] = error
    with pytest.raises(WeightsError, match=r"could not be fetched .* download the file yourself"):
        weights.find("net", "far", {"far": NamedWeights("https://host/far.pth", "0" * 64, "MIT")})


def test_fetched_file_that_changed_afterwards_is_refused(homes, downloads):
    data = encoded()
    declared = {"far": NamedWeights("https://host/far.pth", hashlib.sha256(data).hexdigest(), "MIT")}
    downloads["https://host/far.pth"] = data
    path = weights.find("net", "far", declared).path
    path.write_bytes(encoded(seed=4))
    with pytest.raises(WeightsError, match=r"has sha256 .* expected .*; delete it and fetch it again"):
        weights.find("net", "far", declared)


# --- damaged and unsafe files ------------------------------------------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def _truncated_safetensors(folder: Path) -> Path:
    save_file(state(), folder / "w.safetensors")
    data = (folder / "w.safetensors").read_bytes()
    (folder / "w.safetensors").write_bytes(data[:-7])
    return folder / "w.safetensors"


def _truncated_pth(folder: Path, share: float = 0.6) -> Path:
    data = encoded()
    (folder / "w.pth").write_bytes(data[: int(share * len(data))])
    return folder / "w.pth"


def _file(name: str, data: bytes):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def _saved(content: object, name: str = "w.pth"):
    def make(folder: Path) -> Path:
        torch.save(content, folder / name)
        return folder / name

    return make


def _legacy_truncated(folder: Path) -> Path:
    torch.save(state(), folder / "w.pth", _use_new_zipfile_serialization=False)
    data = (folder / "w.pth").read_bytes()
    (folder / "w.pth").write_bytes(data[: len(data) // 2])
    return folder / "w.pth"


PAGE = b"\n  <!DOCTYPE html><html>Not found</html>"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_file("w.pth", PAGE), "w.pth is a web page, not weights; download the file itself"),
        (_file("w.safetensors", PAGE), "w.safetensors is a web page, not weights"),
        (_file("w.pth", b""), "w.pth is empty"),
        (_file("w.safetensors", b""), "w.safetensors is empty"),
        (_file("w.safetensors", b"\x01\x02"), "not a whole safetensors file"),
        (_file("w.safetensors", encoded()), "not a whole safetensors file"),
        (_file("w.pth", b"random bytes, no checkpoint"), "cannot be read as a checkpoint"),
        (_file("w.pth", b"PK\x03\x04 no archive"), "cannot be read as a checkpoint: it is damaged or truncated"),
        (_truncated_safetensors, "not a whole safetensors file"),
        (_truncated_pth, "cannot be read as a checkpoint: it is damaged or truncated"),
        (lambda folder: _truncated_pth(folder, 0.05), "cannot be read as a checkpoint"),
        (_legacy_truncated, "cannot be read as a checkpoint"),
        (_saved({}), "holds no state dict of named tensors"),
        (_saved([torch.ones(2)]), "holds no state dict"),
        (_saved({"a": torch.ones(2), "epoch": 3}), "holds no state dict"),
        (_saved({"params": {}}), "holds no state dict"),
        (_saved({1: torch.ones(2)}), "holds no state dict"),
        (_saved(Net()), "it holds code or objects other than tensors"),
    ],
)
def test_file_that_cannot_be_trusted_is_refused_in_one_sentence(homes, tmp_path, make, sentence):
    path = make(tmp_path)
    with pytest.raises(WeightsError, match=sentence) as caught:
        weights.load(weights.find("net", str(path)))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_checkpoint_that_was_zipped_anew_is_read(homes, tmp_path):
    want = state()
    torch.save(want, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as old,
        zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    got = weights.load(weights.find("net", str(tmp_path / "w.pth"))).state
    assert got.keys() == want.keys() and all(torch.equal(got[key], want[key]) for key in want)


def _plain_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


def _zip_checkpoint(path: Path, content: object) -> None:
    torch.save(content, path)
    assert zipfile.is_zipfile(path)


@pytest.mark.parametrize("write", [_plain_pickle, _zip_checkpoint])
def test_code_inside_a_pickle_never_runs(homes, tmp_path, write):
    trace = tmp_path / "code ran"
    write(tmp_path / "w.pth", {"state_dict": {"w": Bomb(trace)}})
    with pytest.raises(WeightsError, match=r"w.pth cannot be read as a checkpoint") as caught:
        weights.load(weights.find("net", str(tmp_path / "w.pth")))
    assert not trace.exists() and "\n" not in str(caught.value)
    torch.load(tmp_path / "w.pth", weights_only=False) if write is _zip_checkpoint else pickle.loads(
        (tmp_path / "w.pth").read_bytes()
    )
    assert trace.exists()  # the bomb was a live one


@pytest.mark.parametrize("key", ["params_ema", "params", "state_dict", "model"])
def test_usual_outer_keys_are_unwrapped(tmp_path, key):
    torch.save({key: state(), "epoch": 3, "other": [1]}, tmp_path / "w.pth")
    read = weights.read_state(tmp_path / "w.pth")
    assert read.keys() == state().keys() and torch.equal(read["conv.weight"], state()["conv.weight"])


def test_damaged_card_is_refused(tmp_path):
    good = json.dumps(card().to_json())
    for text, sentence in (
        ("{", "is damaged, it is not valid JSON"),
        ("[1]", "must be an object"),
        ('{"name": "w"}', "lacks the field 'namespace'"),
        ("null", "must be an object"),
        (good.replace('"net"', "null"), "namespace must be text, got none"),
        (good.replace('"frozen"', '"thawed"'), "track must be one of frozen, adapted, got 'thawed'"),
        (good.replace('"parameters": {"width": 2}', '"parameters": [2]'), "parameters must be an object"),
        (good.replace('"parameters": {"width": 2}', '"parameters": {"width": NaN}'), r"parameters\.width is nan"),
        (good.replace('"teacher": null', '"teacher": {"id": "t"}'), "teacher must have id and sha256"),
        (good.replace('"tasks": []', '"tasks": "demo"'), "tasks must be a list"),
        (good.replace('"factor": null', '"factor": 1' + "0" * 400), "factor must be a whole number"),
        (good.replace('"extra": {}', '"extra": ' + '{"a":' * 900 + "1" + "}" * 900), "recursion limit"),
    ):
        save_file(state(), tmp_path / "w.safetensors", metadata={"srbench": text})
        with pytest.raises(WeightsError, match=rf"the card inside w.safetensors.*{sentence}.*; save the weights again"):
            weights.read_card(tmp_path / "w.safetensors")


@settings(max_examples=150, deadline=None)
@given(damaged(card(teacher={"id": "t", "sha256": "a" * 64}, scale=0.5, factor=2, tasks=("demo",)).to_json()))
def test_any_card_is_read_or_refused(raw):
    try:
        json.dumps(Card.from_json(json.dumps(raw)).to_json(), allow_nan=False)
    except WeightsError as error:
        assert "\n" not in str(error)


def test_cards_of_0_1_0_are_read():
    raw = card().to_json()
    old = {("owner" if key == "namespace" else key): value for key, value in raw.items()}
    assert Card.from_json(json.dumps(old)) == card()


def test_every_card_that_ships_is_read():
    folder = Path(weights.__file__).parent / "shipped"
    read = [weights.read_card(path) for path in sorted(folder.rglob("*.safetensors"))]
    assert len(read) > 5 and all(each is not None and each.extra for each in read)


def test_a_pickle_is_not_read_by_a_torch_that_cannot_do_it_safely(tmp_path, monkeypatch):
    torch.save(state(), tmp_path / "w.pth")
    save_file(state(), tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    with pytest.raises(WeightsError, match=r"torch 2\.9\.1\+cpu cannot read safely .*install torch 2\.10 or later"):
        weights.read_state(tmp_path / "w.pth")
    assert weights.read_state(tmp_path / "w.safetensors").keys() == state().keys()


# --- filling a network -------------------------------------------------------------------------------------------


def test_weights_fill_the_network_they_were_made_for(homes):
    put(homes[0], "w", parameters={"width": 2})
    loaded = weights.load(weights.find("net", "w"))
    network = weights.fill(weights.build(Net, loaded), loaded)
    assert torch.equal(network.conv.weight, state()["conv.weight"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("conv.bias"), "1 parameters are missing, such as conv.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "1 are unknown, such as extra"),
        (
            lambda s: s.update({"conv.bias": torch.ones(5)}),
            r"1 have another shape, such as conv.bias: \(5,\) instead of \(2,\)",
        ),
        (
            lambda s: s.update({"conv.bias": torch.ones(2, dtype=torch.int64)}),
            "1 hold another kind of number, such as conv.bias: torch.int64 instead of torch.float32",
        ),
        (
            lambda s: s.update({"conv.bias": torch.ones(2, dtype=torch.complex64)}),
            "1 hold another kind of number, such as conv.bias: torch.complex64 instead of torch.float32",
        ),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path, change, sentence):
    changed = dict(state())
    change(changed)
    network = Net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=f"w.pth does not fit Net: .*{sentence}"):
        weights.fill_state(network, changed, origin="w.pth", expected="Net")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_counters_of_batch_norm_may_be_missing():
    changed = {key: value for key, value in state().items() if not key.endswith("num_batches_tracked")}
    weights.fill_state(Net(), changed, origin="w", expected="Net")


def test_argument_of_the_wrong_type_is_one_sentence(homes):
    put(homes[0], "w", parameters={"width": "two"})
    with pytest.raises(WeightsError, match=r"Net cannot be built with \{'width': 'two'\} .*mend the card"):
        weights.build(Net, weights.load(weights.find("net", "w")))


def test_argument_that_the_network_does_not_take_is_refused(homes):
    put(homes[0], "w", parameters={"depth": 3})
    with pytest.raises(WeightsError, match="Net takes no argument 'depth'; it takes width"):
        weights.build(Net, weights.load(weights.find("net", "w")))


# --- saving ------------------------------------------------------------------------------------------------------


def test_card_travels_with_the_weights(tmp_path):
    written = card(
        track="frozen",
        tasks=("demo",),
        scale=0.32,
        factor=4,
        teacher={"id": "t", "sha256": "a" * 64},
        recipe={"epochs": 3, "losses": {"logits": 1.0}},
        data={"train": "demo"},
        command="srbench train net",
        commit="b" * 40,
        device="cpu",
        date="2026-01-02",
        licence="MIT",
        metrics={"accuracy": 0.5},
        extra={"seconds": 1.5, "classes": ["a", "b"]},
    )
    ref = weights.save(tmp_path / "deep" / "w.v2.safetensors", state(), written)
    assert ref.card == written and ref.label == "w.v2"
    assert weights.read_card(ref.path) == written == Card.from_json(json.dumps(written.to_json()))
    assert json.loads((tmp_path / "deep" / "w.v2.json").read_text()) == written.to_json() | {"sha256": ref.sha256}
    assert Card.from_json(json.dumps(written.to_json() | {"of_the_future": 1})) == written
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["w.v2.json", "w.v2.safetensors"]
    loaded = weights.load(ref)
    assert loaded.parameters == {"width": 2} and loaded.classifier_state is None
    assert torch.equal(loaded.state["conv.weight"], state()["conv.weight"])


def test_adapted_weights_hold_method_and_classifier(tmp_path):
    ref = weights.save(
        tmp_path / "w.safetensors", state(), card(track="adapted"), classifier_state={"fc": torch.ones(2)}
    )
    loaded = weights.load(ref)
    assert loaded.state.keys() == state().keys()
    assert loaded.classifier_state is not None and loaded.classifier_state.keys() == {"fc"}


def test_half_precision_keeps_integers_and_fills_full_precision(tmp_path):
    ref = weights.save(tmp_path / "w.safetensors", state(), card(), store_fp16=True)
    loaded = weights.load(ref)
    assert loaded.state["conv.weight"].dtype == torch.float16
    assert loaded.state["norm.num_batches_tracked"].dtype == torch.int64
    network = weights.fill(Net(), loaded)
    assert network.conv.weight.dtype == torch.float32
    torch.testing.assert_close(network.conv.weight, state()["conv.weight"], atol=1e-3, rtol=1e-3)


def test_failed_save_leaves_the_old_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    old = weights.save(path, state(), card())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SrbenchError, match=r"cannot write .*w.safetensors: .*No space left on device"):
        weights.save(path, state(seed=1), card())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["w.json", "w.safetensors"]
    assert weights.file_sha256(path) == old.sha256


def test_hash_of_a_state_sees_every_value_name_and_dtype():
    plain = state()
    assert weights.state_sha256(plain) == weights.state_sha256(dict(reversed(plain.items())))
    others = [
        plain | {"conv.bias": plain["conv.bias"] + 1e-6},
        plain | {"conv.bias": plain["conv.bias"].half()},
        plain | {"conv.bias": plain["conv.bias"].reshape(2, 1)},
        {f"{key}x": value for key, value in plain.items()},
        plain | {"empty": torch.ones(0)},
    ]
    assert len({weights.state_sha256(each) for each in (plain, *others)}) == 6
