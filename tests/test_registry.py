"""Names to methods: what is found, what is offered instead, and that nothing broken hides the rest."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import EntryPoint

import pytest
import srbench.methods
from dummies import plugin

from srbench import registry
from srbench.errors import UnknownNameError, UsageError
from srbench.method import Method
from srbench.registry import BrokenMethodError, Registry

BASELINES = {"none", "nearest", "bilinear", "bicubic", "bicubic_opencv", "bicubic_pillow", "lanczos", "area"}
GOOD = """
from srbench.method import Method, MethodInfo

class {name}(Method):
    info = MethodInfo(role="baseline", family="test", version="1")
"""


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """A folder that is searched for methods as `methods/` is."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setattr(srbench.methods, "__path__", [*srbench.methods.__path__, str(folder)])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("srbench.methods."):
            del sys.modules[name]
            vars(srbench.methods).pop(name.rsplit(".", 1)[1], None)


@pytest.fixture
def entry_point(monkeypatch):
    """Return a function that registers an entry point."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [each for each in points if each.group == group])
    return lambda name, value: points.append(EntryPoint(name, value, registry.ENTRY_POINT_GROUP))


def test_file_stems_are_the_names():
    found = Registry()
    trainable = {"esrgan", "darionet", "learned_resizer", "retrained", "muller", "sr4ir", "rdn", "srgan"}
    assert set(found.names()) >= BASELINES | trainable
    assert found.names() == sorted(found.names())
    for name in BASELINES:
        cls = found.get(name)
        assert cls.__module__ == f"srbench.baselines.{name}" and cls.info.version
    assert {name for name in BASELINES if found.get(name).info.role == "control"} == {"none"}


def test_nothing_is_imported_before_it_is_asked_for(tmp_path):
    file = tmp_path / "explosive.py"
    file.write_text("raise RuntimeError('imported')")
    assert "explosive" in Registry([file]).names()


def test_unknown_name_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="no method named 'bicubik'; did you mean bicubic") as caught:
        Registry().get("bicubik")
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownNameError, match=r"known: .*bilinear"):
        Registry().get("zzzz")


def test_plugin_is_a_method_under_its_stem(tmp_path):
    found = Registry([plugin(tmp_path, "mine")])
    assert issubclass(found.get("mine"), Method) and "mine" in found.working() and found.problems == {}


@pytest.mark.parametrize("name", ["none.txt", "missing.py", "not-a-name.py", "folder"])
def test_plugin_that_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "not-a-name.py").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="--plugin takes a Python file whose stem is the method's name"):
        Registry([tmp_path / name])


def test_plugin_cannot_take_a_name_that_is_taken(tmp_path):
    with pytest.raises(UsageError, match=r"'bicubic' is taken by srbench.baselines.bicubic; rename the file"):
        Registry([plugin(tmp_path, "bicubic")])
    with pytest.raises(UsageError, match=r"'mine' is taken by mine.py"):
        Registry([plugin(tmp_path / "a", "mine"), plugin(tmp_path / "b", "mine")])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError: No module named 'nowhere"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("x = 1", "holds 0 subclasses .* expected exactly one"),
        ("from srbench.baselines.bicubic import Bicubic", "holds 0 subclasses"),
        (GOOD.format(name="A") + GOOD.format(name="B"), "holds 2 subclasses"),
        ("from srbench.method import Method\nclass A(Method):\n    pass", r"has no `info = MethodInfo\(...\)`"),
        ("from srbench.method import Method\nclass A(Method):\n    info = 'baseline'", "has no `info = MethodInfo"),
    ],
)
def test_broken_file_is_reported_and_hides_nothing(homes, text, sentence):
    (homes / "broken.py").write_text(text)
    (homes / "zebra.py").write_text(GOOD.format(name="Zebra"))
    found = Registry()
    working = found.working()
    assert set(working) >= BASELINES | {"zebra"} and "broken" not in working
    assert set(found.problems) == {"broken"}
    with pytest.raises(BrokenMethodError, match=sentence):
        found.get("broken")
    assert "'broken'" in found.problems["broken"]


def test_broken_plugin_leaves_no_module_behind(tmp_path):
    file = tmp_path / "half.py"
    file.write_text("1 / 0")
    with pytest.raises(BrokenMethodError, match=r"half.py"):
        Registry([file]).get("half")
    assert "srbench_plugin_half" not in sys.modules
    file.write_text(GOOD.format(name="Half"))
    assert Registry([file]).get("half").__name__ == "Half"


def test_second_name_of_a_class_and_private_helpers_are_not_further_methods(homes):
    text = GOOD.format(name="_Base") + "\nclass Public(_Base):\n    pass\n\nAlias = Public\n"
    (homes / "aliased.py").write_text(text)
    assert Registry().get("aliased").__name__ == "Public"


def test_folder_is_a_method(homes):
    (homes / "big").mkdir()
    (homes / "big" / "__init__.py").write_text("from .network import Big\n")
    (homes / "big" / "network.py").write_text(GOOD.format(name="Big"))
    (homes / "_private.py").write_text("1 / 0")
    found = Registry()
    assert found.get("big").__name__ == "Big" and "_private" not in found.names()


def test_second_file_of_a_name_is_reported_and_left_out(homes):
    (homes / "bicubic.py").write_text(GOOD.format(name="Impostor"))
    found = Registry()
    assert found.get("bicubic").__module__ == "srbench.baselines.bicubic"
    assert list(found.problems.values()) == [
        "the name 'bicubic' is taken by srbench.baselines.bicubic; srbench.methods.bicubic is left out, rename it"
    ]


def test_entry_points_add_modules_and_classes(entry_point, tmp_path, monkeypatch):
    (tmp_path / "third_party_sr.py").write_text(GOOD.format(name="Third"))
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_point("third", "third_party_sr")
    entry_point("third_class", "third_party_sr:Third")
    entry_point("bilinear", "third_party_sr:Third")
    entry_point("gone", "third_party_sr:Gone")
    entry_point("number", "third_party_sr:__name__")
    entry_point("wrong", "pathlib:Path")
    found = Registry()
    assert found.get("third") is found.get("third_class")
    assert found.get("bilinear").__module__ == "srbench.baselines.bilinear"
    assert set(found.working()) >= {*BASELINES, "third", "third_class"}
    assert set(found.problems) == {"gone", "number", "wrong", "bilinear (entry point third_party_sr:Third)"}
    assert "holds 0 subclasses" in found.problems["wrong"] and "holds 0 subclasses" in found.problems["number"]
