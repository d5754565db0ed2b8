"""`--shift`: tasks that differ in the degradation alone become one table, with the worst case."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from record_factory import make_record, make_samples, predictions
from rich.console import Console

from srbench.errors import ProtocolError, UnknownNameError, UsageError
from srbench.evaluation import evaluate
from srbench.leaderboard import build, tables
from srbench.protocol import load_protocol, shift_names
from srbench.records.cells import cell_folder, commit_cell, find_records
from srbench.records.schema import ProtocolPart
from srbench.report import figures

LABELS = np.arange(60) % 4
ACCURACY = {  # by degradation, then method
    "clean": {"original": 0.9, "bilinear": 0.5, "darionet": 0.8},
    "blur": {"original": 0.9, "bilinear": 0.4, "darionet": 0.3},
    "noise": {"original": 0.9, "bilinear": 0.25, "darionet": 0.6},
}


def _commit(root, shift, method, accuracy, *, classifier="net", task=None):
    protocol = load_protocol(shift)
    record = make_record(
        method,
        task=task or f"photos-{shift}",
        classifier=classifier,
        role="oracle" if method == "original" else "baseline",
        fields=protocol.fields,
        protocol=ProtocolPart(protocol.name, protocol.fingerprint, protocol.fields),
    )
    folder = cell_folder(root, record.cell.task, classifier, method, None)
    commit_cell(folder, record, make_samples(LABELS, predictions(LABELS, accuracy, seed=1)))


@pytest.fixture
def board(tmp_path):
    for shift, methods in ACCURACY.items():
        for method, accuracy in methods.items():
            _commit(tmp_path, shift, method, accuracy)
    cells, problems = find_records([tmp_path])
    assert not problems
    return build(cells, draws=100), cells


def test_each_degradation_is_a_column_and_the_worst_is_named(board):
    (table,) = board[0].shifts
    assert (table.task, table.classifier, table.metric) == ("photos-clean", "net", "accuracy")
    assert table.tasks == {"blur": "photos-blur", "noise": "photos-noise"}
    by_method = {row.row.method: row for row in table.rows}
    for method, row in by_method.items():
        assert row.row["accuracy"] == pytest.approx(ACCURACY["clean"][method], abs=0.01)
        assert row.values == pytest.approx({name: ACCURACY[name][method] for name in ("blur", "noise")}, abs=0.01)
        assert all(low <= row.values[name] <= high for name, (low, high) in row.ci.items()) and len(row.ci) == 2
    assert (by_method["bilinear"].worst, by_method["darionet"].worst) == ("noise", "blur")
    assert by_method["original"].worst is None  # it is never degraded
    (entry,) = json.loads(json.dumps(board[0].to_json()))["shifts"]
    stored = {row["method"]: row for row in entry["rows"]}
    assert stored["darionet"]["worst"] == {"name": "blur", "value": pytest.approx(0.3)}
    assert stored["bilinear"]["values"]["noise"] == 0.25


def test_the_terminal_joins_and_markdown_keeps_everything(board):
    def shown(**options):
        console = Console(width=120, record=True, file=io.StringIO())
        for each in tables.render(board[0], width=120, **options):
            console.print(each)
        return console.export_text()

    text = shown()
    assert "accuracy under degradations · net · photos-clean" in text
    assert "photos-blur ·" not in text and "2 degraded tasks" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("darionet") and "blur" in line)
    assert row.split() == ["darionet", "0.8000", "0.3000", "0.6000", "0.3000", "blur"]
    assert "photos-blur · net" in shown(verbose=True)
    whole = tables.markdown(board[0])
    assert "## photos-blur · net" in whole and "### accuracy under degradations · net · photos-clean" in whole
    assert "0.3000 [" in whole
    assert "accuracy under degradations" in tables.html(board[0])


def test_the_report_has_a_heat_table(board):
    drawn = [each for each in figures.draw_all(*board) if each.section == "shifts"]
    assert [each.task for each in drawn] == ["photos-clean"]
    assert drawn[0].data["base"][1:] and "the worst of a row is framed" in drawn[0].caption


def test_a_row_that_lacks_a_degradation_has_no_worst_case(tmp_path):
    for shift in ("clean", "blur", "noise"):
        _commit(tmp_path, shift, "bilinear", 0.5)
    _commit(tmp_path, "clean", "lanczos", 0.5)
    _commit(tmp_path, "blur", "lanczos", 0.4)
    (table,) = build(find_records([tmp_path])[0], draws=100).shifts
    by_method = {row.row.method: row for row in table.rows}
    assert by_method["lanczos"].worst is None and set(by_method["lanczos"].values) == {"blur"}
    assert by_method["bilinear"].worst is not None


def test_tasks_that_differ_in_more_are_not_joined(tmp_path):
    _commit(tmp_path, "clean", "bilinear", 0.5)
    _commit(tmp_path, "sr4ir-x4", "bilinear", 0.5)
    assert build(find_records([tmp_path])[0], draws=100).shifts == []
    assert "shifts" not in build(find_records([tmp_path])[0], draws=100).to_json()


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"shifts": "clean"}, UsageError, "--shift clean adds no blur, noise or codec to protocol 'demo'"),
        ({"shifts": "blurr"}, UnknownNameError, "blur"),
        ({"shifts": "blur", "protocol": "talebi-2021"}, ProtocolError, "leave --shift out"),
    ],
)
def test_what_cannot_be_a_shift_is_one_sentence(tmp_path, options, kind, sentence):
    with pytest.raises(kind, match=sentence):
        evaluate(["bilinear"], out=tmp_path, progress=False, **options)


def test_methods_run_once_a_degradation_and_the_original_once_for_all(tmp_path):
    result = evaluate(["bilinear"], shifts=["blur", "camera"], out=tmp_path / "a", limit=24, progress=False)
    assert set(result.counters.restored.values()) == {3 * 24}
    assert set(result.counters.hr_classified.values()) == {24}
    assert [cell.record.protocol.name for cell in result.cells if cell.record.cell.method == "bilinear"][::1] == [
        name for name in ("demo", "demo-blur", "demo-camera") for _ in result.counters.hr_classified
    ]
    timed = {cell.record.protocol.name for cell in result.cells if cell.record.timing.latency_ms is not None}
    assert timed == {"demo"}
    again = evaluate(["bilinear"], shifts=["blur", "camera"], out=tmp_path / "a", limit=24, progress=False)
    assert not again.counters.restored
    alone = evaluate(["bilinear"], shifts=["camera"], out=tmp_path / "b", limit=24, batch_size=5, progress=False)
    ours, theirs = (
        each.samples[each.samples.task.str.contains("camera") & (each.samples.method == "bilinear")].reset_index()
        for each in (result, alone)
    )
    assert ours.psnr.to_list() == pytest.approx(theirs.psnr.to_list(), abs=1e-5)


def test_shift_names_are_presets():
    assert shift_names() == ["blur", "noise", "jpeg", "camera", "second-order"]
