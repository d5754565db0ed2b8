"""Whoever only reads records needs no torch: the commands run with the packages of the list in docs/ alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

from srbench.cli.guard import COMPUTING

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "tests" / "fixtures" / "records-v2"
MODULES = {"scikit-learn": "sklearn", "scikit-image": "skimage", "pillow": "PIL"}  # where a package has another name


def declared() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def listed() -> set[str]:
    text = (ROOT / "docs" / "requirements-reading.txt").read_text(encoding="utf-8")
    return {line for line in text.splitlines() if not line.startswith("#")}


def modules(requirements: set[str]) -> list[str]:
    names = [re.split(r"[<>=]", line)[0] for line in sorted(requirements)]
    return [MODULES.get(name, name.replace("-", "_")) for name in names]


def test_the_list_is_a_part_of_the_dependencies():
    assert listed() < declared()
    assert set(modules(declared() - listed())) == COMPUTING


def test_reading_needs_no_package_beyond_the_list(tmp_path):
    """With every other dependency blocked, commands that read run, and commands that compute say why they stop."""
    run = tmp_path / "run"
    shutil.copytree(FIXTURE / "records", run / "records")
    commands = [
        ["leaderboard", "run"],
        ["report", "run"],
        ["compare", "run", "run"],
        ["choose", "run", "--task", "photos-0.32", "--at-least", "0.999"],
        ["site", "run", "--out", "site"],
        ["pack", "run", "--out", "entry.zip"],
        ["verify", "entry.zip"],
        ["list", "methods"],
        ["bench", "bilinear"],
    ]
    code = f"""
        import contextlib, io, json, os, sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {sorted(COMPUTING)!r}:
                    raise ModuleNotFoundError(name, name=name)

        sys.meta_path.insert(0, Blocked())
        from srbench.cli import main
        os.chdir({str(tmp_path)!r})
        codes, said = {{}}, io.StringIO()
        for words in {commands!r}:
            sys.argv = ["srbench", *words]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                try:
                    main()
                    codes[words[0]] = 0
                except SystemExit as stop:
                    codes[words[0]] = stop.code or 0
        own = set(sys.modules) & set({modules(listed())!r})
        print(json.dumps([codes, sorted(own), said.getvalue()]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    codes, used, said = json.loads(done.stdout.splitlines()[-1])
    # no row reaches 0.999, which is the answer of choose
    assert codes == {words[0]: {"choose": 1, "list": 2, "bench": 2}.get(words[0], 0) for words in commands}, said
    assert said.count("this command computes, and torch is not installed: pip install srbench-resizing") == 2
    assert set(modules(listed())) == set(used), "a package of the list that no command imports"
    assert (run / "report.html").is_file() and "bilinear" in (tmp_path / "site" / "index.html").read_text()
