"""Records and their store: strict JSON, atomic files, resuming, and what a kill or a full disk leaves behind."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import srbench
from srbench.compute.numerics import Numerics
from srbench.errors import RecordError, UsageError
from srbench.files.atomic import check_out_dir, sweep_temporary, write_json
from srbench.files.strict import json_text, read_json
from srbench.records import parquet
from srbench.records.cells import cell_folder, commit_cell, find_records, is_fresh, load_cell, safe_name
from srbench.records.provenance import code_state, environment
from srbench.records.samples import read_samples, samples_frame, write_samples
from srbench.records.schema import (
    SCHEMA_VERSION,
    CellKey,
    ClassifierPart,
    ClassPart,
    CodeState,
    DatasetPart,
    Environment,
    MethodPart,
    Metric,
    ProtocolPart,
    Record,
    Spread,
    TimingPart,
    WeightsPart,
    hash_inputs,
)
from srbench.records.shards import done_positions, merge_shards, merged_sums, write_shard
from srbench.records.thumbnails import read_thumbnails, thumbnails_key, write_thumbnails

HASH = "ab" * 32


def make_record(**changes: Any) -> Record:
    """Return a complete record of four samples."""
    record = Record(
        schema_version=SCHEMA_VERSION,
        cell=CellKey("demo-0.32", "tiny", "demo-x4", "net", "frozen"),
        status="ok",
        reason=None,
        partial=False,
        input_hash=HASH,
        protocol=ProtocolPart("demo", "f" * 64, {"lr": {"scale": 0.32, "kernel": "bicubic"}}),
        code=CodeState("0.1.0", "c0ffee", True),
        environment=Environment("3.12.1", "2.6.0", "0.21.0", None, "cpu", None, 2, "Linux"),
        numerics=Numerics("cuda", tf32=True),
        method=MethodPart(
            "tiny",
            "network",
            "super-resolution",
            "1",
            4,
            {"blocks": 1, "act": "relu", "deep": False},
            WeightsPart("demo-x4", "tiny.safetensors", "d" * 64, {"licence": "MIT"}),
            1234,
            5.5e6,
            "a paper",
        ),
        classifier=ClassifierPart("net", "timm", "net.a1", "e" * 64, None, (0.5,), (0.5,), 3, "frozen"),
        dataset=DatasetPart("demo", "demo", "test", "patches", "", "9" * 64, 4, 1, ("bad.jpg",), 0, ("a", "b")),
        metrics={
            "accuracy": Metric(0.5, 4),
            "psnr": Metric(math.inf, 4, 4),
            "ssim": Metric(None, 0, 0, "LR output"),
        },
        per_class=(ClassPart(0, "a", 2, 0.5, 0.5, 0.5), ClassPart(2, "b", 2, 1.0, 0.5, 2 / 3)),
        score_histograms=None,
        timing=TimingPart(1.0, 1.5, latency_ms=Spread(2.0, 1.5, 3.0), throughput_batch=16, dtype="float32"),
        training={"epochs": 3},
        created="2026-01-01T00:00:00Z",
    )
    return dataclasses.replace(record, **changes)


def two_samples() -> DatasetPart:
    """Return the dataset of a record of two samples."""
    return dataclasses.replace(make_record().dataset, n=2)


def make_rows(positions: list[int], *, scores: bool = False) -> pd.DataFrame:
    """Return rows whose values are a function of their position, so that any mix-up shows."""
    at = np.array(positions)
    columns = {
        "position": at,
        "sample_id": [f"s{i}" for i in positions],
        "label": at % 3,
        "pred": at % 2,
        "top5_hit": at % 5 > 0,
        "cross_entropy": at / 7,
        "psnr": np.where(at == 1, np.inf, at + 20.5),
    }
    return samples_frame(columns, scores=np.stack([at / 10, 1 - at / 10], 1) if scores else None)


def files_below(folder: Path) -> set[str]:
    """Return the relative paths of all files, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- the record --------------------------------------------------------------------------------------------------


