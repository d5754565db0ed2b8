"""Files that were made to harm, at every door through which a file comes in: nothing runs, nothing hangs, one sentence.

`SRBENCH_MUTATIONS=2000 pytest tests/test_attacks.py` is the long form of the mutations; SECURITY.md has its figures.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import signal
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from record_factory import commit, make_record, make_samples, write_board
from safetensors.torch import save_file

from srbench.data.hr_chunks import load_chunk
from srbench.data.metadata import read_metadata
from srbench.data.readers.coco import open_coco
from srbench.data.readers.masks import open_voc as open_voc_masks
from srbench.data.readers.masks import read_classes, read_mask
from srbench.data.readers.voc import _objects as read_voc_objects
from srbench.errors import SrbenchError
from srbench.evaluation.hr_predictions import _read as read_predictions
from srbench.files.sealed import seal_of
from srbench.files.strict import read_json, read_toml
from srbench.imaging.codecs import read_picture
from srbench.imaging.decode import decode, header_of
from srbench.imaging.lossless import read_restored
from srbench.leaderboard import read_leaderboard, tables
from srbench.leaderboard.numbers import build
from srbench.networks.cards import card_classes, read_card
from srbench.protocol import load_protocol
from srbench.records.cells import RECORD_FILE, SAMPLES_FILE, find_records, load_cell
from srbench.records.sample_columns import read_columns
from srbench.records.samples import read_samples, read_sums
from srbench.records.thumbnails import read_thumbnails
from srbench.training import checkpoint
from srbench.training.recipe import load_recipe
from srbench.weights.files import read_state, reference

MUTATIONS = int(os.environ.get("SRBENCH_MUTATIONS", "120"))
SECONDS = 60  # in which a door has to answer, however slow the machine

Door = Callable[[Path], Any]


def _pictures(beside: Path) -> Path:
    """Return a folder with one image, a.png of 8 x 6 pixels."""
    folder = beside / "images"
    if not folder.exists():
        folder.mkdir()
        Image.new("RGB", (8, 6)).save(folder / "a.png")
    return folder


def _voc_masks(listed: Path) -> Path:
    """Return a folder in Pascal VOC's layout with one image and mask, a; `listed` is its list of a split."""
    root = listed.parent / "voc"
    if not root.exists():
        for folder, file, mode in (("JPEGImages", "a.jpg", "RGB"), ("SegmentationClass", "a.png", "L")):
            (root / folder).mkdir(parents=True)
            Image.new(mode, (8, 6)).save(root / folder / file)
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        (root / "ImageSets" / "Segmentation" / "val.txt").symlink_to(listed)
    return root


DOORS: dict[str, tuple[str, Door]] = {  # what a file is for: its name, and what reads it
    "weights": ("x.safetensors", lambda path: (reference(path, label="x", uri="x"), read_state(path))),
    "checkpoint of others": ("x.pth", lambda path: (reference(path, label="x", uri="x"), read_state(path))),
    "own checkpoint": (checkpoint.NAME, checkpoint.read),
    "classifier card": ("x.toml", read_card),
    "protocol": ("x.toml", lambda path: load_protocol(str(path))),
    "recipe": ("x.toml", lambda path: load_recipe(str(path), {})),
    "toml": ("x.toml", lambda path: read_toml(path, what="x.toml", error=SrbenchError)),
    "json": ("x.json", read_json),
    "leaderboard": ("leaderboard.json", read_leaderboard),
    "record": (RECORD_FILE, lambda path: load_cell(path.parent)),
    "samples": (SAMPLES_FILE, lambda path: (read_samples(path), read_sums(path))),
    "columns": ("columns.parquet", lambda path: read_columns(path.parent)),
    "thumbnails": ("thumbnails.parquet", read_thumbnails),
    "table of --meta": ("x.csv", lambda path: read_metadata(path, reserved=())),
    "image": ("x.png", decode),
    "jpeg": ("x.jpg", decode),
    "array": ("x.npy", decode),
    "picture": ("x.png", lambda path: read_picture(path, "x")),
    "restored image": ("x.png", lambda path: read_restored(path, "x")),
    "header": ("x.png", header_of),
    "mask": ("x.png", lambda path: read_mask(path, "x")),
    "boxes as JSON": ("x.json", lambda path: open_coco(f"{_pictures(path.parent)},{path}")),
    "boxes as XML": ("x.xml", lambda path: read_voc_objects(path, "x.xml")),
    "class names": ("classes.txt", lambda path: read_classes(path, "x")),
    "list of a split": ("val.txt", lambda path: open_voc_masks(str(_voc_masks(path)), "val")),
    "HR cache": ("x.hr", lambda path: load_chunk(path, range(3), retry=True)),
    "predictions": ("x.npz", lambda path: read_predictions(path, 3, torch.device("cpu"))),
}


