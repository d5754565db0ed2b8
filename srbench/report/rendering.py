"""From the page's values to its HTML text."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from srbench import __version__
from srbench.leaderboard import BASELINE, ORACLE, texts
from srbench.report.figures import sections
from srbench.report.inline import script_json
from srbench.report.page import FigureBlock, Page

HEAT_COLOURS, HEAT_STOPS = "magma", 17
_PACKAGE = "srbench.report"
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_JOINTS = re.compile(r"([_/.-])")


def render(page: Page) -> str:
    """Return the HTML text."""
    script = asset("page.js")
    return str(
        template("page.html.j2").render(
            page=page,
            version=__version__,
            css=Markup(asset("page.css")),
            script=Markup(script),
            policy=policy(script),
            sections=[(each.name, each.title) for each in sections() if _any_of(page, each.name)],
            data=_json,
            groups=lambda section: _grouped(page, section),
            heat=_heat_colours(),
            oracle=ORACLE,
            reference=BASELINE,
            control_mark=texts.CONTROL_MARK,
            adapted_mark=texts.ADAPTED_MARK,
        )
    )


def policy(script: str) -> str:
    """Return the policy of a page that runs this one script and fetches nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _any_of(page: Page, section: str) -> bool:
    return any(block.section == section for block in page.figure_blocks)


def _grouped(page: Page, section: str) -> list[tuple[tuple[tuple[str, str], ...], list[FigureBlock]]]:
    """Figures of a section by task and classifier, each with what its heading has to name."""
    several_tasks = len(page.tasks) > 1
    several_classifiers = len({table.classifier for task in page.tasks for table in task.tables}) > 1
    groups = []
    figure_blocks = [block for block in page.figure_blocks if block.section == section]
    for (task, classifier), ours in itertools.groupby(figure_blocks, key=lambda block: (block.task, block.classifier)):
        names = []
        if several_classifiers and classifier:
            names.append(("classifier", classifier))
        if several_tasks and task:
            names.append(("task", task))
        groups.append((tuple(names), list(ours)))
    return groups


def _json(value: Any) -> Markup:
    return Markup(script_json(value))


@cache
def _heat_colours() -> dict[str, str]:
    """The colours of the maps of the error: tables for the page's filter, and the same as a ramp."""
    from matplotlib import colormaps

    stops = colormaps[HEAT_COLOURS](np.linspace(0, 1, HEAT_STOPS))[:, :3]
    tables_of = {
        name: " ".join(f"{value:.4f}" for value in stops[:, at]) for at, name in enumerate(("red", "green", "blue"))
    }
    ramp = ",".join(f"#{''.join(f'{round(255 * value):02x}' for value in stop)}" for stop in stops)
    return {**tables_of, "ramp": ramp}


@cache
def template(name: str) -> Any:
    """Return a template of the report's assets, which escapes every value."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE, "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "options": _options}
    return environment.get_template(name)


def _options(sentence: str) -> Markup:
    """A sentence whose commands, between backticks, and command-line options are set as code and stay in one piece."""
    parts = str(escape(sentence)).split("`")
    if len(parts) % 2 == 0:  # a backtick that none closes
        parts = ["`".join(parts)]
    return Markup(
        "".join(
            f"<code>{part}</code>" if place % 2 else _OPTION.sub(r"<code>\g<0></code>", part)
            for place, part in enumerate(parts)
        )
    )


def _breakable(name: str) -> Markup:
    """A name that may wrap after the signs that join its words."""
    return Markup(_JOINTS.sub(r"\1<wbr>", str(escape(name))))


@cache
def asset(name: str) -> str:
    """Return the text of a style sheet or a script."""
    return resources.files(_PACKAGE).joinpath("assets", name).read_text(encoding="utf-8")
