"""The house's own rules: floors of imports, no circles, modules of readable length, few entries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = ("srbench", "baselines", "methods")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LONGEST = 500
REASON = re.compile(r"[Ll]onger than 500 lines because \w+")


def lint(checkout: Path, *contracts: str) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    command += [word for name in contracts for word in ("--contract", name)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in CODE:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_keep_to_the_floors():
    code, said = lint(ROOT)
    assert code == 0, said


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("floors", "srbench/records/schema.py", "from srbench.task_types import task_type"),
        ("floors", "srbench/training/losses.py", "def late():\n    import srbench.evaluation"),
        ("floors", "srbench/unplaced.py", ""),
        ("no-circles", "srbench/task_types/__init__.py", "import srbench.training.recipe"),
        ("methods-apart", "methods/rdn.py", "from .srgan import SRGAN"),
        ("baselines-see", "baselines/bicubic.py", "from srbench.metrics import psnr_from_mse"),
        ("methods-see", "methods/rdn.py", "import srbench.training.teacher"),
    ],
)
def test_a_wrong_import_is_found(checkout: Path, contract: str, module: str, line: str):
    path = checkout / module
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n\n{line}\n", encoding="utf-8")
    code, said = lint(checkout, contract)
    assert code == 1 and "BROKEN" in said


def test_contributing_lists_the_floors_of_the_contract():
    (floors,) = (each for each in CONTRACTS if each["id"] == "floors")
    wanted = [{name.strip() for name in layer.split("|")} for layer in floors["layers"]]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^  (\d+)\. ((?:`\w+`(?:, )?)+)$", text, flags=re.M)
    assert [int(number) for number, _ in lines] == list(range(1, len(wanted) + 1))
    assert [set(re.findall(r"\w+", names)) for _, names in lines] == wanted


def test_contributing_lists_what_methods_and_baselines_see():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    for contract in CONTRACTS:
        if contract["id"] in ("baselines-see", "methods-see"):
            for allowed in contract["ignore_imports"]:
                seen = allowed.split(" -> srbench.")[1].removesuffix(".**")
                assert f"`{seen}`" in text, f"CONTRIBUTING.md lacks {seen}"


def test_a_long_module_says_why_in_its_first_lines():
    silent = {}
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LONGEST and not REASON.search(" ".join(lines[:12])):
            silent[path.relative_to(ROOT).as_posix()] = len(lines)
    assert not silent, "split them, or say 'longer than 500 lines because ...' in the docstring"


def test_the_package_shows_few_entries():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "srbench"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    paths = listed.stdout.split() or [path.relative_to(ROOT).as_posix() for path in (ROOT / "srbench").iterdir()]
    entries = {path.split("/")[1] for path in paths} - {"__pycache__"}
    assert len(entries) <= 25, sorted(entries)
