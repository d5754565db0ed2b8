"""The documentation: its commands parse, its examples run, its links resolve, its tables name every field."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command

import srbench
from srbench import bench, protocol
from srbench.cli import app
from srbench.conformance import check
from srbench.data.catalogue import list_datasets
from srbench.files import paths
from srbench.leaderboard import rows
from srbench.leaderboard.compare import parse_rule
from srbench.method import MethodInfo
from srbench.metrics.catalogue import metric_names
from srbench.networks import loading
from srbench.networks.cards import ClassifierCard
from srbench.records import schema as records
from srbench.records.samples import SAMPLE_COLUMNS
from srbench.registry import ENTRY_POINT_GROUP, Registry
from srbench.training.network_run import network_recipes
from srbench.training.recipe import TERMS, Augment, Recipe, load_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TRIAL = "pip install -e . && srbench eval --all"
TESTS = "pip install -e '.[dev]' && pytest"
# Folders and files of the repository, as text names them; what a run makes (out/, records/) is none of them.
IN_REPOSITORY = re.compile(
    r"`((?:srbench|baselines|methods|docs|tests|results)/[\w./-]*|\.ci/\w+|[\w-]+\.(?:toml|yaml))`"
)
CODE = ("srbench", "baselines", "methods", "results", "tests")
METHODS = Registry().working()
EXAMPLES = ("CONTRIBUTING.md", "docs/add-a-method.md")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where it begins."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: Path, language: str | None = None) -> Iterator[Block]:
    fence, found, start = None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence is None and line.lstrip().startswith("```"):
            fence, found, start = line.strip().strip("`"), [], number
        elif fence is not None and line.strip() == "```":
            if language in (None, fence):
                yield Block(str(page.relative_to(ROOT)), start, fence, "\n".join(found))
            fence = None
        elif fence is not None:
            found.append(line)
    assert fence is None, f"{page.name}: the fence of line {start} is never closed"


def blocks_of(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, language)]


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def place(block: object) -> str:
    return f"{block.page}:{block.line}" if isinstance(block, Block) else str(block)


# --- commands ----------------------------------------------------------------------------------------------------


def commands() -> list[tuple[str, list[str]]]:
    """Every srbench command of the fenced shell blocks, as (place, arguments)."""
    found = []
    for block in blocks_of("bash"):
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            for part in re.split(r"&&|\|", line):
                words = shlex.split(part, comments=True)
                if words[:1] == ["torchrun"]:
                    assert words[1:2] == ["--nproc-per-node"] and words[3:5] == ["-m", "srbench.cli"], part
                    words = ["srbench", *words[5:]]
                if words[:1] == ["srbench"]:
                    found.append((place(block), words[1:]))
    return found


COMMANDS = commands()
IDS = [f"{where} {' '.join(words)}" for where, words in COMMANDS]


def parsed(words: list[str]) -> dict[str, object]:
    """Parse a command line as the program does, without running it; the exit code is 2 where it is wrong."""
    command = get_command(app).commands[words[0]]
    given: dict[str, object] = {}
    command.callback = lambda **values: given.update(values)
    with pytest.raises(SystemExit) as stop:
        command.main(words[1:], prog_name="srbench")
    assert stop.value.code == 0
    return given


def test_the_parser_notices_what_is_wrong():
    assert parsed(["eval", "--all"])["every"] is True
    for wrong in (["eval", "--every"], ["compare", "before"], ["train"], ["eval", "--limit", "few"]):
        with pytest.raises(AssertionError):
            parsed(wrong)


def test_the_documentation_shows_every_command():
    assert {words[0] for _, words in COMMANDS} == set(get_command(app).commands)


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=IDS)
def test_commands_parse_and_name_what_exists(where, words):
    given = parsed(words)
    plugins = {Path(path).stem for path in given.get("plugin") or ()}
    named = {
        "eval": given.get("methods") or [],
        "bench": given.get("methods") or [],
        "train": [given.get("method")],
        "check": [given.get("method")],
    }.get(words[0], [])
    assert set(named) <= {*METHODS, *plugins, "classifier", "network"}
    for pair in (given.get("weights") or []) if words[0] in {"eval", "bench"} else []:
        assert pair.partition("=")[0] in {*METHODS, *plugins}
    if words[0] == "eval":
        assert bool(given["every"]) != bool(given["methods"])
    if given.get("protocol") is not None and not given["protocol"].endswith(".toml"):
        protocol.load_protocol(given["protocol"])
    for scale in _listed(given.get("scale")):
        protocol.parse_scale(scale)
    for size in _listed(given.get("size")):
        bench.parse_size(size)
    for spec in _listed(given.get("data")):
        assert spec.partition(":")[0] in {info.name for info in list_datasets()}
    for rule in given.get("fail_on") or []:
        parse_rule(rule)
    recipe = given.get("recipe")
    if recipe is not None and not recipe.endswith(".toml"):
        known = network_recipes() if given["method"] == "classifier" else METHODS[given["method"]].recipes
        assert recipe in known
    if words[0] == "list":
        assert given["what"] in {"methods", "classifiers", "datasets", "protocols", "weights"}


def _listed(value: object) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


# --- the README --------------------------------------------------------------------------------------------------


def test_the_readme_has_the_two_commands_each_in_a_block_of_its_own():
    alone = [block.text for block in blocks(ROOT / "README.md", "bash")]
    assert alone[:2] == [TRIAL, TESTS]
    assert TESTS in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_begins_with_a_table_and_a_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    marks = ["<!-- table:real-photos -->", "<!-- /table -->", "<!-- picture:demo -->", "<!-- /picture -->", TRIAL]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert all(text.count(mark) == 1 for mark in marks)


def test_the_readme_s_card_has_the_keys_that_cards_have():
    cards = [card for block in blocks_of("toml") if "library" in (card := tomllib.loads(block.text))]
    assert len(cards) >= 2
    for card in cards:
        assert {"library", "name", "weights", "mean", "std"} <= set(card) <= _fields(ClassifierCard)
        assert len(card["mean"]) == len(card["std"]) == card.get("in_chans", 3)
        loading.create_network(card["library"], card["name"], card["args"])


# --- examples ----------------------------------------------------------------------------------------------------


def example(page: str) -> tuple[str, str]:
    """The page's example of a method: (name of its file, its text)."""
    named = [
        (found.group(1), block.text.split("\n", 1)[1] + "\n")
        for block in blocks(ROOT / page, "python")
        if (found := re.match(r"# (\w+\.py)\n", block.text))
    ]
    assert len(named) == 1
    return named[0]


