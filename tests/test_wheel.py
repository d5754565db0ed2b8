"""What an installation holds: setup.py's package list against the tree, and the checker of wheels against fake ones."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import wheel_content
from wheel_content import CHECKOUT, expected, problems

import srbench

DIST_INFO = f"srbench-{srbench.__version__}.dist-info"


def run_setup(checkout: Path) -> dict:
    """Return what setup.py hands to setuptools, run in `checkout`."""
    code = (
        "import json, runpy, setuptools\n"
        "setuptools.setup = lambda **given: print(json.dumps(given))\n"
        "runpy.run_path('setup.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    import json

    return json.loads(done.stdout)


def make_checkout(root: Path) -> Path:
    for name in (
        "srbench/__init__.py",
        "srbench/cli/__init__.py",
        "srbench/data/__init__.py",
        "srbench/protocol/presets/clean.toml",
        "srbench/weights/shipped/classifiers/net.safetensors",
        "srbench/py.typed",
        "baselines/__init__.py",
        "baselines/bicubic.py",
        "methods/__init__.py",
        "methods/esrgan/__init__.py",
        "methods/esrgan/network.py",
        "methods/esrgan/parts/deep.py",
        "methods/__pycache__/x.cpython-311.pyc",
        "srbench/__pycache__/stale.py",
        "docs/conf.py",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return root


def make_wheel(path: Path, names: set[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(names):
            archive.writestr(name, "")
    return path


def test_every_folder_with_modules_is_a_listed_package():
    given = run_setup(CHECKOUT)
    packages = {wheel_content.HOMES[name.split("/")[0]] for name in wheel_content.HOMES}
    modules = {name for name in expected(CHECKOUT) if name.endswith(".py")}
    packages = {str(Path(name).parent).replace("/", ".") for name in modules}
    assert set(given["packages"]) == packages and len(given["packages"]) == len(packages)
    assert given["package_dir"] == {
        "srbench": "srbench",
        "srbench.baselines": "baselines",
        "srbench.methods": "methods",
    }
    assert {"srbench.methods.esrgan", "srbench.data", "srbench.evaluation"} <= packages


def test_folder_method_is_listed_without_anybody_listing_it(tmp_path):
    checkout = make_checkout(tmp_path)
    (checkout / "setup.py").write_text((CHECKOUT / "setup.py").read_text())
    assert set(run_setup(checkout)["packages"]) == {
        "srbench",
        "srbench.cli",
        "srbench.data",
        "srbench.baselines",
        "srbench.methods",
        "srbench.methods.esrgan",
        "srbench.methods.esrgan.parts",
    }


def test_expected_content_is_mapped_to_where_it_is_installed(tmp_path):
    assert expected(make_checkout(tmp_path)) == {
        "srbench/__init__.py",
        "srbench/cli/__init__.py",
        "srbench/data/__init__.py",
        "srbench/protocol/presets/clean.toml",
        "srbench/weights/shipped/classifiers/net.safetensors",
        "srbench/py.typed",
        "srbench/baselines/__init__.py",
        "srbench/baselines/bicubic.py",
        "srbench/methods/__init__.py",
        "srbench/methods/esrgan/__init__.py",
        "srbench/methods/esrgan/network.py",
        "srbench/methods/esrgan/parts/deep.py",
    }


def test_whole_wheel_has_no_problem():
    wanted = expected(CHECKOUT)
    assert "srbench/protocol/presets/clean.toml" in wanted and "srbench/methods/darionet/disp.py" in wanted
    metadata = {f"{DIST_INFO}/METADATA", f"{DIST_INFO}/RECORD", "srbench/"}
    assert problems(wanted | metadata, wanted) == []


@pytest.mark.parametrize(
    ("gone", "more", "sentence"),
    [
        ("srbench/methods/esrgan/network.py", None, "missing: srbench/methods/esrgan/network.py"),
        ("srbench/baselines/bicubic.py", None, "missing: srbench/baselines/bicubic.py"),
        ("srbench/protocol/presets/clean.toml", None, "missing: srbench/protocol/presets/clean.toml"),
        (
            "srbench/weights/shipped/classifiers/net.safetensors",
            None,
            "missing: srbench/weights/shipped/classifiers/net.safetensors",
        ),
        (None, "baselines/bicubic.py", "at top level of site-packages: baselines/bicubic.py"),
        (None, "conftest.py", "at top level of site-packages: conftest.py"),
        (None, "srbench/secret.py", "not in the checkout: srbench/secret.py"),
    ],
)
def test_each_fault_is_found(tmp_path, gone, more, sentence):
    wanted = expected(make_checkout(tmp_path))
    names = (wanted - {gone}) | ({more} if more else set()) | {f"{DIST_INFO}/METADATA"}
    assert problems(names, wanted) == [sentence]


def test_script_lists_the_modules_and_fails_where_it_must(tmp_path):
    script = CHECKOUT / "tests" / "wheel_content.py"
    wanted = expected(CHECKOUT)
    good = make_wheel(tmp_path / "good.whl", wanted | {f"{DIST_INFO}/METADATA"})
    bad = make_wheel(tmp_path / "bad.whl", wanted - {"srbench/cli/__init__.py"})
    results = [
        subprocess.run([sys.executable, str(script), *map(str, wheels)], capture_output=True, text=True, check=False)
        for wheels in ([good], [bad], [])
    ]
    assert [each.returncode for each in results] == [0, 1, 2]
    assert "srbench.baselines.bicubic\n" in results[0].stdout and "0 problems" in results[0].stdout
    assert "missing: srbench/cli/__init__.py" in results[1].stdout and "usage:" in results[2].stderr