def test_record_survives_json() -> None:
    record = make_record()
    text = json.dumps(record.to_json(), allow_nan=False)
    assert json.loads(text)["metrics"]["psnr"] == {"value": "inf", "n": 4, "n_infinite": 4, "reason": None}
    assert Record.from_json(text.encode()) == record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw.update(schema_version=99), "schema version 99"),
        (lambda raw: raw.pop("timing"), "lacks the field 'timing'"),
        (lambda raw: raw.update(extra=1), "has no field 'extra'"),
        (lambda raw: raw.update(status="fine"), "status must be"),
        (lambda raw: raw["dataset"].update(n="4"), "dataset.n must be a whole number of at least 0"),
        (lambda raw: raw["dataset"].update(n=True), "dataset.n must be a whole number of at least 0"),
        (lambda raw: raw["metrics"].update(accuracy=0.5), "metrics.accuracy must be an object"),
        (lambda raw: raw["per_class"][0].pop("f1"), r"per_class\[0\] lacks the field 'f1'"),
        (lambda raw: raw["method"].update(factor="some"), "factor must be a whole number .* or 'any', got 'some'"),
        (lambda raw: raw["metrics"]["psnr"].update(value="infinite"), 'must be a number, "inf" or "-inf", or null'),
        (lambda raw: raw["numerics"].update(device="tpu"), "numerics.device must be one of cpu, cuda, got 'tpu'"),
        (lambda raw: raw["dataset"].update(n=10**400), "dataset.n must be a whole number"),
        (lambda raw: raw["timing"].update(pass_s=10**400), "timing.pass_s must be a finite number"),
        (lambda raw: raw["training"].update(epochs=10**400), "training.epochs is a whole number beyond 64 bits"),
        (lambda raw: raw["training"].update(loss=math.nan), "training.loss is nan"),
        (lambda raw: raw["cell"].update(task="\ud800"), "is damaged, it is not valid JSON"),
        (lambda raw: raw.update(status="error"), "needs a reason"),
    ],
)
def test_record_is_read_strictly(change: Any, said: str) -> None:
    raw = make_record().to_json()
    change(raw)
    with pytest.raises(RecordError, match=said):
        Record.from_json(json.dumps(raw).encode(), origin="x/record.json")


@settings(max_examples=200, deadline=None)
@given(damaged(make_record().to_json()))
def test_any_record_is_read_or_refused_in_a_sentence(raw: Any) -> None:
    try:
        json_text(Record.from_json(json.dumps(raw).encode(), origin="x/record.json").to_json())
    except RecordError as error:
        assert str(error).startswith("x/record.json")
        assert "\n" not in str(error)


@pytest.mark.parametrize(("status", "reason"), [("ok", ""), ("ok", "late"), ("skipped", None), ("error", "")])
def test_a_reason_that_does_not_fit_the_status_is_refused_with_the_file(status: str, reason: str | None) -> None:
    raw = make_record().to_json() | {"status": status, "reason": reason}
    with pytest.raises(RecordError, match=r"^x/record\.json: .*reason.*run the evaluation again$"):
        Record.from_json(json.dumps(raw).encode(), origin="x/record.json")


def test_records_of_version_1_are_refused_with_what_to_do() -> None:
    cells, problems = find_records([Path(__file__).parent / "fixtures" / "records-v1"])
    assert cells == [] and len(problems) == 12
    for problem in problems:
        assert "has schema version 1, but this srbench reads 2" in problem
        assert "run the evaluation again with --force" in problem


def test_records_of_this_version_are_kept_as_they_were_written() -> None:
    files = sorted((Path(__file__).parent / "fixtures" / f"records-v{SCHEMA_VERSION}").rglob("record.json"))
    assert len(files) == 12
    for file in files:
        assert json_text(Record.from_json(file.read_bytes()).to_json()) == file.read_text(encoding="utf-8")


def test_whole_numbers_are_floats_where_floats_are_meant() -> None:
    raw = make_record().to_json()
    raw["metrics"]["accuracy"]["value"] = 1
    value = Record.from_json(json.dumps(raw).encode()).metrics["accuracy"].value
    assert value == 1.0
    assert isinstance(value, float)


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32(1.0)])
def test_json_refuses_what_is_not_finite_and_names_the_place(tmp_path: Path, bad: Any) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"ok": 1})
    with pytest.raises(RecordError, match=r"rows\[1\]\.psnr"):
        write_json(path, {"rows": [{}, {"psnr": bad}]})
    assert read_json(path) == {"ok": 1}
    assert files_below(tmp_path) == {"x.json"}


def test_nan_metric_never_reaches_a_file(tmp_path: Path) -> None:
    record = make_record(metrics={"accuracy": Metric(math.nan, 4)})
    with pytest.raises(RecordError, match=r"metrics\.accuracy\.value is nan"):
        commit_cell(tmp_path / "cell", record, make_rows([0, 1, 2, 3]))
    assert files_below(tmp_path) == set()


def test_input_hash_depends_on_every_part_and_not_on_order() -> None:
    assert hash_inputs({"a": 1, "b": [2]}) == hash_inputs({"b": [2], "a": 1})
    assert hash_inputs({"a": 1, "b": [2]}) != hash_inputs({"a": 1, "b": [3]})