def write_example(page: str, folder: Path) -> Path:
    name, text = example(page)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve tiny images of two classes."""
    root = tmp_path_factory.mktemp("docs") / "photos"
    draws = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (root / label).mkdir(parents=True)
        for number in range(6):
            pixels = draws.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((40, 40)).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """A classifier of a few thousand parameters, named by a card."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("card")
    torch.manual_seed(0)
    args = {"num_classes": 2, "channels": [8, 8, 8, 8], "stem_width": 8}
    network = loading.create_network("timm", "resnet10t", args)
    save_file(network.state_dict(), folder / "tiny.safetensors")
    (folder / "tiny.txt").write_text("ant\nbee\n", encoding="utf-8")
    (folder / "tiny.toml").write_text(
        'library = "timm"\nname = "resnet10t"\nweights = "tiny.safetensors"\nclasses = "tiny.txt"\n'
        "args = { num_classes = 2, channels = [8, 8, 8, 8], stem_width = 8 }\n"
        "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n",
        encoding="utf-8",
    )
    return folder / "tiny.toml"


SMALL = protocol.parse_protocol("[hr]\nresize = 32\ncrop = 32\n[lr]\nscale = 0.5\n", name="small", origin="test")


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_example_method_passes_the_contract(page, tmp_path):
    plugin = write_example(page, tmp_path)
    findings = check(Registry([plugin]).get(plugin.stem), plugin.stem)
    assert len(findings) >= 13
    assert [finding for finding in findings if not finding.ok] == []


def test_the_example_method_is_evaluated_and_sharpens(tmp_path, photos, card):
    plugin = write_example("CONTRIBUTING.md", tmp_path)
    result = srbench.evaluate(
        ["sharpened"],
        data=f"folder:{photos}",
        classifiers=[str(card)],
        protocol=SMALL,
        plugins=[plugin],
        out=tmp_path / "out",
        measure=False,
        progress=False,
    )
    lines = result.leaderboard.set_index("method")
    assert {"original", "none", "bilinear", "sharpened"} <= set(lines.index)
    assert lines.loc["sharpened", "status"] == "ok"
    assert lines.loc["sharpened", "n"] == 12
    assert lines.loc["sharpened", "psnr"] > lines.loc["bilinear", "psnr"]
    assert (tmp_path / "out" / "leaderboard.md").is_file()
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    section = page.split("### metrics", 1)[1].split("### ", 1)[0]
    computed = {name for cell in result.cells for name in cell.record.metrics}
    assert set(re.findall(r"^\| `(\w+)`", section, flags=re.M)) == computed


