"""Sends known images through a pipeline, as a command or by a folder, and has its resize identified."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srbench.errors import DataError, SrbenchError, UsageError, one_line
from srbench.files.regular import open_regular, read_regular
from srbench.imaging.decode import NPY_ERRORS, PILLOW_ERRORS
from srbench.imaging.identify import Identified, identify, test_images

_SUFFIXES = ("npy", "png")
_SECONDS = 300


def identify_command(command: str, *, size: str, suffix: str) -> Identified | None:
    """Run a command for every known image and identify its resize; None is none that is known.

    Args:
        command: A command line in which `{image}` is a PNG file and `{result}` the file to write.
        size: Size of the images, `H` or `HxW`.
        suffix: Type of `{result}`, "npy" or "png".

    Raises:
        UsageError: If the command names neither file, or a type is not known.
        SrbenchError: If the command fails or writes nothing.
    """
    if "{image}" not in command or "{result}" not in command:
        raise UsageError(
            "the command needs {image} and {result} in it, such as 'python mine.py {image} {result}'; got "
            f"{command!r}"
        )
    if suffix not in _SUFFIXES:
        raise UsageError(f"--suffix takes {' or '.join(_SUFFIXES)}, got {suffix!r}")
    images, results = test_images(*_size(size)), []
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            sent, result = Path(folder) / f"{number}.png", Path(folder) / f"{number}-result.{suffix}"
            Image.fromarray(image).save(sent)
            words = [
                word.replace("{image}", str(sent)).replace("{result}", str(result)) for word in shlex.split(command)
            ]
            _run(words)
            if not result.is_file():
                raise SrbenchError(
                    f"the command {words[0]} ended without writing {result.name}; it must write {{result}}"
                )
            results.append(_read(result))
    return identify(images, results)


def identify_folder(folder: Path, *, size: str) -> tuple[Identified | None, str | None]:
    """Write the known images into a folder, or identify the resize that made what lies beside them.

    Returns:
        What is found, or None; and the sentence that says what to do next, where the images have just been written.

    Raises:
        SrbenchError: If results are missing or no images.
    """
    sent, back = folder / "sent", folder / "results"
    if not sent.is_dir():
        images = test_images(*_size(size))
        for place in (sent, back):
            place.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(sent / f"{number}.png")
        return None, (
            f"srbench: wrote {len(images)} images to {sent}; send them through your pipeline, put what comes out into"
            f" {back} under the same names as .npy or .png, and run the same command again"
        )
    files = sorted(sent.glob("*.png"))
    if not files:
        raise DataError(f"{sent} holds no images; remove the folder and run the command again")
    results = []
    for file in files:
        candidates = [back / f"{file.stem}.{suffix}" for suffix in _SUFFIXES]
        there = [path for path in candidates if path.is_file()]
        if len(there) != 1:
            raise DataError(
                f"expected one of {candidates[0].name} and {candidates[1].name} in {back}, found {len(there)}; put"
                f" there what your pipeline makes of {file}"
            )
        results.append(_read(there[0]))
    return identify([np.array(Image.open(file).convert("RGB")) for file in files], results), None


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.strip())
    if match is None or min(int(match[1]), int(match[2] or match[1])) < 16:
        raise UsageError(f"--size takes the size of the images in pixels, H or HxW, at least 16 a side; got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SrbenchError(f"the command {words[0]} cannot be run: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SrbenchError(f"the command {words[0]} ended with exit code {done.returncode}: {last}")


def _read(path: Path) -> NDArray[np.generic]:
    try:
        if path.suffix == ".npy":
            loaded: NDArray[np.generic] = np.load(io.BytesIO(read_regular(path)), allow_pickle=False)
            return loaded
        with open_regular(path) as file, Image.open(file) as image:
            return np.array(image)
    except (*PILLOW_ERRORS, *NPY_ERRORS) as error:
        raise DataError(f"{path.name} cannot be read: {one_line(error)}") from None
