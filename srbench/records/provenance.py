"""What made a record: the code's version and commit, the machine and its libraries."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from srbench import __version__
from srbench.records.schema import CodeState, Environment

CODE_FOLDERS = ("srbench", "baselines", "methods")


def code_state() -> CodeState:
    """Return the installed version, and commit and dirty flag where srbench runs from a git checkout.

    An untracked file inside the code's folders counts as dirty; one elsewhere (an --out folder) does not.
    """
    checkout = Path(__file__).resolve().parents[2]
    # A wheel may be installed below somebody else's repository, whose commit would be a lie.
    top = _output("git", "-C", str(checkout), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != checkout:
        return CodeState(__version__, None, None)
    commit = _output("git", "-C", str(checkout), "rev-parse", "--verify", "HEAD")
    if commit is None:  # a repository without a commit yet
        return CodeState(__version__, None, None)
    folders = [name for name in CODE_FOLDERS if (checkout / name).is_dir()]
    changes = _output("git", "-C", str(checkout), "status", "--porcelain", "--", *folders)
    return CodeState(__version__, commit, None if changes is None else bool(changes))


def environment(device: Any) -> Environment:
    """Return the machine and the library versions for a torch device (or its name, "cpu", "cuda:0")."""
    import torch

    device = torch.device(device)
    on_cuda = device.type == "cuda"
    return Environment(
        python=platform.python_version(),
        torch=str(torch.__version__),
        torchvision=_version("torchvision"),
        timm=_version("timm"),
        device=torch.cuda.get_device_name(device) if on_cuda else _processor(),
        driver=_nvidia_driver() if on_cuda else None,
        threads=torch.get_num_threads(),
        platform=platform.platform(),
    )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu ({names[0] if names else platform.processor() or platform.machine()})"


def _nvidia_driver() -> str | None:
    text = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return text.splitlines()[0].strip() if text else None


def _output(*command: str) -> str | None:
    """Return a command's standard output, or None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
