"""Weights as other people save them: wrapped, renamed, averaged, or not weights at all."""

from __future__ import annotations

import shutil
import unicodedata

import pytest
import torch
from safetensors.torch import save_file

from srbench import weights
from srbench.errors import WeightsError
from srbench.files.strict import read_toml
from srbench.networks.classifiers import ClassifierInfo, label_map
from srbench.weights.files import read_state

STATE = {"layer.weight": torch.arange(4.0).reshape(2, 2), "layer.bias": torch.ones(2)}
OTHER = {name: value + 1 for name, value in STATE.items()}


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", ["params-ema", "state_dict_ema", "model_state_dict", "net", "params", "state_dict"])
def test_the_outer_keys_of_training_scripts_are_taken_off(tmp_path, key):
    state = read_state(saved(tmp_path / "x.pth", {key: STATE, "epoch": 3}))
    torch.testing.assert_close(state, STATE)


@pytest.mark.parametrize("last", ["params", "state_dict", "model"])
@pytest.mark.parametrize("averaged", ["params_ema", "state_dict_ema"])
def test_averaged_weights_come_first_and_are_named(tmp_path, caplog, last, averaged):
    state = read_state(saved(tmp_path / "x.pth", {last: OTHER, averaged: STATE}))
    torch.testing.assert_close(state, STATE)
    assert f"took the weights under {averaged!r}; {last!r} also there" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_that_a_wrapper_has_given_are_taken_back(tmp_path, caplog, prefix):
    state = read_state(saved(tmp_path / "x.pth", {prefix + name: value for name, value in STATE.items()}))
    torch.testing.assert_close(state, STATE)
    assert "left out" in caplog.text


def test_a_prefix_that_only_some_names_have_belongs_to_the_network(tmp_path):
    content = {"module.a": torch.ones(1), "head": torch.ones(1)}
    assert set(read_state(saved(tmp_path / "x.pth", content))) == set(content)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "is a Git LFS pointer"),
        ("x.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        ("x.pth", b"\x08\x08\x12\x07pytorch\x1a\x052.6.0", "is an ONNX graph"),
        ("x.onnx", b"whatever", "is an ONNX graph"),
        ("x.pth", b'{"error": "quota exceeded"}', "is a text in JSON"),
        ("x.pth", b"<!DOCTYPE html><html>Quota exceeded</html>", "is a web page"),
        ("x.safetensors", b"\n<html></html>", "is a web page"),
    ],
)
def test_what_is_no_weights_file_is_called_what_it_is(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        read_state(path)


def test_a_header_whose_length_looks_like_a_page_is_read(tmp_path):
    """The header of 15,392 bytes: its length begins with the bytes of a blank and of "<"."""
    path, wanted = tmp_path / "x.safetensors", 0x3C20
    save_file({"a": torch.ones(2)}, path, metadata={"note": ""})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    save_file({"a": torch.ones(2)}, path, metadata={"note": "x" * (wanted - length)})
    assert path.read_bytes()[:2] == b" <"
    torch.testing.assert_close(read_state(path), {"a": torch.ones(2)})


def test_hidden_and_cut_files_among_the_weights_do_not_stop_the_others(own_folders, caplog):
    folder = own_folders / "weights" / "mine"
    folder.mkdir(parents=True)
    save_file(STATE, folder / "good.safetensors")
    (folder / "._good.safetensors").write_bytes(b"\x00\x05\x16\x07")
    (folder / "cut.safetensors").write_bytes((folder / "good.safetensors").read_bytes()[:40])
    assert weights.names("mine") == ["cut", "good"]
    assert [ref.label for ref in weights.local("mine")] == ["good"]
    assert "weights cut of mine are left out: cut.safetensors is not a whole safetensors file" in caplog.text


def test_a_card_stands_for_the_weights_beside_it(tmp_path):
    save_file(STATE, tmp_path / "net.safetensors")
    digest = weights.file_sha256(tmp_path / "net.safetensors")
    card = tmp_path / "net.toml"
    card.write_text(f'weights = "net.safetensors"\nsha256 = "{digest[:12]}"\n')
    assert weights.find("mine", str(card)).sha256 == digest
    card.write_text('weights = "net.safetensors"\nsha256 = "0123456789ab"\n')
    with pytest.raises(WeightsError, match=r"card net\.toml expects 0123456789ab"):
        weights.find("mine", str(card))
    card.write_text("weights = 3\n")
    with pytest.raises(WeightsError, match=r"card net\.toml names no weights file beside it"):
        weights.find("mine", str(card))


def test_a_fetched_file_is_kept_by_its_hash(tmp_path, own_folders, monkeypatch):
    """Two versions under one name, as an address may change: neither is taken for the other."""
    files = {}
    for number, state in enumerate((STATE, OTHER)):
        path = tmp_path / f"v{number}.safetensors"
        save_file(state, path)
        files[f"https://x.org/v{number}/net.safetensors"] = path

    def fetch(uri, target, **options):
        shutil.copyfile(files[uri], target)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for uri, path in files.items():
        declared = {"net": weights.NamedWeights(uri=uri, sha256=weights.file_sha256(path), licence="MIT")}
        torch.testing.assert_close(read_state(weights.find("mine", "net", declared).path), read_state(path))


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(path, what="x", error=WeightsError) == {"a": 1}


def test_an_accent_is_the_same_however_it_is_written():
    composed, apart = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    assert composed != apart
    info = ClassifierInfo(
        id="x", library="timm", name="x", args={}, weights_sha256="", mean=(0.5,), std=(0.5,), input_size=None,
        in_chans=3, classes=("bar", apart), n_classes=2,
    )  # fmt: skip
    assert label_map(info, [composed, "bar"]).tolist() == [1, 0]
