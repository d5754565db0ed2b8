"""Make the documentation a site: `make docs`.

    python docs/build.py --out out/docs

Gathers the pages of the repository in `out/docs/pages`, runs the notebooks, and builds `out/docs/site` with mkdocs, for
which a link that leads nowhere is an error. `--pages-only` leaves out the last two. Needs the extra `docs`.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "docs" / "notebooks"
GATHERED = (
    "docs/**/*.md",
    "docs/*.css",
    "results/**/*.md",
    "results/**/*.svg",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
)
MINUTE = 600  # seconds that one cell of a notebook may take on a busy machine
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"(^ *```.*?^ *```)", flags=re.S | re.M)


def site_path(path: str) -> str:
    """Name the place on the site of a file of the repository: docs/ is the root, a README the index of its folder."""
    if path == "README.md":
        return "overview.md"
    path = path.removeprefix("docs/")
    return re.sub(r"(^|/)README\.md$", r"\1index.md", path)


def gather(pages: Path) -> None:
    """Copy every page and what it links to into `pages`, and point the links to where things stand there."""
    sources = {str(path.relative_to(ROOT)) for pattern in GATHERED for path in ROOT.glob(pattern)} | {"README.md"}
    for source in sorted(sources):
        target = pages / site_path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            text, linked = rewrite((ROOT / source).read_text(encoding="utf-8"), source)
            target.write_text(text, encoding="utf-8")
            for other in linked - sources:
                copy = pages / site_path(other)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / other, copy)
        else:
            shutil.copyfile(ROOT / source, target)


def rewrite(text: str, source: str) -> tuple[str, set[str]]:
    """Return the text of a page with the links of the site, and the files of the repository that it links to."""
    linked: set[str] = set()
    here = Path(site_path(source)).parent

    def point(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(Path(source).parent / target)
        if (ROOT / path).is_dir():  # a folder of results: its table stands for it
            path = next(name for name in (f"{path}/README.md", f"{path}/leaderboard.md") if (ROOT / name).is_file())
        if path.endswith(".ipynb"):
            path = path.removesuffix(".ipynb") + ".md"
        else:
            linked.add(path)
        moved = os.path.relpath(site_path(path), here)
        return f"{match[1]}{moved}{'#' + anchor if anchor else ''}{match[3]}"

    parts = _FENCE.split(text)
    return "".join(part if at % 2 else _LINK.sub(point, part) for at, part in enumerate(parts)), linked


def run_notebook(path: Path, folder: Path) -> Any:
    """Run a notebook in `folder`; a cell that raises is an error."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=MINUTE, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def notebook_page(notebook: Any, name: str, folder: Path) -> str:
    """Write a notebook that ran as Markdown; its pictures go into `folder`."""
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts.extend(part for output in cell.outputs for part in _shown(output, f"{name}-{len(parts)}", folder))
    return "\n\n".join(parts) + "\n"


def _shown(output: Any, name: str, folder: Path) -> Iterator[str]:
    if output.output_type == "stream":
        if output.name == "stdout":
            yield f"```text\n{output.text.rstrip()}\n```"
        return
    data = output.get("data", {})
    if "image/png" in data:
        (folder / f"{name}.png").write_bytes(base64.b64decode(data["image/png"]))
        yield f"![what the cell above shows]({name}.png)"
    elif "text/html" in data:
        html = " ".join(data["text/html"].split())  # on one line: Markdown would end a block of HTML at an empty one
        yield f'<div class="output">{html}</div>'
    elif "text/plain" in data:
        yield f"```text\n{data['text/plain']}\n```"


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather, run, build; the exit code is that of mkdocs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "docs", help="folder of pages/ and site/")
    parser.add_argument("--pages-only", action="store_true", help="run no notebook and build no site")
    given = parser.parse_args(arguments)
    out = given.out.absolute()
    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    gather(pages)
    if given.pages_only:
        return 0
    work = out / "notebooks"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (pages / "notebooks").mkdir(exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        page = notebook_page(run_notebook(path, work), path.stem, pages / "notebooks")
        (pages / "notebooks" / f"{path.stem}.md").write_text(page, encoding="utf-8")
    # the theme asks on every build to be kept as it is; nothing here depends on what comes after it
    environment = os.environ | {"DOCS_PAGES": str(pages), "NO_MKDOCS_2_WARNING": "1"}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
    ]
    return subprocess.run([*command, "--site-dir", str(out / "site")], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