class Ran(BaseException):
    """Code of a file was run."""


def explode() -> None:
    raise Ran


class Trap:
    """What runs code as soon as it is unpickled."""

    def __reduce__(self):
        return explode, ()


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    def late(number, frame):
        pytest.fail(f"it has not answered in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def knock(door: str, path: Path) -> str:
    """Hand a file to a door; return its sentence, "" where it took the file. Any other error fails the test."""
    with no_hang(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            DOORS[door][1](path)
        except SrbenchError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            return str(error)
    return ""


# --- pipes, devices, sockets, folders, and links to them ---------------------------------------------------------


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
        made.bind(path.name)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _pipe_behind_a_link(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


NO_FILES = {
    "pipe": _pipe,
    "link to a pipe": _pipe_behind_a_link,
    "endless device": _link("/dev/zero"),
    "empty device": _link("/dev/null"),
    "terminal": _link("/dev/tty"),
    "socket": _socket,
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": _link("nothing"),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_is_no_file_is_refused_at_once(door, tmp_path):
    for number, (kind, make) in enumerate(NO_FILES.items()):
        path = tmp_path / str(number) / DOORS[door][0]
        path.parent.mkdir()
        make(path)
        said = knock(door, path)
        quiet = {
            "header",
            "HR cache",
            "predictions",
            "thumbnails",
            "columns",
        }  # these may say nothing, and take nothing
        assert said or door in quiet, f"{door} took a {kind}"


# --- code --------------------------------------------------------------------------------------------------------


def pickled(content: Any) -> dict[str, bytes]:
    """Return content as every container of a pickle there is."""
    plain = {
        f"pickle {number}": pickle.dumps(content, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)
    }
    stream, legacy, array, archive = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(content, stream)
    torch.save(content, legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([content], dtype=object), allow_pickle=True)
    np.savez(archive, scores=np.array([content], dtype=object))
    return plain | {
        "torch": stream.getvalue(),
        "torch legacy": legacy.getvalue(),
        "npy of objects": array.getvalue(),
        "npz of objects": archive.getvalue(),
        "torch before half a seal": stream.getvalue() + seal_of(stream.getvalue())[:-1],
    }


HIDDEN = [Trap(), {"state_dict": Trap()}, {"a": torch.ones(1), "b": [Trap()]}, {Trap: 1}]


@pytest.mark.parametrize("door", DOORS)
def test_no_pickle_runs(door, tmp_path):
    path = tmp_path / DOORS[door][0]
    for content in HIDDEN:
        for form, data in pickled(content).items():
            path.write_bytes(data)
            said = knock(door, path)
            is_text = door == "class names"  # the oldest form of a pickle is lines of text, and names are no code
            assert said or is_text or DOORS[door][1](path) in (None, {}), f"{door} took {form}"


def test_a_sealed_checkpoint_with_code_is_refused(tmp_path):
    path = tmp_path / checkpoint.NAME
    for content in HIDDEN:
        for data in pickled(content).values():
            path.write_bytes(data + seal_of(data))
            assert "cannot be read as a checkpoint" in knock("own checkpoint", path)


def test_torchscript_and_tensors_of_other_classes_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    torch.jit.trace(torch.nn.Linear(1, 1), torch.ones(1, 1)).save(str(path))
    assert "x.pth" in knock("checkpoint of others", path)
    torch.save(torch.nn.Linear(1, 1), path)
    assert "holds code or objects other than tensors" in knock("checkpoint of others", path)


# --- bombs and lying headers -------------------------------------------------------------------------------------


def _png(width: int, height: int, rows: int = 1) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(min(rows * (3 * width + 1), 10**6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _jpeg(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _npy(shape: str, dtype: str = "|u1") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def _safetensors(header: Any, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _packed_checkpoint() -> bytes:
    """Return a checkpoint of 64 MB of zeros in some kB."""
    stream, packed = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(2**24)}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return packed.getvalue()


DEEP = 100_000
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}


def _coco(box: Any = None, image: Any = None, category: Any = None) -> bytes:
    """Return annotations of one image, with these fields put over those of a good one."""
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6} | (image or {})],
            "annotations": [BOX | (box or {})],
            "categories": [{"id": 1, "name": "cat"} | (category or {})],
        }
    ).encode()


def _voc(objects: str = "", head: str = "") -> bytes:
    size = "<size><width>8</width><height>6</height></size>"
    return f"{head}<annotation><filename>a.png</filename>{size}{objects}</annotation>".encode()


def _object(xmin: str = "1", name: str = "cat") -> str:
    edges = f"<xmin>{xmin}</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax>"
    return f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"


def _saved(content: np.ndarray, kind: str = "PNG") -> bytes:
    with io.BytesIO() as stream:
        Image.fromarray(content).save(stream, kind)
        return stream.getvalue()


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BOMBS: list[tuple[str, str, bytes]] = [
    ("image", "PNG of 10^10 pixels", _png(100_000, 100_000)),
    ("image", "PNG without a side", _png(0, 5)),
    ("picture", "PNG of 10^10 pixels", _png(100_000, 100_000)),
    ("restored image", "PNG of 10^10 pixels", _png(100_000, 100_000)),
    ("jpeg", "JPEG of 4.3 x 10^9 pixels", _jpeg(65_535, 65_535)),
    ("picture", "JPEG of 4.3 x 10^9 pixels", _jpeg(65_535, 65_535)),
    *(
        ("array", f"array of {shape}", _npy(shape))
        for shape in ("(10**6,)", "(1000000, 1000000, 3)", "(-1, 5)", "('x',)")
    ),
    ("array", "array of objects", _npy("(1,)", "|O")),
    ("array", "deep header", _npy("(" * 5000)),
    ("restored image", "array of 10^12", _npy("(1000000, 1000000)")),
    ("weights", "header of 10^18 bytes", _safetensors({"a": TENSOR}, length=10**18)),
    ("weights", "overlapping tensors", _safetensors({"a": TENSOR, "b": TENSOR})),
    ("weights", "a tensor beyond the file", _safetensors({"a": {**TENSOR, "data_offsets": [0, 10**15]}})),
    ("weights", "a huge shape", _safetensors({"a": {**TENSOR, "shape": [2**40, 2**40]}})),
    ("weights", "a deep header", _safetensors(b'{"a":' + b"[" * DEEP)),
    ("weights", "a card that is no JSON", _safetensors({"__metadata__": {"srbench": "{"}, "a": TENSOR})),
    ("weights", "a deep card", _safetensors({"__metadata__": {"srbench": "[" * DEEP}, "a": TENSOR})),
    ("checkpoint of others", "a packed archive", _packed_checkpoint()),
    ("toml", "17 MB", b"a = 1\n" * 3_000_000),
    *(("toml", name, text) for name, text in (("deep", b"a = " + b"[" * DEEP), ("not text", b"\xff\xfe\x00"))),
    ("toml", "a number of a million digits", b"a = " + b"9" * 10**6),
    *(("json", name, text) for name, text in (("deep", b"[" * DEEP), ("NaN", b"[NaN]"), ("cut", b'{"a": '))),
    *(
        ("leaderboard", name, text)
        for name, text in (("deep", b"[" * DEEP), ("a list", b"[]"), ("huge", b"1" + b"0" * 5000))
    ),
    ("record", "deep", b"[" * DEEP),
    ("samples", "a footer of 2 GB", b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1"),
    ("table of --meta", "a cell of 10 MB", b"id,a\nx," + b"y" * 10**7 + b"\n"),
    ("table of --meta", "zeros", bytes(1000)),
    ("mask", "PNG of 10^10 pixels", _png(100_000, 100_000)),
    ("mask", "colours instead of indices", _saved(np.zeros((6, 8, 3), np.uint8))),
    ("mask", "16 bits", _saved(np.full((6, 8), 40_000, np.uint16))),
    ("mask", "32 bits", _saved(np.full((6, 8), np.nan, np.float32), "TIFF")),
    ("mask", "no image", b"<html>"),
    ("boxes as JSON", "deep", b"[" * DEEP),
    ("boxes as JSON", "NaN", _coco({"bbox": [float("nan"), 1, 3, 3]})),
    ("boxes as JSON", "infinity", _coco({"bbox": [1, 1, float("inf"), 3]})),
    ("boxes as JSON", "a number of 400 digits", _coco({"bbox": [10**400, 1, 3, 3]})),
    ("boxes as JSON", "ids of 4,000 digits", _coco({"image_id": 10**4000})),
    ("boxes as JSON", "an id of 5,000 digits", _coco().replace(b'"image_id": 1', b'"image_id": ' + b"1" * 5000)),
    ("boxes as JSON", "a box of text", _coco({"bbox": "1234"})),
    ("boxes as JSON", "an image that is none", _coco({"image_id": 2})),
    ("boxes as JSON", "a category that is a list", _coco({"category_id": [1]})),
    ("boxes as JSON", "a name that leads out", _coco(image={"file_name": "../../../etc/passwd"})),
    ("boxes as JSON", "a name from the root", _coco(image={"file_name": "/etc/passwd"})),
    ("boxes as JSON", "a name of lines", _coco(image={"file_name": "x\ny\x1b[31m"})),
    ("boxes as JSON", "a category of lines", _coco({"category_id": 2}, category={"name": "x\ny"})),
    ("boxes as JSON", "not text", b"\xff\xfe{}"),
    ("boxes as XML", "a billion laughs", _voc("<object>&l9;</object>", f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>')),
    (
        "boxes as XML",
        "an entity of another file",
        _voc("&x;", '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    ),
    ("boxes as XML", "a document type elsewhere", _voc("", '<!DOCTYPE x SYSTEM "http://localhost/x.dtd">')),
    ("boxes as XML", "an entity that nobody declared", _voc("&x;")),
    ("boxes as XML", "deep", b"<a>" * DEEP),
    ("boxes as XML", "9 MB", _voc(" " * 9_000_000)),
    ("boxes as XML", "another encoding than it says", b'<?xml version="1.0" encoding="utf-16"?>' + _voc()),
    ("boxes as XML", "an encoding that is none", b'<?xml version="1.0" encoding="bomb"?>' + _voc()),
    *(
        ("boxes as XML", f"an edge of {value}", _voc(_object(value)))
        for value in ("nan", "inf", "1e999", "9" * 5000, "")
    ),
    ("boxes as XML", "an object without a name", _voc(_object(name=" "))),
    ("class names", "300 names", b"".join(b"%d\n" % n for n in range(300))),
    ("class names", "17 MB", b"x\n" * 9_000_000),
    ("class names", "not text", b"\xff\xfe\x00"),
    ("list of a split", "not text", b"\xff\xfe\x00"),
    ("list of a split", "a name that leads out", b"a\n../../images/a\n"),
    ("list of a split", "a name from the root", b"/etc/passwd\n"),
    ("list of a split", "a name of 5,000 characters", b"x" * 5000),
    ("list of a split", "17 MB", b"a\n" * 9_000_000),
]


@pytest.mark.parametrize(("door", "what", "data"), BOMBS, ids=[f"{door}: {what}" for door, what, _ in BOMBS])
def test_bombs_and_lying_headers_are_one_sentence(door, what, data, tmp_path):
    path = tmp_path / DOORS[door][0]
    path.write_bytes(data)
    assert knock(door, path), f"{door} took {what}"


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [100_000, 100_000], "counts": [0, 10**10]},
        {"size": [10**9, 10**9], "counts": "x" * 1000},
        [[1e308] * 8],
    ],
)
def test_outlines_that_claim_many_pixels_are_not_drawn(segmentation, tmp_path):
    """Boxes are what is scored, so an RLE of 10^10 pixels fills no memory."""
    path = tmp_path / "x.json"
    path.write_bytes(_coco({"segmentation": segmentation}))
    with no_hang():
        source = open_coco(f"{_pictures(tmp_path)},{path}")
    assert source.read_stored(0).target[:, :4].tolist() == [[1, 1, 4, 4]]


def test_masks_of_eight_bits_are_read_by_index(tmp_path):
    indices = np.arange(48, dtype=np.uint8).reshape(6, 8)
    palette = Image.fromarray(indices).convert("P")
    palette.putdata(indices.flatten().tolist())
    for number, image in enumerate((Image.fromarray(indices), palette)):
        image.save(tmp_path / f"{number}.png")
        assert (read_mask(tmp_path / f"{number}.png", "x") == indices).all()


def test_annotations_reach_no_image_outside_their_folder(tmp_path):
    """A name that leads out is an image that is missing, even where it is there."""
    Image.new("RGB", (8, 6)).save(tmp_path / "secret.png")
    folder = _pictures(tmp_path)
    path = tmp_path / "x.json"
    content = json.loads(_coco())
    content["images"].append({"id": 2, "file_name": "../secret.png"})
    path.write_text(json.dumps(content))
    source = open_coco(f"{folder},{path}")
    outside = [index for index, sample in enumerate(source.samples) if "secret" in sample.id]
    with pytest.raises(SrbenchError, match="no image of that name is there"):
        source.read_stored(outside[0])


def test_a_tensor_that_repeats_one_number_fills_no_memory(tmp_path):
    """A view of 10^15 numbers in a file of a few hundred bytes: its shape fits no network."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1).expand(10**15)}, path)
    assert path.stat().st_size < 10_000
    with no_hang():
        assert read_state(path)["a"].shape == (10**15,)


def test_samples_of_more_rows_than_their_record_says_are_not_read(tmp_path):
    cell = commit(tmp_path, make_record("x", n=4), make_samples([0, 1] * 2, [0, 1] * 2, hr_preds=[0, 1] * 2))
    table = pq.read_table(cell.folder / SAMPLES_FILE)
    many = table.take(pa.array(np.zeros(10**6, dtype=np.int64)))
    pq.write_table(many, cell.folder / SAMPLES_FILE)
    with pytest.raises(SrbenchError, match=r"samples\.parquet"):
        cell.samples()


def test_a_card_names_no_file_beside_and_above_it_that_is_a_device(tmp_path):
    card = tmp_path / "x.toml"
    (tmp_path / "names.txt").symlink_to("/dev/zero")
    (tmp_path / "x.safetensors").symlink_to("/dev/zero")
    card.write_bytes(CARD + b'classes = "names.txt"\n')
    with no_hang(), pytest.raises(SrbenchError):
        card_classes(read_card(card), card)


def test_a_graph_that_is_none_or_lies_about_itself_is_one_sentence(tmp_path):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from srbench.export.session import Session

    def graph(metadata: dict[str, str], *, outside: str | None = None) -> bytes:
        helper, float_ = onnx.helper, onnx.TensorProto.FLOAT
        weight = helper.make_tensor("w", float_, [1], [1.0])
        if outside is not None:
            weight.ClearField("float_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", outside), ("offset", "0"), ("length", "4")):
                weight.external_data.add(key=key, value=value)
        made = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", float_, [1])],
            [helper.make_tensor_value_info("y", float_, [1])],
            [weight],
        )
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata)
        return model.SerializeToString()

    path = tmp_path / "models" / "x.onnx"
    path.parent.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4))
    for data in (
        *(b"", b"\x08\x08\x12", b"<html>", bytes(1000), graph({}), graph({"srbench": "{"}), graph({"srbench": "[]"})),
        graph({"srbench": "[" * DEEP}),
        graph({"srbench": "{}"}, outside="../secret"),
        graph({"srbench": "{}"}, outside=str(tmp_path / "secret")),
        graph({"srbench": "{}"}, outside="/dev/zero"),
    ):
        path.write_bytes(data)
        with no_hang(), pytest.raises(SrbenchError) as caught:
            Session(path)
        assert len(str(caught.value).splitlines()) == 1
    path.unlink()
    os.mkfifo(path)
    with no_hang(), pytest.raises(SrbenchError, match="it is a pipe or a device, not a file"):
        Session(path)


# --- mutations ---------------------------------------------------------------------------------------------------


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return bytes with a few of them flipped, cut, repeated, or replaced by what parsers stumble over."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(made) + 1)
        how = draw.randrange(5)
        if how == 0 and made:
            made[at % len(made)] ^= 1 << draw.randrange(8)
        elif how == 1:
            del made[at : at + draw.randint(1, 40)]
        elif how == 2:
            made[at:at] = made[at : at + draw.randint(1, 40)]
        elif how == 3:
            made[at:at] = draw.choice(
                [b"[" * 500, b"-1", b"1e999", b"nan", b"\x00", b"\xff\xff\xff\x7f", b'"', b"{}", b"null"]
            )
        else:
            made[at : at + 8] = draw.randbytes(8)
    return bytes(made)


PROTOCOL = (
    b'[hr]\nresize = 256\ncrop = 224\n[lr]\nscale = 0.5\nkernel = "bicubic"\nantialias = true\n[score]\nclamp = true\n'
)
RECIPE = b'epochs = 3\nbatch_size = 8\nlearning_rate = 1e-3\noptimizer = "adamw"\n[augment]\nflip = true\n'
CARD = (
    b'library = "timm"\nname = "resnet18"\nweights = "x.safetensors"\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n'
)


@pytest.fixture(scope="module")
def board_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("board")
    write_board(folder)
    tables.write(build(find_records([folder])[0], draws=20), folder)
    return folder


@pytest.fixture(scope="module")
def seeds(board_folder, tmp_path_factory) -> dict[str, bytes]:
    """One good file for each door that mutations are tried at."""
    record = next(path for path in sorted(board_folder.rglob(RECORD_FILE)) if (path.parent / SAMPLES_FILE).is_file())
    folder = tmp_path_factory.mktemp("seeds")
    save_file({"a": torch.ones(2)}, folder / "x.safetensors", metadata={"srbench": '{"schema_version": 1}'})
    torch.save({"a": torch.ones(2)}, folder / "x.pth")
    checkpoint.write(folder / checkpoint.NAME, {"epoch": 1})
    image = io.BytesIO()
    Image.new("RGB", (9, 7)).save(image, "PNG")
    return {
        "protocol": PROTOCOL,
        "recipe": RECIPE,
        "classifier card": CARD,
        "record": record.read_bytes(),
        "leaderboard": (board_folder / "leaderboard.json").read_bytes(),
        "samples": (record.parent / SAMPLES_FILE).read_bytes(),
        "weights": (folder / "x.safetensors").read_bytes(),
        "checkpoint of others": (folder / "x.pth").read_bytes(),
        "own checkpoint": (folder / checkpoint.NAME).read_bytes(),
        "image": image.getvalue(),
        "picture": image.getvalue(),
        "restored image": image.getvalue(),
        "table of --meta": b"id,camera,iso\na.png,x,100\nb.png,y,200\n",
        "mask": _saved(np.zeros((6, 8), np.uint8)),
        "boxes as JSON": _coco(),
        "boxes as XML": _voc(_object() + _object("2")),
        "class names": b"cat\ndog\n",
        "list of a split": b"a\n",
    }


@pytest.mark.parametrize(
    "door",
    [
        *("protocol", "recipe", "classifier card", "record", "leaderboard", "samples", "weights"),
        *("checkpoint of others", "own checkpoint", "image", "picture", "restored image", "table of --meta"),
        *("mask", "boxes as JSON", "boxes as XML", "class names", "list of a split"),
    ],
)
def test_mutated_files_are_read_or_refused(door, seeds, tmp_path):
    draw, path = random.Random(door), tmp_path / DOORS[door][0]
    good, refused = seeds[door], 0
    for _ in range(MUTATIONS // 2 if door == "leaderboard" else MUTATIONS):
        path.write_bytes(mutated(good, draw))
        refused += bool(knock(door, path))
    assert refused > 0
