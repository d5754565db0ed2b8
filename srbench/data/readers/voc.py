"""Boxes in PASCAL VOC's layout: `voc:PATH` with JPEGImages/, one XML an image in Annotations/, and ImageSets/Main/.

Pixels count from 1 there, and the last one belongs to the box: xmin = 1, xmax = 2 is a box of two pixels at the edge.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from srbench.data.dataset import DatasetInfo, check_split
from srbench.data.readers.boxed import Annotated, BoxedSource, boxed_source
from srbench.data.readers.files import existing_folder, folder_name
from srbench.errors import DataError
from srbench.files.regular import read_lines, read_regular

VOC = DatasetInfo(
    name="voc",
    opener="open_voc",
    description="images with boxes in PASCAL VOC's layout, one XML an image",
    argument="PATH",
    labels="boxes",
    splits=(),
    protocol="dense-x4",
    task_type="detection",
)

MAX_MB = 8  # of one XML; a thousand objects take 0.4

_SETS = ("val", "test", "train", "trainval")  # the first that is there is the default
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def open_voc(argument: str, split: str | None = None) -> BoxedSource:
    """Open `PATH`: a split of ImageSets/Main/, or "all" and splits by the hash of the id where there are none.

    Classes are the names in all of Annotations/, in alphabetical order, whatever the split. Difficult objects are
    ignored: neither to be found nor wrong to be found.

    Raises:
        DataError: If a folder is missing, an XML is none or lacks a field, or the boxes do not fit the images.
        UsageError: If there is no split of that name.
    """
    spec = f"voc:{argument}"
    root = existing_folder(Path(argument), spec)
    lacking = [folder for folder in ("JPEGImages", "Annotations") if not (root / folder).is_dir()]
    if lacking:
        raise DataError(f"--data {spec}: {root} lacks the folder {lacking[0]}/; expected JPEGImages/ and Annotations/")
    files = sorted((root / "Annotations").glob("*.xml"))
    if not files:
        raise DataError(f"--data {spec}: {root / 'Annotations'} holds no .xml; expected one file an image")
    read = {file.stem: _objects(file, f"--data {spec}: {file.name}") for file in files}
    classes = tuple(sorted({name for _, names in read.values() for name in names}))
    if not classes:
        raise DataError(
            f"--data {spec}: none of the {len(files)} files in Annotations/ holds an <object>, so there is no"
            " class to find"
        )
    label = {name: index for index, name in enumerate(classes)}
    for annotated, names in read.values():
        annotated.labels = [label[name] for name in names]
    sets = [name for name in _SETS if (root / "ImageSets" / "Main" / f"{name}.txt").is_file()]
    if sets and split != "all":
        split = split or sets[0]
        check_split(split, (*sets, "all"), spec=spec)
        chosen = [read[stem][0] for stem in _listed(root / "ImageSets" / "Main" / f"{split}.txt", read, spec)]
    else:
        chosen = [annotated for annotated, _ in read.values()]
    name = folder_name(root)
    return boxed_source(
        root / "JPEGImages",
        chosen,
        classes=classes,
        name=name,
        spec=spec,
        stored_spec=f"voc:{name}",
        split=split or "all",
        hashed=not sets,
    )


def _listed(path: Path, read: dict[str, tuple[Annotated, list[str]]], spec: str) -> list[str]:
    """Return the stems that a file of ImageSets/Main/ lists."""
    try:
        stems = [line.split()[0] for line in read_lines(path) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--data {spec}: {path.name} cannot be read as text ({error}); give it anew") from None
    unknown = [stem for stem in stems if stem not in read]
    if unknown:
        raise DataError(
            f"--data {spec}: {path.name} lists {unknown[0]!r}, for which Annotations/ has no .xml"
            + (f" ({len(unknown)} of {len(stems)} are like it)" if len(unknown) > 1 else "")
            + "; add one, without an <object> where nothing is to be found, or take the line out"
        )
    if not stems:
        raise DataError(f"--data {spec}: {path.name} lists no image; use another --split")
    return list(dict.fromkeys(stems))


class _NoDoctype(ET.TreeBuilder):
    """Builds a tree, and refuses entities, with which a small file fills the memory or asks for other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse; annotations have no use for a document type."""
        raise DataError("declares a document type")


def _objects(path: Path, where: str) -> tuple[Annotated, list[str]]:
    """Read one XML: the image with its boxes, labels left out, and the name of each box's class."""
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        parser.feed(read_regular(path, most=MAX_MB * 2**20))
        tree = parser.close()
    except DataError:
        raise DataError(f"{where} declares a document type, which may hold entities; take its <!DOCTYPE> out") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{where} is not valid XML ({error}); give it anew") from None
    if tree.tag != "annotation":
        raise DataError(f"{where} holds <{tree.tag}>; expected VOC's <annotation>")
    sides = [_number(tree.findtext(f"size/{side}")) for side in ("height", "width")]
    known = all(math.isfinite(side) and side >= 1 for side in sides)
    file = (tree.findtext("filename") or "").strip()
    # Some tools leave another name or no ending in <filename>; the XML's own name is what ImageSets/ lists.
    suffix = file[file.rfind(".") :] if "." in file else ".jpg"
    annotated = Annotated(f"{path.stem}{suffix}", (int(sides[0]), int(sides[1])) if known else None)
    names = []
    for number, each in enumerate(tree.findall("object"), start=1):
        name = (each.findtext("name") or "").strip()
        edges = [_number(each.findtext(f"bndbox/{edge}")) for edge in _EDGES]
        if not name or not all(map(math.isfinite, edges)):
            raise DataError(
                f"{where}: object {number} needs a <name> and a <bndbox> with four numbers {', '.join(_EDGES)}"
            )
        names.append(name)
        annotated.xyxy.append((edges[0] - 1, edges[1] - 1, edges[2], edges[3]))
        annotated.areas.append(math.nan)
        annotated.crowd.append(False)
        annotated.ignored.append((each.findtext("difficult") or "0").strip() == "1")
    return annotated, names


def _number(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if abs(value) < 1e9 else math.nan