def test_provenance_describes_this_machine() -> None:
    import torch

    machine = environment("cpu")
    assert machine.torch == torch.__version__
    assert machine.threads == torch.get_num_threads()
    assert machine.driver is None
    code = code_state()
    assert code.version == srbench.__version__ and (code.commit is None) == (code.dirty is None)
    checkout = Path(srbench.__file__).resolve().parents[1]
    if (checkout / ".git").exists():
        head = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        assert code.commit == subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkout_s_commit_is_in_the_record() -> None:
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the tests do not lie in a git checkout")
    done = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert code_state().commit == done.stdout.strip()


# --- folders -----------------------------------------------------------------------------------------------------


def test_plain_names_stay_readable() -> None:
    folder = cell_folder("out", "demo-0.32", None, "bilinear", None)
    assert folder == Path("out/records/demo-0.32/no-classifier/bilinear@none")


def test_names_never_collide_or_escape() -> None:
    names = [
        "a", "A", "a b", "a-b", "a/b", "a\\b", "a:b", "a@b", "..", ".", "", "...", ".partial", "none", "no-classifier",
        "nul", "nul.pth", "über", "x" * 300, "x" * 301, "a~b", "../../etc",
    ]  # fmt: skip
    safe = [safe_name(name, missing="none") for name in names]
    assert len({name.lower() for name in safe}) == len(names)
    for name in safe:
        assert "/" not in name
        assert "\\" not in name
        assert "@" not in name
        assert not name.startswith(".")
        assert len(name) < 120
    assert safe_name(None, missing="none") not in safe
    assert cell_folder("o", "t", None, "none", None) == Path("o/records/t/no-classifier/none@none")
    given = [("c", "a@b", "c"), ("c", "a", "b@c"), ("c", "a", "b-c"), ("c", "a", "none"), ("c", "a", None)]
    given += [(None, "a", "c"), ("no-classifier", "a", "c")]
    assert len({cell_folder("o", "t", c, m, w) for c, m, w in given}) == len(given)