def test_the_example_of_a_trained_method_is_trained_and_used(tmp_path, photos, card, own_folders):
    plugin = write_example("docs/add-a-method.md", tmp_path)
    shared = {"data": f"folder:{photos}", "protocol": SMALL, "plugins": [plugin], "progress": False}
    trained = srbench.train(
        "residual",
        **(shared | {"data": [shared["data"]]}),
        val=shared["data"],
        classifier=str(card),
        overrides=["batch_size=4", "steps_per_epoch=2"],
        epochs=1,
        name="mine",
        out=tmp_path / "run",
        device="cpu",
    )
    assert trained.steps == 2
    result = srbench.evaluate(
        ["residual"],
        **shared,
        classifiers=[str(card)],
        weights={"residual": ["mine"]},
        out=tmp_path / "out",
        measure=False,
        device="cpu",
    )
    row = result.leaderboard.set_index("method").loc["residual"]
    assert (row["status"], row["weights"], row["n"]) == ("ok", "mine", 12)


PYTHON = blocks_of("python")


@pytest.mark.parametrize("block", PYTHON, ids=place)
def test_python_blocks_are_valid_and_call_what_exists(block):
    calls = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Call)]
    for call in calls:
        name = ast.unparse(call.func)
        if name in ("srbench.evaluate", "srbench.train"):
            function = getattr(srbench, name.removeprefix("srbench."))
            signature = inspect.signature(function)
            signature.bind(*call.args, **{str(word.arg): word.value for word in call.keywords})


def test_tables_in_toml_are_read(tmp_path):
    kinds = set()
    for block in blocks_of("toml"):
        raw = tomllib.loads(block.text)
        if {"hr", "lr", "score"} & set(raw):
            kinds.add("protocol")
            protocol.parse_protocol(block.text, name="example", origin=place(block))
        elif "losses" in raw:
            kinds.add("recipe")
            (tmp_path / "example.toml").write_text(block.text, encoding="utf-8")
            load_recipe(str(tmp_path / "example.toml"), METHODS["darionet"].recipes)
        elif "project" in raw:
            kinds.add("entry point")
            assert set(raw["project"]["entry-points"]) == {ENTRY_POINT_GROUP}
        else:
            kinds.add("card")
            assert "library" in raw, place(block)
    assert kinds == {"protocol", "recipe", "entry point", "card"}


# --- what is named -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", NAMES)
def test_links_resolve(page):
    text = prose(ROOT / page)
    for target in re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.M)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page} links to {target}"


@pytest.mark.parametrize("page", NAMES)
def test_files_that_are_named_exist(page):
    made_up = {"card.toml", "pyproject.toml", "birds.toml", "mine.toml", "deeper.toml"}
    for name in IN_REPOSITORY.findall(prose(ROOT / page)):
        if name not in made_up or name == "pyproject.toml":
            assert (ROOT / name).exists(), f"{page} names {name}"


@pytest.mark.parametrize("page", NAMES)
def test_pages_name_no_machine(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.~])/(?:home|work|tmp|root|usr|mnt|farm)/", text)
    assert "\t" not in text


PARTS = [each for each in vars(records).values() if dataclasses.is_dataclass(each) and isinstance(each, type)]


def _fields(*kinds: type) -> set[str]:
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/records.md", _fields(*PARTS)),
        ("docs/records.md", set(SAMPLE_COLUMNS)),
        ("docs/records.md", {*rows.IDENTITY, *metric_names(), "ci", "notes"}),
        ("docs/protocols.md", _fields(protocol.Geometry, protocol.Degradation, protocol.Restoration, protocol.Scoring)),
        ("docs/protocols.md", set(protocol.preset_names())),
        ("docs/training.md", _fields(Recipe, Augment) | set(TERMS)),
        ("docs/data.md", {info.syntax for info in list_datasets()}),
        ("docs/data.md", _fields(ClassifierCard)),
        ("docs/add-a-method.md", _fields(MethodInfo)),
    ],
)
def test_pages_name_every_field(page, names):
    spoken = set(re.findall(r"`([^`]+)`", prose(ROOT / page)))
    assert sorted(names - spoken) == []


