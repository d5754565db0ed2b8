"""Protocols: presets, fingerprints, scales, LR sizes, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from srbench.errors import ProtocolError, UnknownNameError
from srbench.protocol import (
    Degradation,
    Geometry,
    Protocol,
    Restoration,
    Scoring,
    difference,
    load_protocol,
    parse_protocol,
    parse_scale,
    preset_names,
    shift_names,
)

# A fingerprint that changes makes every committed record of that protocol incomparable: change it on purpose only.
FINGERPRINTS = {
    "clean": "e0a7ef005b355d1dac3da1a39c9e1666ad2b7208f9c0e5f639255bc46126c344",
    "darionet-2021": "23b8b5e31c976118d90b471266518dd54b8553b16e625cf4f357cc9636a90e4a",
    "demo": "b54ebd1bd1f8125b00711655343f41152ebdefbd630c684f95260c6d114d669e",
    "native": "b54ebd1bd1f8125b00711655343f41152ebdefbd630c684f95260c6d114d669e",  # the demo's: its patches stay too
    "lens": "c8b6c78f0a29d9541fee7dae5f1b88edcab8e144b17e79a3fc0f81150334b24e",
    "iqa": "012ba7ab6ed61351aa11c684da40420a81693c3775e289c4a67b82a83bb9bb90",
    "sr-classic": "8363096a5f7075eeb5d65a08213ff777abf05a9e0f1ec8566f5707a517902d6f",
    "sr-classic-x2": "cd35303019139d2ae1a5845d3501c6ae4f0a5ddee37184e606ecdf6fe934551d",
    "sr4ir-x4": "9b4111296ac867aa0eb810f8479fded0b455cd8ea69db8e89f9f3282dec11915",
    "sr4ir-x8": "5a02efefc169e6208397644717764c266bfb15972c600a314a54b1fc848c9e35",
    "dense-x4": "f1d2d1c6f774ac13830ea23b17fe063794ec768e890b37852dba01bbf6a046db",
    "dense-x8": "6d4f7c791cf08315d315cae6da644b2ccb3fccabb996a6b280cc9f8e274e625a",
    "blur": "0cee5a47ce965c90baebfe10b35bc2a7097271e991ab1874b69a0f97d33c4ada",
    "camera": "43339b411b73230c120a9e81c0c2ef984380e64bc2e89017e2bcd3e164563aa2",
    "jpeg": "9227f28471c5bc4fd4e031bdc0cae968ea2f308272e69b3917b6130f4b7190d3",
    "noise": "5b04a5c92af73eb550177543b24bd4f73b0af2190b3ecae6cc73ff43bd36fe1f",
    "second-order": "cd2c6f619f4929dff9a5fd1aef01792724b47d93915037b1da253aa6ea2e217a",
    "talebi-2021": "fa9eac5775f8b1d7cc52ef2b71eb97b24888f5b8a53ce4fa69cfed3bb8c380c3",
}


STAGE = load_protocol("second-order").lr.second


def make(**parts) -> Protocol:
    return Protocol("p", **({"lr": Degradation(scale=0.5)} | parts))


def parse(text: str) -> Protocol:
    return parse_protocol(text, name="p", origin="p.toml")


def test_these_presets_ship():
    assert preset_names() == sorted(FINGERPRINTS)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprint_of_preset_is_pinned(name):
    protocol = load_protocol(name)
    assert protocol.fingerprint == FINGERPRINTS[name]
    assert protocol.name == name and protocol.description


def test_presets_say_what_the_papers_say():
    clean, dario, classic = (load_protocol(name) for name in ("clean", "darionet-2021", "sr-classic"))
    assert (clean.hr, clean.lr.lr_size(256, 256)) == (Geometry(resize=256, crop=256), (81, 81))
    assert clean.sr == Restoration() and clean.score == Scoring()
    assert (dario.hr.engine, dario.hr.kernel, dario.lr.antialias, dario.sr.antialias) == (
        "pillow",
        "bilinear",
        False,
        False,
    )
    assert (dario.score.psnr_reduction, dario.score.psnr_batch, dario.sr.clamp) == ("batch", 60, False)
    assert (classic.lr.border, classic.score.channels, classic.score.crop_border) == ("symmetric", "y", 4)
    assert classic.hr.modulo == 4 and classic.fixed_scale
    for name, side in (("sr4ir-x4", 56), ("sr4ir-x8", 28)):
        protocol = load_protocol(name)
        assert protocol.lr.lr_size(224, 224) == (side, side)
        assert not protocol.lr.antialias and protocol.score.crop_border == 8 and not protocol.sr.round
    talebi = load_protocol("talebi-2021")
    assert talebi.lr.none and talebi.sr_size(448, 448) == (224, 224)


def test_labels_do_not_move_the_fingerprint():
    plain = make()
    renamed = Protocol("other", "said otherwise", True, lr=Degradation(scale=0.5))
    assert renamed.fingerprint == plain.fingerprint


def _changed(part: str, item: dataclasses.Field) -> Protocol:
    """Return a protocol that differs from `make()` in one field alone."""
    special = {
        ("lr", "scale"): {"scale": 0.25},
        ("lr", "lr_side"): {"scale": None, "lr_side": 8},
        ("lr", "none"): {"scale": None, "none": True},
        ("lr", "jpeg_quality"): {"jpeg_quality": 80},
        **{("lr", name): {"codec": "webp", "quality": 80} for name in ("codec", "quality")},
        **{("lr", name): {"first": STAGE, "second": STAGE} for name in ("first", "second")},
        ("lr", "final_sinc"): {"first": STAGE, "second": STAGE, "final_sinc": 0.5},
        ("lr", "border"): {"border": "symmetric"},
        ("hr", "engine"): {"engine": "pillow"},
        ("score", "channels"): {"channels": "y"},
        ("score", "psnr_reduction"): {"psnr_reduction": "batch"},
        ("score", "logits"): {"logits": "present"},
    }
    base = getattr(make(), part)
    value = getattr(base, item.name)
    if (part, item.name) in special:
        change = special[part, item.name]
    elif item.name == "kernel":
        change = {"kernel": "bilinear"}
    elif isinstance(value, bool):
        change = {item.name: not value}
    elif value is None:
        change = {item.name: 64}
    else:
        change = {item.name: value + 1}
    return make(**{part: dataclasses.replace(base, **change)})


MOVING = [
    (part, item)
    for part, cls in {"hr": Geometry, "lr": Degradation, "sr": Restoration, "score": Scoring}.items()
    for item in dataclasses.fields(cls)
]


@pytest.mark.parametrize(("part", "item"), MOVING, ids=lambda each: each if isinstance(each, str) else each.name)
def test_every_other_field_moves_the_fingerprint(part, item):
    changed = _changed(part, item)
    assert changed.fingerprint != make().fingerprint
    assert any(line.startswith(f"{part}.{item.name}: ") for line in difference(changed.fields, make().fields))


def test_one_number_has_one_fingerprint_however_it_is_written():
    whole = parse("[lr]\nscale = 1\nblur_sigma = 2\nnoise_sigma = 0")
    point = parse("[lr]\nscale = 1.0\nblur_sigma = 2.0\nnoise_sigma = 0.0")
    assert whole.fingerprint == point.fingerprint
    assert make().at_scale(1).fingerprint == make().at_scale(1.0).fingerprint


def test_difference_names_the_fields():
    assert difference(make().fields, make().fields) == []
    other = make(lr=Degradation(scale=0.25, antialias=False))
    assert difference(make().fields, other.fields) == [
        "lr.antialias: True against False",
        "lr.scale: 0.5 against 0.25",
    ]


@pytest.mark.parametrize(
    ("scale", "side", "lr_side"),
    [(0.32, 256, 81), (1 / 3, 255, 85), (1 / 3, 48, 16), (0.29, 100, 29), (0.25, 4, 1), (0.01, 4, 1), (1, 7, 7)],
)
def test_lr_side_is_the_floor(scale, side, lr_side):
    # 0.29 x 100 is 28.999999999999996 in binary: without the 1e-9 the side would be 28
    assert Degradation(scale=scale).lr_size(side, 2 * side)[0] == lr_side


def test_lr_side_in_pixels_keeps_the_shape():
    assert Degradation(lr_side=56).lr_size(224, 224) == (56, 56)
    assert Degradation(lr_side=50).lr_size(100, 200) == (50, 100)
    assert Degradation(lr_side=50).lr_size(200, 100) == (100, 50)
    assert Degradation(none=True).lr_size(5, 9) == (5, 9)


@pytest.mark.parametrize(
    ("text", "value"), [("0.32", 0.32), ("1/3", 1 / 3), (" 1 / 4 ", 0.25), ("1", 1.0), (".5", 0.5)]
)
def test_scale_is_read(text, value):
    assert parse_scale(text) == value


@pytest.mark.parametrize(
    "text", ["0", "2", "-0.5", "x", "", "1/0", "nan", "inf", "1e400", "1e999999999", "1/3/5", "4/3", "0.32px"]
)
def test_bad_scale_is_refused(text):
    with pytest.raises(ProtocolError, match="scale"):
        parse_scale(text)


def test_scale_of_a_fixed_protocol_cannot_be_changed():
    with pytest.raises(ProtocolError, match=r"'sr-classic' fixes its own LR size \(0.25\)"):
        load_protocol("sr-classic").at_scale(0.5)
    half = load_protocol("clean").at_scale(0.5)
    assert half.lr.scale == 0.5 and half.hr == load_protocol("clean").hr


def test_scale_labels():
    assert [load_protocol(name).scale_label for name in ("clean", "sr4ir-x8", "talebi-2021")] == ["0.32", "28px", "1"]
    assert make().at_scale(1 / 3).scale_label == "0.333333"


def test_unknown_preset_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean clean"):
        load_protocol("claen")


def test_file_is_read(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('description = "mine"\n[lr]\nscale = 0.5\nnoise_sigma = 0.1\n[score]\nlogits = "present"\n')
    protocol = load_protocol(str(file))
    assert (protocol.name, protocol.description) == ("mine", "mine")
    assert protocol.lr == Degradation(scale=0.5, noise_sigma=0.1) and protocol.score.logits == "present"


def test_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(ProtocolError, match="there is no protocol file"):
        load_protocol(str(tmp_path / "none.toml"))
    (tmp_path / "image.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ProtocolError, match="not valid TOML"):
        load_protocol(str(tmp_path / "image.toml"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[lr\nscale = 1", "not valid TOML"),
        ("", "exactly one of scale, lr_side and none"),
        ("[lr]\nscale = 0.5\nlr_side = 10", "exactly one of scale, lr_side and none"),
        ("[lr]\nscale = 0.5\nnone = true", "exactly one of scale, lr_side and none"),
        ("[lr]\nscael = 0.5", "protocol p.toml: lr has no field 'scael'; did you mean scale"),
        ("[lrr]\nscale = 0.5", "protocol p.toml has no field 'lrr'; did you mean lr"),
        ("name = 'x'\n[lr]\nscale = 0.5", "has the field 'name'; leave it out"),
        ("lr = 3", "lr must be a table, got 3"),
        ("description = 3\n[lr]\nscale = 0.5", "description must be text, got 3"),
        ("fixed_scale = 'no'\n[lr]\nscale = 0.5", "fixed_scale must be true or false, got 'no'"),
        ("[lr]\nscale = 0", "lr.scale must be the share LR side / HR side, above 0 and at most 1.* got "),
        ("[lr]\nscale = 2", "lr.scale must be the share LR side / HR side, above 0 and at most 1.* got "),
        ("[lr]\nscale = nan", "lr.scale must be the share LR side / HR side, above 0 and at most 1.* got "),
        ("[lr]\nscale = '0.5'", "lr.scale must be the share LR side / HR side, above 0 and at most 1.* got "),
        ("[lr]\nscale = true", "lr.scale must be the share LR side / HR side, above 0 and at most 1.* got "),
        ("[lr]\nlr_side = 0", "lr.lr_side must be a whole number of at least 1, or none, got 0"),
        ("[lr]\nlr_side = 5.5", "lr.lr_side must be a whole number"),
        ("[lr]\nscale = 0.5\nkernel = 'cubic'", "lr.kernel must be one of nearest"),
        ("[lr]\nscale = 0.5\nkernel = ['bicubic']", "lr.kernel must be one of nearest"),
        ("[lr]\nscale = 0.5\nborder = 'wrap'", "lr.border must be one of clamp, symmetric"),
        ("[lr]\nscale = 0.5\nantialias = 1", "lr.antialias must be true or false"),
        ("[lr]\nscale = 0.5\nblur_sigma = -1", "lr.blur_sigma must be a finite number"),
        ("[lr]\nscale = 0.5\nblur_sigma = true", "lr.blur_sigma must be a finite number"),
        ("[lr]\nscale = 0.5\nnoise_sigma = inf", "lr.noise_sigma must be a finite number"),
        ("[lr]\nscale = 0.5\njpeg_quality = 0", "lr.jpeg_quality must be a whole number from 1 to 100"),
        ("[lr]\nscale = 0.5\njpeg_quality = true", "lr.jpeg_quality must be a whole number from 1 to 100"),
        ("[lr]\nscale = 0.5\n[hr]\nresize = -1", "hr.resize must be a whole number"),
        ("[lr]\nscale = 0.5\n[hr]\nkernel = 'lanczos'", "hr.kernel must be one of bilinear, bicubic"),
        ("[lr]\nscale = 0.5\n[hr]\nresize = 100\ncrop = 200", "hr.crop .200. must not be larger than hr.resize .100"),
        ("[lr]\nlr_side = 200\n[hr]\ncrop = 100", "lr.lr_side .200. must not be larger than hr.crop .100"),
        ("[lr]\nscale = 0.5\n[sr]\nside = 0", "sr.side must be a whole number"),
        ("[lr]\nscale = 0.5\n[score]\ncrop_border = -1", "score.crop_border must be a whole number"),
        ("[lr]\nscale = 0.5\n[score]\ncrop_border = true", "score.crop_border must be a whole number"),
        ("[lr]\nscale = 0.5\n[score]\nclamp = 'yes'", "score.clamp must be true or false"),
        ("[lr]\nscale = 0.5\n[score]\nlogits = 'some'", "score.logits must be one of all, present"),
        ("[lr]\nscale = 0.5\n[score]\npsnr_batch = 0", "score.psnr_batch must be a whole number"),
    ],
)
def test_bad_protocol_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(ProtocolError, match=sentence):
        parse(text)


@pytest.mark.parametrize(
    ("short", "long"),
    [("jpeg_quality = 60", 'codec = "jpeg"\nquality = 60'), ("", "blur_sigma = 0\nhr_noise_sigma = 0")],
)
def test_two_ways_to_write_one_degradation_have_one_fingerprint(short, long):
    assert parse(f"[lr]\nscale = 0.5\n{short}").fingerprint == parse(f"[lr]\nscale = 0.5\n{long}").fingerprint


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blur_sigma = [1.0]", "lr.blur_sigma must be .* or two of them: the range from which it is drawn"),
        ("noise_sigma = [0.2, 0.1]", r"lr.noise_sigma is a range, whose lower end comes first, got \[0.2, 0.1\]"),
        ('codec = "webp"', "lr.codec and lr.quality need each other"),
        ("quality = 60", "lr.codec and lr.quality need each other"),
        ('codec = "webp"\nquality = 60\njpeg_quality = 60', "lr.jpeg_quality is short for"),
        ('codec = "png"\nquality = 60', "lr.codec must be one of jpeg, webp, avif"),
        ('codec = "avif"\nquality = [0, 60]', "lr.quality must be a whole number from 1 to 100, or two of them"),
        ("final_sinc = 0.5", "lr.final_sinc needs lr.first and lr.second"),
    ],
)
def test_degradations_that_contradict_themselves_are_one_sentence(text, sentence):
    with pytest.raises(ProtocolError, match=sentence):
        parse(f"[lr]\nscale = 0.5\n{text}")


def test_orders_stand_alone():
    lr = load_protocol("second-order").lr
    with pytest.raises(ProtocolError, match="leave those of"):
        make(lr=dataclasses.replace(lr, blur_sigma=1.0))
    with pytest.raises(ProtocolError, match=r"lr.first and lr.second need each other"):
        make(lr=dataclasses.replace(lr, second=None))
    with pytest.raises(ProtocolError, match="their sum is above 1"):
        make(lr=dataclasses.replace(lr, first=dataclasses.replace(lr.first, enlarge=0.9)))


def test_shifts_are_on_the_geometry_of_clean():
    clean = load_protocol("clean")
    for name in shift_names():
        preset = load_protocol(name)
        assert (preset.hr, preset.sr, preset.score) == (clean.hr, clean.sr, clean.score)
        assert clean.shifted(preset) == dataclasses.replace(preset)
        assert clean.at_scale(0.25).shifted(preset) == dataclasses.replace(preset.at_scale(0.25))
        lens = load_protocol("lens").shifted(preset)
        assert (lens.name, lens.hr, lens.lr.scale) == (f"lens-{name}", Geometry(), 0.25)
        assert lens.lr.seeded and lens.fingerprint not in (preset.fingerprint, load_protocol("lens").fingerprint)


def test_shifts_need_an_lr_that_is_made():
    blur = load_protocol("blur")
    with pytest.raises(ProtocolError, match="leave --shift out"):
        load_protocol("talebi-2021").shifted(blur)
    with pytest.raises(ProtocolError, match="leave --shift out"):
        load_protocol("clean").of_pairs(2).shifted(blur)
