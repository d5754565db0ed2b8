"""`--meta` and `--slice`: what ranks the rows, on parts of the images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from record_factory import make_record, make_samples
from typer.testing import CliRunner

from srbench.cli import app
from srbench.data.metadata import check_ids, read_metadata
from srbench.errors import DataError, UnknownNameError
from srbench.evaluation import evaluate
from srbench.leaderboard import build, tables
from srbench.leaderboard.slices import MOST_VALUES, cut
from srbench.records.cells import cell_folder, commit_cell, find_records
from srbench.records.sample_columns import OWN_COLUMNS, read_columns, write_columns
from srbench.report import figures

IDS = [f"{'ant' if number % 2 else 'bee'}/{number:03d}.png" for number in range(60)]
LABELS = np.arange(60) % 4
# bilinear is right on all of the phone's images and on none of the camera's; darionet on all
RIGHT = {"bilinear": np.arange(60) < 20, "darionet": np.ones(60, dtype=bool), "original": np.ones(60, dtype=bool)}
CAMERA = ["phone" if number < 20 else "reflex" for number in range(60)]


def write(path, rows, headers=("id", "camera", "iso")):
    path.write_text("\n".join(",".join(map(str, row)) for row in [headers, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    for method, right in RIGHT.items():
        record = make_record(method, role="oracle" if method == "original" else "baseline")
        preds = np.where(right, LABELS, (LABELS + 1) % 4)
        samples = make_samples(LABELS, preds, ids=IDS)
        order = np.random.default_rng(len(method)).permutation(60)  # each cell may hold them in another order
        commit_cell(cell_folder(tmp_path, record.cell.task, "net", method, None), record, samples.iloc[order])
    columns = {"sample_id": IDS, "hr_side": ["64"] * 60, "camera": [*CAMERA[:-2], None, None]}
    write_columns(tmp_path, "photos-0.32", columns | {"iso": [str(100 + 10 * at) for at in range(60)]})
    return tmp_path


def test_each_slice_has_its_value_its_interval_and_its_number(folder):
    board = build(find_records([folder])[0], draws=200)
    by_column = {table.column: table for table in board.slices}
    assert set(by_column) == {"camera", "iso"}  # those of --meta alone
    camera = by_column["camera"]
    assert [(each.name, each.n) for each in camera.slices] == [("phone", 20), ("reflex", 38)]
    assert all(len(table.rows) == 3 for table in board.slices)
    assert camera.n_missing == 2 and camera.metric == "accuracy" and not camera.numeric
    rows = {row.row.method: row for row in camera.rows}
    assert rows["bilinear"].values == {"phone": 1.0, "reflex": 0.0}
    assert rows["darionet"].values == {"phone": 1.0, "reflex": 1.0}
    assert rows["bilinear"].ci["reflex"] == (0.0, 0.0)
    iso = by_column["iso"]
    assert iso.numeric and [each.n for each in iso.slices] == [15, 15, 15, 15]
    values = next(row for row in iso.rows if row.row.method == "bilinear").values
    assert list(values.values()) == pytest.approx([1.0, 5 / 15, 0.0, 0.0])
    entry = json.loads(json.dumps(board.to_json()))["slices"][0]
    assert entry["column"] == "camera" and entry["slices"][0] == {"name": "phone", "n": 20}


def test_tables_and_report_show_slices(folder):
    cells = find_records([folder])[0]
    board = build(cells, draws=200)
    text = tables.markdown(board)
    assert "### accuracy by camera · net · photos-0.32" in text and "phone (n=20)" in text
    assert "2 images without camera are in no slice" in text and "iso is cut at its quantiles" in text
    drawn = [each for each in figures.draw_all(board, cells) if each.section == "slices"]
    assert [each.title for each in drawn] == ["Accuracy by camera", "Accuracy by iso"]


def test_own_columns_are_there_when_they_are_asked_for(folder):
    cells = find_records([folder])[0]
    (table,) = build(cells, draws=100, slices=["hr_side"]).slices
    assert [(each.name, each.n) for each in table.slices] == [("64", 60)]
    with pytest.raises(UnknownNameError, match="camera"):
        build(cells, draws=100, slices=["camara"])
    shown = CliRunner().invoke(app, ["leaderboard", str(folder), "--slice", "camera"], terminal_width=120)
    assert shown.exit_code == 0 and "accuracy by camera" in shown.output


def test_columns_of_an_earlier_file_stay(folder):
    write_columns(folder, "photos-0.32", {"sample_id": IDS, "hr_side": ["64"] * 60})
    assert set(read_columns(folder / "records" / "photos-0.32").columns) == {"sample_id", "hr_side", "camera", "iso"}
    write_columns(folder, "photos-0.32", {"sample_id": IDS[:-1], "hr_side": ["64"] * 59})
    assert set(read_columns(folder / "records" / "photos-0.32").columns) == {"sample_id", "hr_side"}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["b", "a", None, "b"], {"a": [1], "b": [0, 3]}),
        (["10", "9", "10"], {"9": [1], "10": [0, 2]}),
        ([None, None], {}),
    ],
)
def test_few_values_are_slices_of_their_own(texts, expected):
    slices, numeric = cut(texts)
    assert list(slices) == list(expected) and not numeric
    assert {name: members.tolist() for name, members in slices.items()} == expected


def test_many_numbers_are_cut_at_quantiles_and_many_words_end_in_others():
    slices, numeric = cut([str(number) for number in [*range(100), *[7] * 40]])
    assert numeric and sum(map(len, slices.values())) == 140
    joined = np.concatenate(list(slices.values()))
    assert sorted(joined.tolist()) == list(range(140))  # every image is in one slice
    words, numeric = cut([f"w{number}" for number in range(30)] + ["often"] * 5)
    assert not numeric and len(words) == MOST_VALUES and list(words)[-1] == "others"
    assert len(words["often"]) == 5 and len(words["others"]) == 30 - (MOST_VALUES - 2)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("id,camera\n", "holds headers alone"),
        ("id\na\n", "one column alone"),
        ("id,camera\na,1\na,2\n", r"names the sample 'a' twice \(row 3\)"),
        ("id,camera,camera\na,1,2\n", "two columns 'camera'"),
        ("id,camera,\na,1,2\n", "a column without a name"),
        ("id,camera\na,1,2\n", "row 2 has 3 cells, but there are 2 headers"),
        ("id,hr_side\na,1\n", "'hr_side', which srbench fills in itself"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "meta.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=sentence) as caught:
        read_metadata(path, reserved=OWN_COLUMNS)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_metadata(tmp_path / "none.csv", reserved=())
    (tmp_path / "bytes.csv").write_bytes(b"id,a\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="no CSV in UTF-8"):
        read_metadata(tmp_path / "bytes.csv", reserved=())


def test_ids_that_do_not_fit_are_counted_and_refused_where_none_does(tmp_path):
    metadata = read_metadata(write(tmp_path / "m.csv", [("a", "x", 1), ("z", "y", 2)]), reserved=())
    missing, unknown = check_ids(metadata, ["a", "b", "c"], spec="folder:x")
    assert "no row for 2 of 3 images (b, c)" in missing and "names 1 images that are not scored here (z)" in unknown
    assert check_ids(metadata, ["a", "z"], spec="folder:x") == []
    with pytest.raises(DataError, match="none of its 2 ids, such as 'a', is a sample of folder:x"):
        check_ids(metadata, ["q"], spec="folder:x")


def test_eval_keeps_the_columns_and_shows_their_slices(tmp_path):
    first = evaluate(["bilinear"], out=tmp_path / "out", limit=16, progress=False, measure=False)
    ids = first.samples[first.samples.method == "bilinear"].sample_id.drop_duplicates().to_list()
    assert first.board.slices == ()
    path = write(tmp_path / "m.csv", [(each, "phone" if at < 6 else "reflex", at) for at, each in enumerate(ids)])
    again = evaluate(["bilinear"], out=tmp_path / "out", limit=16, meta=path, progress=False, measure=False)
    assert not again.counters.restored  # nothing is computed anew
    assert {table.column for table in again.board.slices} == {"camera", "iso"}
    assert [each.n for each in again.board.slices[0].slices] == [6, 10]
    (task,) = again.board.tasks
    own = read_columns(tmp_path / "out" / "records" / task)
    assert set(OWN_COLUMNS) <= set(own.columns) and set(own["lr_side"]) == {"15"}
    with pytest.raises(UnknownNameError, match="format"):
        evaluate(["bilinear"], out=tmp_path / "out", limit=16, slices="fromat", progress=False)
