"""Hold a wheel against the checkout: `python tests/wheel_content.py dist/*.whl`.

Lists the wheel's modules. Fails when a module of srbench/, baselines/ or methods/, a protocol or shipped weights are
missing, when the wheel holds something of these that the checkout does not, or when anything but srbench and its
metadata would land at top level of site-packages.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
HOMES = {"srbench": "srbench", "baselines": "srbench/baselines", "methods": "srbench/methods"}
DATA = (
    *(
        "srbench/protocol/presets/*.toml",
        "srbench/weights/shipped/**/*",
        "srbench/report/assets/*",
        "srbench/**/*.toml",
    ),
    *("methods/**/*.toml", "srbench/py.typed"),
)


def expected(checkout: Path) -> set[str]:
    """Return the paths that the wheel must hold, as the checkout has them."""
    found = [(home, path) for home in HOMES for path in (checkout / home).rglob("*.py")]
    found += [(pattern.split("/")[0], path) for pattern in DATA for path in checkout.glob(pattern) if path.is_file()]
    return {
        f"{HOMES[home]}/{path.relative_to(checkout / home).as_posix()}"
        for home, path in found
        if not any(part == "__pycache__" or part.startswith(".") for part in path.relative_to(checkout).parts)
    }


def problems(names: Iterable[str], wanted: set[str]) -> list[str]:
    """Return a sentence for everything that is missing from the wheel's `names`, foreign to it, or misplaced."""
    files = {name for name in names if not name.endswith("/")}
    lines = [f"missing: {name}" for name in sorted(wanted - files)]
    for name in sorted(files - wanted):
        top = name.split("/")[0]
        if top != "srbench" and not top.endswith((".dist-info", ".data")):
            lines.append(f"at top level of site-packages: {name}")
        elif top == "srbench":
            lines.append(f"not in the checkout: {name}")
    return lines


def main() -> int:
    """Check the wheels named on the command line."""
    if len(sys.argv) < 2:
        sys.stderr.write(f"usage: python {Path(__file__).name} WHEEL ...\n")
        return 2
    wanted = expected(CHECKOUT)
    failed = False
    for wheel in sys.argv[1:]:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        modules = sorted(name[:-3].replace("/", ".") for name in names if name.endswith(".py"))
        found = problems(names, wanted)
        sys.stdout.write("\n".join([*modules, *found]) + "\n")
        sys.stdout.write(f"{Path(wheel).name}: {len(modules)} modules, {len(found)} problems\n")
        failed |= bool(found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
