"""The command line: exit codes, sentences, tables; nothing that a person does wrong ends in a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from dummies import WNIDS, make_classifier, make_images, pixels, plugin, trainable, write_card
from PIL import Image
from typer.testing import CliRunner

from srbench.cli import app, listing, terminal

PER_CLASS, SIDE = 8, 24
ADAPTED = ("adabn", "fixres", "lr_student", "retrained")  # controls that are skipped until there are weights for them


@pytest.fixture(autouse=True)
def wide_terminal(workplace, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err

    @property
    def sentence(self) -> str:
        """The one line on the error stream that srbench itself wrote."""
        lines = [line for line in self.err.splitlines() if line.startswith("srbench: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def srbench(*words: object) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def evaluate(images, card):
    """Return a function that runs `srbench eval` on the small images."""

    def call(*words: object, data: object = f"folder:{images}", classifier: object = card) -> Result:
        return srbench(
            "eval", *words, "--data", data, "--classifier", classifier, "--protocol", "half.toml", "--out", "o"
        )

    return call


def board(folder: Path | str = "o") -> dict[str, dict]:
    return {row["method"]: row for row in json.loads((Path(folder) / "leaderboard.json").read_text())["rows"]}


# --- what runs -----------------------------------------------------------------------------------------------------


def test_evaluation_prints_the_table_and_what_it_did(evaluate):
    first = evaluate("bicubic", "--batch-size", 4)
    assert first.code == 0
    assert first.sentence == "srbench: decoded 24 images, classified 24 of them at HR, restored 72; results in o"
    for word in ("original", "none", "bilinear", "bicubic", "photos-all-half-0.5-", "dummy", "inf"):
        assert word in first.out
    assert {path.name for path in Path("o").iterdir()} >= {
        "records",
        *(f"leaderboard.{e}" for e in ("json", "csv", "md")),
    }
    rows = board()
    assert rows["original"]["psnr"] == "inf" and rows["none"]["psnr"] is None and rows["bicubic"]["n"] == 24
    assert rows["bicubic"]["latency_ms"] > 0 and rows["bicubic"]["total_time_s"] > 0
    assert {*ADAPTED} == {name for name, row in rows.items() if row["status"] == "skipped"}
    second = evaluate("bicubic", "nearest")
    assert second.sentence == "srbench: decoded 0 images, classified 0 of them at HR, restored 24; results in o"
    forced = evaluate("bicubic", "--force")
    assert "decoded 0 images, classified 0 of them at HR, restored 72" in forced.sentence
    # only the rows of this call are printed; the files hold all of them
    assert evaluate("bicubic", "--limit", "10").code == 0
    assert "nearest" in evaluate("bicubic").out


def test_all_takes_every_method_and_the_images_need_no_classifier(images):
    done = srbench("eval", "--all", "--data", f"images:{images}", "--protocol", "half.toml", "--out", "o", "--limit", 4)
    assert done.code == 0 and len(board()) >= 12
    assert board()["lanczos"]["classifier"] is None and board()["none"]["status"] == "skipped"


def test_methods_without_weights_are_one_line_and_their_reasons_are_asked_for(images):
    words = ("--data", f"images:{images}", "--protocol", "half.toml", "--out", "o", "--limit", 4)
    brief, long = srbench("eval", "--all", *words), srbench("eval", "--all", *words, "-v")
    lacking = [name for name, row in board().items() if "no weights fit this task" in (row["reason"] or "")]
    assert len(lacking) > 5 and "none" not in lacking and "esrgan" in lacking
    said = f"{len(lacking)} methods have no weights for this task: {', '.join(lacking)}; see `srbench list weights`"
    assert said in " ".join(brief.out.split())
    assert "no weights fit" not in brief.out and "esrgan [skipped" not in brief.out and "none † [skipped" in brief.out
    assert "methods have no weights" not in long.out and "esrgan [skipped" in long.out
    assert "no weights fit this task" in long.out and "give --weights esrgan=FILE" in " ".join(long.out.split())
    again = srbench("leaderboard", "o", "--verbose")
    assert "esrgan [skipped" in again.out and "esrgan [skipped" not in srbench("leaderboard", "o").out
    assert "give --weights esrgan=FILE" in Path("o/leaderboard.md").read_text()


def test_scales_and_weights_are_repeatable(evaluate, tmp_path):
    from dummies import save_gain

    gain = trainable(tmp_path)
    files = [save_gain(tmp_path / f"g{number}.safetensors", gain=number).path for number in (1, 2)]
    words = [word for file in files for word in ("--weights", f"gain={file}")]
    done = evaluate("gain", *words, "--plugin", gain, "--scale", "0.5", "--scale", "1/3")
    assert done.code == 0, done.err
    rows = json.loads(Path("o/leaderboard.json").read_text())["rows"]
    assert len({row["task"] for row in rows}) == 2
    assert sorted(row["weights"] for row in rows if row["method"] == "gain") == ["g1", "g1", "g2", "g2"]


def test_failed_cell_is_named_and_exits_1(evaluate, images, card, tmp_path):
    bad = plugin(tmp_path, "bad", "1 / 0")
    done = evaluate("bad", "bicubic", "--plugin", bad)
    assert done.code == 1 and board()["bad"]["status"] == "error" and board()["bicubic"]["status"] == "ok"
    assert re.search("srbench: failed: bad with dummy on photos-.*: ZeroDivisionError: division by zero", done.err)
    words = ["eval", "bad", "--data", f"folder:{images}", "--classifier", str(card), "--protocol", "half.toml"]
    debugged = CliRunner().invoke(app, [*words, "--plugin", str(bad), "--out", "o", "--debug"])
    assert debugged.exit_code == 1
    text = r'Traceback .*\n(.*\n)*.*/bad.py", line \d+, in forward\n.*1 / 0\nZeroDivisionError'
    assert re.search(text, debugged.stderr)
    plugin(tmp_path, "bad")
    assert evaluate("bad", "bicubic", "--plugin", bad).code == 0


def test_leaderboard_joins_folders(images, card, evaluate):
    evaluate("bicubic")
    common = ("--data", f"folder:{images}", "--classifier", card, "--protocol", "half.toml")
    assert srbench("eval", "nearest", *common, "--out", "p").code == 0
    done = srbench("leaderboard", "o", "p", "--out", "joined")
    assert done.code == 0 and set(board("joined")) == {
        "original",
        "none",
        "bilinear",
        "bicubic",
        "nearest",
        *ADAPTED,
    }
    assert "nearest" in done.out and "bicubic" in done.out
    for record in Path("o").rglob("record.json"):
        if record.parent.name.startswith("bicubic"):
            record.write_text(record.read_text()[:100])
    torn = srbench("leaderboard", "o")
    assert torn.code == 0 and "is damaged" in torn.out and "bicubic" not in board_names(torn.out)


def board_names(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line.strip() and "record" not in line}


def test_compare_fires_only_where_a_rule_is_broken(evaluate, tmp_path):
    mine = plugin(tmp_path, "mine", 'resize(lr, size, "bicubic")')
    evaluate("mine", "--plugin", mine)
    Path("o").rename("old")
    assert srbench("compare", "old", "old", "--fail-on", "accuracy -0.3pp").code == 0
    plugin(tmp_path, "mine", 'resize(lr, size, "nearest") * 0', version="2")
    evaluate("mine", "--plugin", mine)
    same = srbench("compare", "old", "o")
    assert same.code == 0 and "mine" in same.out
    worse = srbench("compare", "old/leaderboard.json", "o/leaderboard.json", "--fail-on", "psnr -1%")
    assert worse.code == 1 and "psnr" in worse.out
    assert srbench("compare", "o", "old", "--fail-on", "psnr -1%").code == 0
    for words in (("old", "gone"), ("old", "o", "--fail-on", "nosuch -1"), ("old", "o", "--fail-on", "accuracy")):
        wrong = srbench("compare", *words)
        assert wrong.code == 2 and wrong.sentence


def test_lists_name_what_can_be_named(tmp_path):
    methods = srbench("list", "methods").out
    for name in (
        *("none", "nearest", "bilinear", "bicubic", "bicubic_opencv", "bicubic_pillow", "lanczos", "area"),
        *("esrgan", "darionet", "learned_resizer", "muller", "sr4ir", "rdn", "srgan", *ADAPTED),
    ):
        assert re.search(rf"^ *{name} ", methods, re.M), name
    assert srbench("list").out == methods
    protocols = srbench("list", "protocols").out
    for name in ("clean", "darionet-2021", "sr-classic", "sr4ir-x4", "sr4ir-x8", "talebi-2021", "demo", "native"):
        assert re.search(rf"^ *{name} ", protocols, re.M), name
    datasets = srbench("list", "datasets").out
    for spec in ("demo", "folder:PATH", "images:PATH", "imagenette[:PATH]", "hf:REPO", "pairs:LR_DIR,HR_DIR"):
        assert spec in datasets
    assert "timm:NAME" in srbench("list", "classifiers").out and "df2k-psnr-x4" in srbench("list", "weights").out
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    done = srbench("list", "methods", "--plugin", plugin(tmp_path, "mine"), "--plugin", broken)
    assert done.code == 0 and re.search(r"^ *mine ", done.out, re.M)
    assert "left out: method 'broken'" in " ".join(done.out.split())
    wrong = srbench("list", "planets")
    assert (
        wrong.code == 2 and "one of methods, classifiers, datasets, protocols, weights; got 'planets'" in wrong.sentence
    )


def test_check_holds_a_method_against_the_contract(tmp_path):
    good = srbench("check", "bicubic")
    assert good.code == 0 and "FAILED" not in good.out and good.out.count("ok ") > 8
    bad = srbench("check", "bad", "--plugin", plugin(tmp_path, "bad", "lr"))
    assert bad.code == 1 and "FAILED" in bad.out
    assert srbench("check", "nosuch").code == 2


def test_version():
    done = srbench("--version")
    assert done.code == 0 and re.fullmatch(r"srbench \d+\.\d+\.\d+\n", done.out)


# --- wrong calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("eval", "give names of methods, or --all for every registered one"),
        ("eval --all bicubic", "give either --all or names of methods, not both; got --all and bicubic"),
        ("eval bicubik", "there is no method named 'bicubik'; did you mean bicubic"),
        ("eval bilinear --data folder:nowhere", "there is no folder nowhere; check the path"),
        ("eval bilinear --data folder:empty", "empty holds no images"),
        ("eval bilinear --data folder:flat", "has 1 images but no class folders; .* images:flat"),
        ("eval bilinear --data folder:flat/a.png", "is a file; give the folder that holds the images"),
        ("eval bilinear --data flat", "is a path; say how to read it: folder:flat"),
        ("eval bilinear --data nosuch", "no dataset named 'nosuch'"),
        ("eval bilinear --data folder:", "lacks its path"),
        ("eval bilinear --data demo --split nosuch", "has no split 'nosuch'; its splits are test, train, val"),
        ("eval bilinear --scale 0", "takes the share LR side / HR side, above 0 and at most 1, such as 0.32, got '0'"),
        ("eval bilinear --scale 2", "above 0 and at most 1, such as 0.32, got '2'"),
        ("eval bilinear --scale -1", "above 0 and at most 1"),
        ("eval bilinear --scale big", "--scale takes a number such as 0.32 or 1/3, got 'big'"),
        ("eval bilinear --protocol qqqqqq", "no protocol named 'qqqqqq'; known: blur, camera, clean"),
        ("eval bilinear --protocol gone.toml", "there is no protocol file gone.toml"),
        ("eval bilinear --protocol sr-classic --scale 0.5 --data images:flat", "fixes its own LR size"),
        ("eval bilinear --classifier nosuch", "no classifier named 'nosuch'"),
        ("eval bilinear --classifier gone.toml", "there is no classifier card gone.toml"),
        ("eval bilinear --classifier misfit.toml", "dummy.safetensors does not fit timm:test_resnet: .*another shape"),
        ("eval bilinear --data folder:classes", "is labelled, so a classifier is needed to score it"),
        ("eval bilinear --weights bilinear", "--weights takes METHOD=NAME or METHOD=FILE, got 'bilinear'"),
        ("eval bilinear --weights =x", "--weights takes METHOD=NAME"),
        ("eval esrgan --weights esrgan=page.pth --data images:flat", "page.pth is a web page, not weights"),
        ("eval esrgan --weights esrgan=gone.pth --data images:flat", "there is no weights file gone.pth"),
        ("eval bilinear --limit 0", "--limit takes a whole number of at least 1"),
        ("eval bilinear --batch-size 0", "--batch-size takes a whole number of at least 1"),
        ("eval bilinear --device tpu", "--device takes auto, cpu or cuda"),
        ("eval bilinear --precision fp8", "--precision takes auto, fp32, tf32 or bf16"),
        ("eval bilinear --seed -1", "--seed takes a whole number from 0"),
        ("eval bilinear --plugin gone.py", "--plugin takes a Python file"),
        ("eval bilinear --out file --data images:flat", "--out file is file, which is not a folder"),
        (
            "eval bilinear --out file/below --data images:flat",
            "--out file/below lies under .*file, which is not a folder",
        ),
        ("train bicubic", "bicubic.* nothing to train"),
        ("train nosuch", "no method named 'nosuch'"),
        ("train classifier", "needs an architecture of timm"),
        ("train darionet 0.5", "takes no second name, got '0.5'"),
        ("leaderboard gone", "there is no folder gone"),
        ("leaderboard empty", "there are no records in empty"),
    ],
)
def test_wrong_call_exits_2_with_one_sentence(words, sentence, card):
    Path("empty").mkdir()
    Path("file").write_text("")
    Path("page.pth").write_text("<html>")
    for place in ("flat", "classes/dot"):
        Path(place).mkdir(parents=True)
        Image.fromarray(pixels(0, 0, SIDE)).save(Path(place) / "a.png")
    import tomllib

    fields = tomllib.loads(card.read_text()) | {"weights": str(card.with_suffix(".safetensors")), "classes": None}
    write_card(Path("misfit.toml"), fields | {"args": {"num_classes": 4}})
    before = {path for path in Path().rglob("*") if "user" not in path.parts}
    done = srbench(*words.split())
    assert done.code == 2 and re.search(sentence, done.sentence), done.err
    assert {path for path in Path().rglob("*") if "user" not in path.parts} == before  # nothing was begun


@pytest.mark.parametrize("words", ["eval bilinear --no-such-option", "nosuch", "eval bilinear --limit x", "compare"])
def test_what_typer_refuses_exits_2_too(words):
    assert srbench(*words.split()).code == 2


def test_ctrl_c_exits_130(monkeypatch):
    import srbench.evaluation

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(srbench.evaluation, "evaluate", stop)
    done = CliRunner().invoke(app, ["eval", "--all"])
    assert done.exit_code == 130 and "stopped; the same command goes on where it was" in done.stderr


# --- images of every kind ------------------------------------------------------------------------------------------


def odd_images(folder: Path) -> Path:
    """Write images in every mode under class `dot`, beside ordinary ones."""
    make_images(folder, 1, side=SIDE)
    rgb = Image.fromarray(pixels(1, 900, SIDE))
    sixteen = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    target = folder / "dot"
    Image.fromarray(sixteen).save(target / "sixteen.png")
    rgb.convert("P").save(target / "palette.png")
    rgb.convert("P").save(target / "palette.gif.bmp", "BMP")
    rgb.convert("CMYK").save(target / "cmyk.jpg")
    rgb.convert("RGBA").save(target / "rgba.png")
    rgb.convert("LA").save(target / "grey-alpha.png")
    rgb.convert("L").save(target / "grey.jpg")
    rgb.convert("1").save(target / "bits.png")
    rgb.save(target / "progressive.jpg", progressive=True)
    Image.new("RGB", (1, 1), (200, 10, 30)).save(target / "dot.png")
    return folder


def test_images_of_every_kind_are_handled(evaluate, tmp_path):
    data = odd_images(tmp_path / "odd")
    done = evaluate("bicubic", "bicubic_pillow", "lanczos", data=f"folder:{data}", classifier=square_card(tmp_path))
    assert done.code == 0, done.err
    rows = board()
    assert {rows[name]["n"] for name in ("original", "bilinear", "bicubic", "bicubic_pillow", "lanczos")} == {13}
    one = json.loads(next(Path("o").rglob("bicubic@none/record.json")).read_text())
    assert one["dataset"]["n_unreadable"] == 0
    # `clean` would make originals of 256 pixels by enlarging all of them, the dot too
    clean = srbench("eval", "bicubic", "--data", f"images:{data}", "--out", "c")
    assert clean.code == 2 and "13 of 13 images are no larger than the LR" in clean.sentence
    assert f"small:{data}" in clean.sentence and not list(Path("c").glob("[!.]*"))


def square_card(folder: Path) -> Path:
    """A classifier of fixed size takes the image of one pixel as well."""
    return make_classifier(folder / "square", side=SIDE, input_size=SIDE)


def test_damaged_images_are_named_and_above_one_percent_the_run_fails(evaluate, tmp_path):
    data = make_images(tmp_path / "data", 40, side=SIDE, suffix=".jpg")
    (data / "dot" / "text.jpg").write_text("this is no image")
    done = evaluate("bicubic", data=f"folder:{data}")
    assert done.code == 0 and board()["bicubic"]["n"] == 120
    assert "text.jpg" in next(Path("o").rglob("bicubic@none/record.json")).read_text()
    torn = data / "net" / "0000.jpg"
    torn.write_bytes(torn.read_bytes()[:300])
    done = evaluate("bicubic", data=f"folder:{data}")
    assert done.code == 1
    assert re.search(r"2 of 121 images .* more than the 1% .* dot/text.jpg .* net/0000.jpg .*; repair", done.sentence)
    assert board()["bicubic"]["n"] == 120  # what was there is still there


def test_folder_of_one_broken_file_exits_1(card):
    Path("odd/n01440764").mkdir(parents=True)
    Path("odd/n01440764/a.jpg").write_text("no")
    named = make_classifier(Path("wnids"), classes=WNIDS, side=SIDE)
    done = srbench("eval", "bilinear", "--data", "folder:odd", "--classifier", named)
    assert done.code == 1 and "a.jpg" in done.sentence


def test_demo_weights_make_rows_on_the_demo():
    done = srbench("eval", "bilinear", "--limit", "4", "--out", "d")
    assert done.code == 0, done.err
    rows = json.loads(Path("d/leaderboard.json").read_text())["rows"]
    assert len({row["classifier"] for row in rows}) == 2 and all(row["partial"] for row in rows)
    assert {row["task"].rsplit("-", 1)[0] for row in rows} == {"demo-test-demo-0.32-limit4"}


# --- a fresh interpreter -------------------------------------------------------------------------------------------

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "PIL",
    "lightning",
    "spandrel",
    "matplotlib",
)


def fresh(code: str) -> dict:
    """Run code in a fresh interpreter; it prints one JSON object last."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_help_and_quick_refusals_import_nothing_heavy():
    found = fresh(
        f"""
        import contextlib, io, json, sys
        from srbench.cli import main
        heavy, codes = {HEAVY!r}, {{}}
        for words in (["--help"], ["eval", "--help"], ["--version"], ["list", "protocols"], ["list", "nosuch"],
                      ["eval"], ["eval", "bilinear", "--scale", "2"], ["train", "darionet", "x"]):
            sys.argv = ["srbench", *words]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                try:
                    main()
                    code = 0
                except SystemExit as error:
                    code = error.code
            codes[" ".join(words)] = [code or 0, [name for name in heavy if name in sys.modules]]
        print(json.dumps(codes))
        """
    )
    assert {words: code for words, (code, _) in found.items()} == {
        "--help": 0,
        "eval --help": 0,
        "--version": 0,
        "list protocols": 0,
        "list nosuch": 2,
        "eval": 2,
        "eval bilinear --scale 2": 2,
        "train darionet x": 2,
    }
    assert {words: heavy for words, (_, heavy) in found.items() if heavy} == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_score_what_one_does(images, card, tmp_path, evaluate):
    names = ["bicubic", "lanczos"]
    (images / "net" / "0007.png").rename(tmp_path / "kept.png")  # 23 images: two ranks cannot share them evenly
    try:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "srbench.cli", "eval", *names, "--data", f"folder:{images}", "--classifier", str(card)]
        done = subprocess.run(
            [*command, "--protocol", "half.toml", "--out", "two", "--device", "cpu"],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and done.stdout.count("photos-all-half-0.5-") == 1  # one table, not two
        assert evaluate(*names).code == 0
    finally:
        (tmp_path / "kept.png").rename(images / "net" / "0007.png")
    from srbench.records.cells import find_records

    one, two = ({cell.record.cell.method: cell for cell in find_records([folder])[0]} for folder in ("o", "two"))
    assert one.keys() == two.keys() == {"original", "none", "bilinear", "bicubic", "lanczos", *ADAPTED}
    for method in one:
        if one[method].record.status == "ok":
            left, right = one[method].samples(), two[method].samples()
            assert len(right) == 23 and right["sample_id"].is_unique
            for exact in ("sample_id", "position", "label", "pred", "hr_pred", "top5_hit"):
                assert left[exact].tolist() == right[exact].tolist()
            for column in left.columns.drop(["sample_id"]):
                np.testing.assert_allclose(
                    left[column].to_numpy(float, na_value=0),
                    right[column].to_numpy(float, na_value=0),
                    atol=1e-5,
                    rtol=1e-5,
                )
            assert two[method].record.input_hash == one[method].record.input_hash
    assert not list(Path("two").rglob("*.tmp")) and not list(Path("two").rglob(".partial"))


def test_listed_names_are_broken_at_hyphens_where_a_terminal_is_narrow(capsys, monkeypatch):
    long = "custom-mobilenetv2_tfquant-tf_efficientnet_lite0"
    rows = (("a" * 16, "control", "any", long, "tiny-imagenet-psnr\nphotos"),)
    shown = listing.Listing(("method", "role", "factor", "weights", "recipes"), rows)
    for columns, expected in (
        ("80", ["custom-", "mobilenetv2_", "tfquant-tf_", "efficientnet_", "lite0", "tiny-imagenet-", "psnr"]),
        ("200", [long, "tiny-imagenet-psnr"]),
    ):
        monkeypatch.setenv("COLUMNS", columns)
        listing.show(shown)
        assert set(expected) <= set(capsys.readouterr().out.split())
    assert listing.broken("a sentence of words, and averylongword", 9) == "a sentence of words, and averylongword"


def test_a_long_name_takes_no_other_column_away(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "72")
    rows = (
        ("darionet", "-".join(["mobilenetv2"] * 5), "user", "Apache-2.0", "frozen"),
        ("esrgan", "x4", "to be fetched", "", ""),
    )
    listing.show(listing.Listing(("namespace", "weights", "where", "licence", "note"), rows))
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("namespace", "darionet", "user", "to be fetched", "Apache-", "frozen"))
    assert shown.count("mobilenetv2") == 5