def test_out_below_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="lies under"):
        check_out_dir(tmp_path / "file" / "deep" / "er")
    with pytest.raises(UsageError, match="not a folder"):
        check_out_dir(tmp_path / "file")
    check_out_dir(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


# --- samples -----------------------------------------------------------------------------------------------------


def test_samples_survive_parquet_with_nulls_and_infinity(tmp_path: Path) -> None:
    frame = make_rows([3, 0, 1, 2], scores=True)
    write_samples(tmp_path / "s.parquet", frame)
    back = read_samples(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(back, frame.sort_values("position", ignore_index=True))
    assert math.isinf(back["psnr"][1])
    assert back["hr_pred"].isna().all()
    assert str(back["label"].dtype) == "Int32"
    assert str(back["cross_entropy"].dtype) == "float32"
    assert list(read_samples(tmp_path / "s.parquet", ["label", "sample_id"]).columns) == [
        "label",
        "sample_id",
    ]


def test_samples_refuse_unknown_and_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no column 'colour'"):
        samples_frame({"position": [0], "sample_id": ["a"], "colour": [1]})
    with pytest.raises(RecordError, match="'pred' has 2 rows"):
        samples_frame({"position": [0], "sample_id": ["a"], "pred": [1, 2]})
    with pytest.raises(RecordError, match="differ"):
        write_samples(tmp_path / "s.parquet", make_rows([0]).drop(columns="ssim"))
    with pytest.raises(RecordError, match="scores must have shape"):
        samples_frame({"position": [0], "sample_id": ["a"]}, scores=np.zeros((1, 51)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    column=st.sampled_from(["position", "sample_id", "label", "pred", "psnr", "score_000", "emd", "top5_hit"]),
    values=st.sampled_from([[1.5, 2.0], ["a", "b"], [None, None], [1, 2**40], [b"x", b"y"], [[1], [2]], [True, None]]),
    how=st.sampled_from(["replace", "drop", "twice"]),
)
def test_samples_with_wrong_columns_are_read_or_refused(tmp_path: Path, column: str, values: Any, how: str) -> None:
    path = tmp_path / "cell" / "samples.parquet"
    commit_cell(tmp_path / "cell", make_record(dataset=two_samples()), make_rows([0, 1], scores=True))
    table = pq.ParquetFile(path).read()
    index = table.schema.get_field_index(column)
    if how == "drop" and index >= 0:
        table = table.remove_column(index)
    elif how == "twice" and index >= 0:
        table = table.append_column(column, table.column(index))
    elif index >= 0:
        table = table.set_column(index, column, pa.array(values))
    else:
        table = table.append_column(column, pa.array(values))
    pq.write_table(table, path)
    (cell,), _ = find_records([tmp_path])
    # without the hash, by which any change would be told
    cell = dataclasses.replace(cell, record=dataclasses.replace(cell.record, samples_sha256=None))
    try:
        frame = cell.samples()
    except RecordError as error:
        assert "run the evaluation again with --force" in str(error) and "\n" not in str(error)
    else:
        assert len(frame) == 2 and frame["position"].tolist() == [0, 1]


def test_samples_of_another_number_than_the_record_says_are_refused(tmp_path: Path) -> None:
    commit_cell(tmp_path, make_record(), make_rows([0, 1, 2, 3]))
    write_samples(tmp_path / "samples.parquet", make_rows([0, 1, 2]))
    cell = load_cell(tmp_path)
    with pytest.raises(RecordError, match="it is not the file that its record was made with"):
        cell.samples()
    cell = dataclasses.replace(cell, record=dataclasses.replace(cell.record, samples_sha256=None))
    with pytest.raises(RecordError, match="has 3 samples, its record says 4; run the evaluation again"):
        cell.samples()


def test_damaged_thumbnails_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "thumbnails.parquet"
    pq.write_table(pa.table({"position": ["a"], "name": ["sr"], "png": [b""]}), path)
    with pytest.raises(RecordError, match=r"is damaged .*run the evaluation again"):
        read_thumbnails(path)
    write_thumbnails(path, {1: {"sr": np.zeros((2, 3, 3), np.uint8)}}, key="k")
    assert thumbnails_key(path) == "k" and read_thumbnails(path)[1]["sr"].shape == (2, 3, 3)


# --- shards ------------------------------------------------------------------------------------------------------


def test_interrupted_rows_merge_to_those_of_one_go(tmp_path: Path) -> None:
    whole = make_rows(list(range(10)), scores=True)
    for positions in ([0, 2, 4], [1, 3], [9, 5, 6]):
        write_shard(tmp_path, HASH, make_rows(positions, scores=True), sums={"seconds": 0.5, "hits": np.arange(3)})
    assert done_positions(tmp_path, HASH) == {0, 1, 2, 3, 4, 5, 6, 9}
    assert done_positions(tmp_path, "cd" * 32) == set()
    with pytest.raises(RecordError, match=r"lacks position 7 \(2 in all\)"):
        merge_shards(tmp_path, HASH, range(10))
    write_shard(tmp_path, HASH, make_rows([7, 8], scores=True), sums={"seconds": 0.25, "hits": np.arange(3)})
    pd.testing.assert_frame_equal(merge_shards(tmp_path, HASH, range(10)), whole)
    sums = merged_sums(tmp_path, HASH)
    assert float(sums["seconds"]) == 1.75
    assert sums["hits"].tolist() == [0, 4, 8]


def test_a_position_stored_twice_or_unasked_is_an_error(tmp_path: Path) -> None:
    write_shard(tmp_path, HASH, make_rows([0, 1]))
    with pytest.raises(RecordError, match="unknown position 1"):
        merge_shards(tmp_path, HASH, range(1))
    write_shard(tmp_path, HASH, make_rows([1, 2]))
    with pytest.raises(RecordError, match="position 1 twice"):
        merge_shards(tmp_path, HASH, range(3))


def test_what_a_kill_leaves_is_ignored_and_swept(tmp_path: Path) -> None:
    path = write_shard(tmp_path, HASH, make_rows([0, 1]))
    (path.parent / f".{path.name}.0123456789ab.tmp").write_bytes(b"PAR1 half")
    (path.parent / "rows-00000002-00000004.parquet").write_bytes(b"PAR1 torn by a crash of the machine")
    assert done_positions(tmp_path, HASH) == {0, 1}
    write_shard(tmp_path, HASH, make_rows([2, 3]))
    assert merge_shards(tmp_path, HASH, range(4))["position"].tolist() == [0, 1, 2, 3]
    (tmp_path / ".thumbnails.tmp").write_text("not ours")
    assert sweep_temporary(tmp_path) == 1
    assert not list(tmp_path.rglob(".rows*.tmp"))
    assert (tmp_path / ".thumbnails.tmp").exists()


# --- cells -------------------------------------------------------------------------------------------------------


def test_commit_stores_cleans_and_is_found(tmp_path: Path) -> None:
    record, rows = make_record(), make_rows([0, 1, 2, 3])
    folder = cell_folder(tmp_path, "demo-0.32", "net", "tiny", "demo-x4")
    write_shard(folder, HASH, rows)
    assert not is_fresh(folder, HASH)
    commit_cell(folder, record, rows)
    assert files_below(folder) == {"record.json", "samples.parquet"}
    assert is_fresh(folder, HASH)
    assert not is_fresh(folder, "cd" * 32)
    cells, problems = find_records([tmp_path])
    assert problems == []
    sha256 = hashlib.sha256((folder / "samples.parquet").read_bytes()).hexdigest()
    assert [cell.record for cell in cells] == [dataclasses.replace(record, samples_sha256=sha256)]
    pd.testing.assert_frame_equal(cells[0].samples(), rows)


def test_failed_cell_keeps_its_shards_and_is_not_fresh(tmp_path: Path) -> None:
    write_shard(tmp_path, HASH, make_rows([0]))
    write_shard(tmp_path, "cd" * 32, make_rows([0]))
    commit_cell(tmp_path, make_record(status="error", reason="out of memory"), None)
    assert done_positions(tmp_path, HASH) == {0}
    assert done_positions(tmp_path, "cd" * 32) == set()
    assert not is_fresh(tmp_path, HASH)
    skipped = make_record(status="skipped", reason="fixed size")
    commit_cell(tmp_path, skipped, None)
    assert is_fresh(tmp_path, HASH)
    assert files_below(tmp_path) == {"record.json"}


def test_commit_refuses_samples_that_contradict_the_record(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="n = 4, but there are 3"):
        commit_cell(tmp_path, make_record(), make_rows([0, 1, 2]))
    with pytest.raises(RecordError, match="if and only if"):
        commit_cell(tmp_path, make_record(), None)


def test_a_kill_between_samples_and_record_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_cell(tmp_path, make_record(), make_rows([0, 1, 2, 3]))
    rename = os.replace

    def killed(source: Any, target: Any) -> None:
        if str(target).endswith("record.json"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        commit_cell(tmp_path, make_record(input_hash="cd" * 32), make_rows([0, 1, 2, 3]))
    assert files_below(tmp_path) == {"samples.parquet"}
    assert not is_fresh(tmp_path, HASH)


@pytest.mark.parametrize("where", ["open", "replace", "fsync"])
def test_full_disk_is_one_sentence_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "cell" / "samples.parquet"
    write_samples(path, make_rows([0, 1]))
    before = path.read_bytes()

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path if where == "open" else os, where, full)
        with pytest.raises(
            RecordError, match=r"cannot write .*samples\.parquet: No space left on device; free some space"
        ):
            write_samples(path, make_rows([0, 1, 2]))
    assert path.read_bytes() == before
    assert files_below(tmp_path) == {"cell/samples.parquet"}


def test_disk_full_amid_the_parquet_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: Any, file: Any, **options: Any) -> None:
        file.write(b"PAR1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parquet.pq, "write_table", full)
    with pytest.raises(RecordError, match="No space left"):
        write_shard(tmp_path, HASH, make_rows([0]))
    assert files_below(tmp_path) == set()


def test_damaged_records_are_named_and_do_not_hide_the_others(tmp_path: Path) -> None:
    rows = make_rows([0, 1, 2, 3])
    good = cell_folder(tmp_path, "t", "c", "good", None)
    torn = cell_folder(tmp_path, "t", "c", "torn", None)
    bare = cell_folder(tmp_path, "t", "c", "bare", None)
    for folder in (good, torn, bare):
        commit_cell(folder, make_record(), rows)
    (torn / "record.json").write_text('{"schema_version": 1, ')
    (bare / "samples.parquet").unlink()
    cells, problems = find_records([tmp_path])
    assert [cell.folder for cell in cells] == [good]
    assert len(problems) == 2
    assert "no samples.parquet" in problems[0]
    assert "record.json is damaged" in problems[1]


def test_a_folder_of_records_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leaderboard without the rows of another user's folder has to say that they are missing."""
    scandir = os.scandir
    ours, other = (cell_folder(tmp_path, "t", "c", name, None) for name in ("ours", "other"))
    for folder in (ours, other):
        commit_cell(folder, make_record(), make_rows([0, 1, 2, 3]))

    def refuse(path: Any) -> Any:
        if Path(path) == other:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    cells, problems = find_records([tmp_path])
    assert [cell.folder for cell in cells] == [ours]
    assert problems == [
        f"the folder {other} cannot be read: Permission denied; its records are left out, check its permissions"
    ]


def test_samples_of_another_user_are_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(parquet, "read_regular", refuse)
    with pytest.raises(RecordError, match=r"samples\.parquet cannot be read: Permission denied; check its permissions"):
        read_samples(tmp_path / "samples.parquet")


def test_finding_nothing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        find_records([tmp_path / "missing"])
    with pytest.raises(UsageError, match="no records"):
        find_records([tmp_path])
