"""What a release rests on: one version everywhere, actions that cannot change under us, a name that is ours."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import srbench

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == srbench.__version__ and citation["license"] == project()["license"]


def test_the_distribution_has_a_name_of_its_own_and_the_command_keeps_its_name() -> None:
    assert project()["name"] == "srbench-resizing" and project()["scripts"] == {"srbench": "srbench.cli:main"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_jobs_have_a_least_of_rights(path) -> None:
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action, _ in used), used
    assert all(re.fullmatch(r" # v\d+(\.\d+)*", version) for _, version in used), "the version beside each commit"
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_the_tag_is_held_against_the_version() -> None:
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert f'__version__ = "{srbench.__version__}"' in (ROOT / "srbench" / "__init__.py").read_text(encoding="utf-8")
    assert 'grep -qx "__version__ = \\"${GITHUB_REF_NAME#v}\\"" srbench/__init__.py' in workflow


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_issue_forms_are_well_formed(path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name != "config.yml":
        assert {"name", "description", "body"} <= form.keys()
        ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
        assert len(set(ids)) == len(ids)