def test_listed_names_in_brackets_survive(capsys):
    listing.show(listing.Listing(("name", "what", "why"), (("[x]", "[red]a", "b"),)))
    assert {"[x]", "[red]a"} <= set(capsys.readouterr().out.split())


def test_names_steer_no_terminal(capsys, tmp_path):
    """A folder, or the record of somebody else, may have a name that would clear the screen or colour it."""
    terminal.show([terminal.table(("name", "what"), [("x\x1b[31mred", "1")]), "t\x07 \x9bq"])
    said = capsys.readouterr().out
    assert "x\\x1b[31mred" in said and "\\x9bq" in said
    assert not set("\x07\x1b\x9b") & set(said)
    empty = tmp_path / "a\x1b[2J"
    empty.mkdir()
    done = CliRunner().invoke(app, ["leaderboard", str(empty)])
    assert done.exit_code == 2 and "\x1b" not in done.output and "there are no records in" in done.output


def test_no_columns_mean_eighty():
    words = [sys.executable, "-m", "srbench.cli", "list", "protocols"]
    none, eighty = (
        subprocess.run(words, env={**os.environ, "COLUMNS": width}, capture_output=True, text=True, check=True).stdout
        for width in ("0", "80")
    )
    assert "darionet-2021" in none and none == eighty
