"""Entries: packed without pixels and paths, the same bytes each time; a stranger's archive is read without trust."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from record_factory import commit, make_record, make_samples, predictions
from test_report_page import save_board
from typer.testing import CliRunner

from srbench.cli import app
from srbench.errors import RecordError
from srbench.records.cells import find_records
from srbench.records.samples import samples_frame, write_samples
from srbench.records.schema import WeightsPart
from srbench.report.entry import zips
from srbench.report.entry.checking import opened
from srbench.report.entry.packing import pack, without_paths
from srbench.report.entry.rerun import _differing

HOME = "/home/ada/secret"
LABELS = np.arange(40) % 4


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("entry") / "run"
    weights = WeightsPart("mine", f"file:{HOME}/weights/mine.safetensors", "a" * 64, {"made": f"train --out {HOME}/x"})
    for seed, (method, accuracy) in enumerate([("original", 0.9), ("bilinear", 0.45), ("esrgan", 0.75)]):
        record = make_record(method, role="network" if method == "esrgan" else "baseline", n=40)
        dataset = dataclasses.replace(record.dataset, spec=f"folder:{HOME}/photos")
        if method == "esrgan":
            record = dataclasses.replace(
                record,
                cell=dataclasses.replace(record.cell, weights="mine"),
                method=dataclasses.replace(record.method, weights=weights),
            )
        preds = predictions(LABELS, accuracy, seed=seed)
        samples = make_samples(LABELS, preds, hr_preds=LABELS, mse=np.full(40, 0.004), seed=seed)
        cell = commit(root, dataclasses.replace(record, dataset=dataset), samples)
        (cell.folder / "thumbnails.parquet").write_bytes(b"pixels")
    save_board(root)
    return root


@pytest.fixture(scope="module")
def entry(run_folder) -> Path:
    pack([run_folder], run_folder.parent / "entry.zip")
    return run_folder.parent / "entry.zip"


def verify(path: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", str(path)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def changed(entry: Path, to: Path, change: Callable[[dict[str, bytes]], object], *, hashed: bool = True) -> Path:
    """Write an entry with other content; with `hashed` its hashes are those of the new content."""
    files = zips.read_zip(entry)
    change(files)
    if hashed and "entry.json" in files:
        about = json.loads(files["entry.json"])
        about["files"] = {name: zips.sha256(content) for name, content in files.items() if name != "entry.json"}
        files["entry.json"] = json.dumps(about).encode()
    zips.write_zip(to, files)
    return to


def edited(name: str, change: Callable[[dict], object]) -> Callable[[dict[str, bytes]], object]:
    def edit(files: dict[str, bytes]) -> None:
        (path,) = [path for path in files if path.endswith(name)]
        content = json.loads(files[path])
        change(content)
        files[path] = json.dumps(content).encode()

    return edit


def test_an_entry_holds_no_pixel_and_no_path_and_is_the_same_each_time(run_folder, entry, tmp_path):
    pack([run_folder], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == entry.read_bytes()
    files = zips.read_zip(entry)
    assert {name.rpartition("/")[2] for name in files} == {"entry.json", "record.json", "samples.parquet"}
    assert not any(text in content for content in files.values() for text in (b"/home", b"secret", b"pixels"))
    about = json.loads(files["entry.json"])
    assert {"of": "esrgan", "label": "mine", "sha256": "a" * 64} in about["weights"]
    assert about["environments"][0]["torch"] == "2.6.0" and len(about["claim"]["rows"]) == 3
    code, said = verify(entry)
    assert code == 0 and "every number of the claim follows from the samples" in said


def test_texts_name_files_without_their_folders():
    record = make_record("esrgan", weights="w", status="error", reason=r"no file C:\Users\ada\w.pth or ~/data/x.png")
    record = dataclasses.replace(
        record, traceback="File '/opt/x.py'", training={"data": ["folder:/mnt/a b/c", "https://example.org/a/b"]}
    )
    found = without_paths(record)
    assert found.reason == "no file w.pth or x.png" and found.traceback is None
    assert found.training == {"data": ["folder:a b/c", "https://example.org/a/b"]}


# --- claims --------------------------------------------------------------------------------------------------------


def first_of(claim: dict, method: str) -> dict:
    return next(row for row in claim["claim"]["rows"] if row["method"] == method)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("entry.json", lambda about: first_of(about, "esrgan").update(accuracy=0.95), "esrgan (mine) with net on"),
        ("entry.json", lambda about: first_of(about, "esrgan").update(rank=2), "rank: claimed 2, the samples give 1"),
        ("entry.json", lambda about: first_of(about, "bilinear")["ci"]["accuracy"].reverse(), "ci.accuracy[0]"),
        ("entry.json", lambda about: about["claim"]["rows"].pop(), "the claim leaves it out"),
        (
            "entry.json",
            lambda about: about["claim"]["rows"].append({"method": "best", "task": "x", "track": "frozen"}),
            "best on x, frozen: the claim has this row",
        ),
        ("entry.json", lambda about: about["claim"]["tasks"]["photos-0.32"].update(devices=["H100"]), "H100"),
        (
            "mine/record.json",
            lambda record: record["metrics"].update(accuracy={"value": 0.99, "n": 40, "n_infinite": 0, "reason": None}),
            "the record of esrgan (mine) on photos-0.32: accuracy 0.99, the samples give 0.75",
        ),
    ],
)
def test_a_tampered_number_is_caught_and_named(entry, tmp_path, name, change, named):
    code, said = verify(changed(entry, tmp_path / "bad.zip", edited(name, change)))
    assert code == 1 and named in said and "wrong" in said


def test_a_file_that_is_not_the_packed_one_is_named(entry, tmp_path):
    change = edited("mine/record.json", lambda record: record["timing"].update(total_time_s=0.1))
    code, said = verify(changed(entry, tmp_path / "bad.zip", change, hashed=False))
    assert code == 1 and "esrgan@mine/record.json is not the file that was packed" in said


# --- a stranger's archive --------------------------------------------------------------------------------------------


def raw_zip(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


RECORD = "records/a/b/c@none/record.json"
HOSTILE: dict[str, Callable[[Path], object]] = {
    "up": lambda path: raw_zip(path, [("../evil.json", b"{}")]),
    "up inside": lambda path: raw_zip(path, [("records/a/../record.json", b"{}")]),
    "dots": lambda path: raw_zip(path, [("records/../../../record.json", b"{}")]),
    "absolute": lambda path: raw_zip(path, [("/tmp/evil.json", b"{}")]),
    "backslash": lambda path: raw_zip(path, [("records\\a\\b\\c\\record.json", b"{}")]),
    "nul": lambda path: raw_zip(path, [("entry.json\0.exe", b"{}")]),
    "folder": lambda path: raw_zip(path, [("records/", b"")]),
    "link": lambda path: raw_zip(path, [(link("entry.json"), b"/etc/passwd")]),
    "script": lambda path: raw_zip(path, [("entry.py", b"import os")]),
    "bomb": lambda path: raw_zip(path, [("entry.json", b"0" * 10_000_000)], compression=zipfile.ZIP_DEFLATED),
    "no entry": lambda path: raw_zip(path, [(RECORD, b"{}")]),
    "entry alone": lambda path: raw_zip(path, [("entry.json", b"{}")]),
    "no json": lambda path: raw_zip(path, [("entry.json", b"\x80\x04pickle")]),
    "deep": lambda path: raw_zip(path, [("entry.json", b"[" * 200_000)]),
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04" + b"\0" * 100),
    "empty": lambda path: path.write_bytes(b""),
    "pipe": lambda path: os.mkfifo(path),
    "directory": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [*HOSTILE.values()], ids=[*HOSTILE])
def test_a_hostile_archive_is_one_sentence(make, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = tmp_path / "zips" / "entry.zip"
    path.parent.mkdir()
    make(path)
    code, said = verify(path)
    assert code in (1, 2) and said.count("\n") == 1 and len(said) < 600, said
    assert list(scratch.iterdir()) == [] and len(list(tmp_path.iterdir())) == 2
    assert len(list(path.parent.iterdir())) <= 1


def twice(entry: Path, path: Path) -> None:
    members = [*zips.read_zip(entry).items(), ("entry.json", b"{}")]
    raw_zip(path, members)  # type: ignore[arg-type]


def patched(entry: Path, path: Path, offset: int, value: bytes) -> None:
    content = bytearray(entry.read_bytes())
    content[len(content) + offset : len(content) + offset + len(value)] = value
    path.write_bytes(content)


def lying_size(entry: Path, path: Path) -> None:
    content = bytearray(entry.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<2L", 2**31, 2**31)
    path.write_bytes(content)


def in_directory(entry: Path, path: Path, offset: int, value: int) -> None:
    content = bytearray(entry.read_bytes())
    at = content.index(b"PK\x01\x02") + offset
    content[at : at + 2] = struct.pack("<H", value)
    path.write_bytes(content)


ALTERED: dict[str, Callable[[Path, Path], object]] = {
    "a name twice": twice,
    "a huge count": lambda entry, path: patched(entry, path, -14, struct.pack("<2H", 65000, 65000)),
    "a huge directory": lambda entry, path: patched(entry, path, -10, struct.pack("<L", 2**31)),
    "a directory elsewhere": lambda entry, path: patched(entry, path, -6, struct.pack("<L", 3)),
    "a lying size": lying_size,
    "a later version": lambda entry, path: in_directory(entry, path, 6, 99),
    "a patched file": lambda entry, path: in_directory(entry, path, 8, 0x20),
    "cut off": lambda entry, path: path.write_bytes(entry.read_bytes()[:-5]),
    "a flipped byte": lambda entry, path: patched(entry, path, -(entry.stat().st_size // 2), b"\xff\xfe\xfd"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("alter", [*ALTERED.values()], ids=[*ALTERED])
def test_an_altered_archive_is_refused(entry, tmp_path, alter):
    alter(entry, tmp_path / "bad.zip")
    code, said = verify(tmp_path / "bad.zip")
    assert code == 1 and said.startswith("srbench: ") and said.count("\n") == 1, said


@pytest.mark.parametrize("alter", [ALTERED["a later version"], ALTERED["a patched file"]])
def test_a_zip_that_python_cannot_read_is_not_called_damaged(entry, tmp_path, alter):
    alter(entry, tmp_path / "bad.zip")
    assert "is a kind of zip that 'srbench pack' never writes" in verify(tmp_path / "bad.zip")[1]


def test_mutated_archives_are_read_or_refused_in_a_sentence(tmp_path):
    path, draw = tmp_path / "bad.zip", random.Random(0)
    zips.write_zip(path, {"entry.json": b"{}" * 70, "records/a/b/c/samples.parquet": bytes(range(256))})
    whole, refused = path.read_bytes(), 0
    for _ in range(2000):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            zips.read_zip(path)
        except RecordError as error:
            reason = str(error).removeprefix(str(path))
            assert reason != str(error) and len(reason) < 400 and "\n" not in reason
            refused += 1
    assert 1000 < refused < 2000


def only_parquet(n: int) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"position": np.zeros(n, np.int32)}).to_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        edited("mine/record.json", lambda record: record["cell"].update(method="rdn")),
        edited(
            "mine/record.json", lambda record: record["protocol"].update(fields={"score": {"psnr_reduction": "batch"}})
        ),
        edited("mine/record.json", lambda record: record.update(schema_version=99)),
        edited("mine/record.json", lambda record: record.clear()),
        edited("entry.json", lambda about: about["claim"]["bootstrap"].update(draws=10**9)),
        edited("entry.json", lambda about: about.update(srbench_entry=7)),
        edited("entry.json", lambda about: about["claim"].update(rows=5)),
        lambda files: files.update({name: b"PAR1" for name in files if name.endswith("mine/samples.parquet")}),
        lambda files: files.update({name: only_parquet(50) for name in files if name.endswith("mine/samples.parquet")}),
        lambda files: files.update({name: only_parquet(40) for name in files if name.endswith("mine/samples.parquet")}),
        lambda files: [files.pop(name) for name in list(files) if name.endswith("mine/samples.parquet")],
        lambda files: [files.pop(name) for name in list(files) if name.endswith("record.json")],
    ],
)
def test_records_that_are_none_are_one_sentence(entry, tmp_path, change):
    code, said = verify(changed(entry, tmp_path / "bad.zip", change))
    assert (
        code == 1
        and said.startswith("srbench: ")
        and said.count("\n") == 1
        and "/tmp/" not in said.replace(str(tmp_path), "")
    )


def test_what_cannot_be_packed_is_said(run_folder, tmp_path):
    def call(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["pack", *map(str, words)])
        return done.exit_code, done.output

    assert call(run_folder, "--out", tmp_path / "x.tar")[0] == 2
    code, said = call(run_folder, run_folder, "--out", tmp_path / "x.zip")
    assert code == 2 and "two folders hold the cell" in said
    shutil.copytree(run_folder, tmp_path / "torn")
    cell = next(cell for cell in find_records([tmp_path / "torn"])[0] if cell.record.cell.method == "esrgan")
    write_samples(cell.folder / "samples.parquet", samples_frame({"position": [0], "sample_id": ["x"]}))
    code, said = call(tmp_path / "torn", "--out", tmp_path / "x.zip")
    assert code == 1 and not (tmp_path / "x.zip").exists()


# --- again, with the data --------------------------------------------------------------------------------------------


def test_a_share_is_scored_again(tmp_path):
    run, path = tmp_path / "run", tmp_path / "entry.zip"
    runner = CliRunner()
    words = ["bilinear", "nearest", "--data", "demo", "--classifier", "demo-resnet", "--limit", "12", "--device", "cpu"]
    assert runner.invoke(app, ["eval", *words, "--out", str(run)]).exit_code == 0
    pack([run], path)
    again = ["--data", "demo", "--classifier", "demo-resnet", "--device", "cpu", "--share", "0.5"]
    done = runner.invoke(app, ["verify", str(path), *again])
    assert done.exit_code == 0, done.output
    assert "scored 6 samples of" in done.output
    # samples that were made up, with a claim that follows from them
    cell = next(cell for cell in find_records([run])[0] if cell.record.cell.method == "nearest")
    frame = cell.samples()
    frame["pred"], frame["mse"] = frame["label"], frame["mse"] / 2
    commit(run, dataclasses.replace(cell.record, metrics={}), frame)
    pack([run], path)
    assert runner.invoke(app, ["verify", str(path)]).exit_code == 0
    done = runner.invoke(app, ["verify", str(path), *again])
    assert done.exit_code == 1, done.output
    assert re.search(r"nearest with demo-resnet: mse of \d of 6 samples", done.output), done.output
    assert "bilinear with" not in done.output


def test_what_is_within_the_tolerance_is_no_difference():
    ours = make_samples(LABELS, LABELS, mse=np.full(40, 0.004)).set_index("sample_id")
    theirs = ours.copy()
    theirs["cross_entropy"] *= 1.0005
    assert _differing("x", ours, theirs) == []
    theirs["cross_entropy"] *= 1.01
    theirs["mse"] *= 1.02  # a small number is no excuse
    theirs.loc[theirs.index[:3], "pred"] += 1
    found = _differing("x", ours, theirs)
    assert (
        len(found) == 3
        and "mse of 40 of 40" in " ".join(found)
        and "pred of 3 of 40 samples" in " ".join(found)
        and "cross_entropy" in " ".join(found)
    )


def test_share_goes_with_data(entry):
    done = CliRunner().invoke(app, ["verify", str(entry), "--share", "0.5"])
    assert done.exit_code == 2 and "--share goes with --data alone" in done.output


def test_reading_lends_the_cells_for_a_while(entry):
    with opened(entry) as checked:
        folders = [cell.folder for cell in checked.cells]
        assert all(folder.is_dir() for folder in folders) and not checked.problems
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(RecordError), opened(entry.parent / "nosuch.zip"):
        pass