def test_the_table_of_datasets_is_the_catalogue():
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([^`]+)` \| (.+) \| (.+) \| (.+) \| `([^`]+)` \|$", text, flags=re.M)
    assert table == [
        (info.syntax, info.description, ", ".join(info.splits) or "its own", info.labels, info.protocol)
        for info in list_datasets()
    ]


def test_defaults_of_the_tables_are_the_code_s():
    """Every default that docs/training.md and docs/protocols.md give as a number or true or false."""
    for page, heading, kind in (
        ("docs/training.md", "| setting | default", Recipe()),
        ("docs/training.md", "| setting of `augment`", Augment()),
        ("docs/protocols.md", "### hr", protocol.Geometry()),
        ("docs/protocols.md", "### lr", protocol.Degradation()),
        ("docs/protocols.md", "### sr", protocol.Restoration()),
        ("docs/protocols.md", "### score", protocol.Scoring()),
    ):
        text = (ROOT / page).read_text(encoding="utf-8").split(heading, 1)[1]
        table = re.search(r"(?:^\|.*\n)+", text.split("\n", 1)[1], flags=re.M)
        assert table is not None
        rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|", table.group(0), flags=re.M)
        assert {name for name, _ in rows} == _fields(type(kind))
        for name, written in rows:
            default = getattr(kind, name)
            if written.strip() in ("", "none"):
                assert default is None or default in ({}, (), Augment()), name
            else:
                assert tomllib.loads(f"value = {written.strip().strip('`')}")["value"] == default, name


def test_the_guide_s_folders_are_the_code_s(monkeypatch, tmp_path):
    for name in ("SRBENCH_CACHE", "SRBENCH_DATA", "SRBENCH_WEIGHTS", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = dict(
        re.findall(r"^\| `(SRBENCH_\w+)` \|[^|]*\| `~/([^`]+)` \|", (ROOT / "docs/guide.md").read_text(), flags=re.M)
    )
    for name, folder in (
        ("SRBENCH_CACHE", paths.cache_dir()),
        ("SRBENCH_DATA", paths.data_dir()),
        ("SRBENCH_WEIGHTS", paths.weights_dir()),
    ):
        assert folder == tmp_path / found[name]


def test_decisions_are_numbered_listed_and_whole():
    folder = ROOT / "docs" / "decisions"
    notes = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    index = (folder / "README.md").read_text(encoding="utf-8")
    numbers = [int(path.name[:4]) for path in notes]
    assert numbers == list(range(1, len(notes) + 1)), "numbers have no holes"
    assert index.count("](") == len(notes)
    for number, path in zip(numbers, notes, strict=True):
        text = path.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix(f"# {number}. ")
        assert path.name.startswith(f"{number:04d}-") and text.startswith(f"# {number}. ")
        assert f"{number}. [{title}]({path.name})" in index
        for part in ("**Context.**", "**Decision.**", "**Consequence.**"):
            assert text.count(part) == 1, f"{path.name} lacks {part}"


# --- the site ----------------------------------------------------------------------------------------------------


def load_build():
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_has_every_page_and_no_link_leads_nowhere(tmp_path):
    build = load_build()
    build.gather(tmp_path)
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in build.NOTEBOOKS.glob("*.ipynb")}
    listed = set(re.findall(r"(?<= )[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.M))
    notes = {page for page in pages if re.match(r"decisions/\d", page)}
    assert listed == (pages - notes) | notebooks, "the nav of mkdocs.yml names every page"
    for page in sorted(pages):
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(tmp_path / page)):
            file = target.partition("#")[0]
            if file and not re.match(r"[a-z]+:", file):
                path = (tmp_path / page).parent / file
                assert path.exists() or os.path.relpath(path.resolve(), tmp_path) in notebooks, f"{page}: {target}"


def test_the_site_fetches_nothing_and_names_its_python_by_what_exists():
    assert "font: false" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.M):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


def test_notebooks_are_kept_without_what_they_showed():
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells), path.name


def test_every_folder_of_results_says_how_it_is_made_again():
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for folder in (path for path in (ROOT / "results").iterdir() if path.is_dir()):
        assert f"](../results/{folder.name}/" in text, folder.name
        scripts = list(folder.glob("*.sh"))
        assert all(f"`results/{folder.name}/{path.name}`" in text for path in scripts), folder.name


def test_decisions_that_are_named_exist():
    notes = {path.name[:4] for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md")}
    files = [*PAGES, ROOT / "pyproject.toml", *(path for top in CODE for path in (ROOT / top).rglob("*.py"))]
    named = re.compile(r"decisions/(\d{4})|[Dd]ecision (\d+)\b")
    for path in files:
        for match in named.finditer(path.read_text(encoding="utf-8")):
            assert f"{int(match[1] or match[2]):04d}" in notes, f"{path.relative_to(ROOT)}: {match[0]}"


def test_the_changelog_tells_of_this_version():
    assert f"## {srbench.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
