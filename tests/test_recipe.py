"""Recipes: names, files, overrides, and the sentences for what is wrong with them."""

import json

import pytest

from srbench.errors import UnknownNameError, UsageError
from srbench.training.recipe import Augment, Recipe, apply_overrides, criteria, load_recipe
from srbench.training.validation import choose_criterion, is_better

BASE = {"small": Recipe(losses={"logits": 1.0}, epochs=3, parameters={"blocks": 2}), "other": Recipe()}


def test_a_name_gives_the_methods_own_recipe_and_a_wrong_one_offers_the_nearest():
    assert load_recipe("small", BASE) is BASE["small"]
    with pytest.raises(UnknownNameError, match="did you mean small"):
        load_recipe("smal", BASE)


def test_a_file_can_start_from_a_named_recipe(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "small"\nlr = 2e-4\n[losses]\nl1 = 0.5\n[augment]\nflip = true\n')
    recipe = load_recipe(str(file), BASE)
    assert recipe.epochs == 3 and recipe.lr == 2e-4
    assert recipe.losses == {"logits": 1.0, "l1": 0.5} and recipe.parameters == {"blocks": 2}
    assert recipe.augment == Augment(flip=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr = = 1", "not valid TOML"),
        ("lrr = 1", "recipe mine.toml.*did you mean"),
        ("losses = 1", "losses.NAME"),
        ('base = "nothing"', "no recipe named"),
    ],
)
def test_a_wrong_file_gets_a_sentence(tmp_path, text, words):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_recipe(str(file), BASE)
    with pytest.raises(UsageError, match="no recipe file"):
        load_recipe(str(tmp_path / "absent.toml"), BASE)


def test_overrides_are_typed_and_come_one_after_another():
    changed = apply_overrides(
        BASE["small"],
        [
            "lr=1e-5",
            "batch_size=4",
            "unit_scale=true",
            "patch=64",
            "clip_norm=1",
            "losses.l1=0.5",
            "losses.logits=0",
            "parameters.blocks=5",
            "args.pad_type=same",
            "augment.shift=4",
            "init=weights/psnr.safetensors",
            "optimizer=sgd",
        ],
    )
    assert (changed.lr, changed.batch_size, changed.unit_scale, changed.patch) == (1e-5, 4, True, 64)
    assert changed.clip_norm == 1.0 and isinstance(changed.clip_norm, float)
    assert changed.losses == {"l1": 0.5}, "a weight of zero takes the term out"
    assert changed.parameters == {"blocks": 5, "pad_type": "same"}
    assert changed.augment.shift == 4 and changed.init == "weights/psnr.safetensors" and changed.optimizer == "sgd"
    assert apply_overrides(changed, ["patch=none"]).patch is None
    assert apply_overrides(changed, ["select=none"]).select == "none", "a word of its own, not the absence of one"
    assert BASE["small"].losses == {"logits": 1.0}, "the recipe itself is untouched"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr", "key=value"),
        ("=1", "key=value"),
        ("learning_rate=1", "--set has no field 'learning_rate'"),
        ("epoch=1", "did you mean epochs"),
        ("epochs=1.5", "epochs must be a whole number of at least 1, got 1.5"),
        ("epochs=true", "epochs must be a whole number"),
        ("epochs=0", "epochs must be a whole number of at least 1, got 0"),
        ("lr=fast", "lr must be a finite number above 0, got 'fast'"),
        ("lr=nan", "lr must be"),
        ("lr=-1", "lr must be"),
        ("optimizer=lion", "one of adam, adamw, sgd, soap"),
        ("losses=l1", "losses.NAME"),
        ("losses.l1=-1", "losses.l1"),
        ("losses.l1=much", "losses.l1 must be a finite number above 0, got 'much'"),
        ("augment.flipp=true", "did you mean flip"),
        ("epochs=none", "epochs must be a whole number of at least 1, got none"),
        ("ema=1", "ema must be a finite number of at least 0 and below 1, got 1"),
        ("augment.blur_probability=2", "from 0 to 1"),
    ],
)
def test_a_wrong_override_names_the_setting(override, words):
    with pytest.raises(UsageError, match=words):
        apply_overrides(BASE["small"], [override])


def test_names_of_0_1_0_are_still_read(tmp_path):
    (tmp_path / "old.toml").write_text("half = true\nflatness = 0.1\n")
    recipe = load_recipe(str(tmp_path / "old.toml"), BASE)
    assert recipe.store_fp16 and recipe.min_detail == 0.1
    assert apply_overrides(Recipe(), ["half=true"]).store_fp16


def test_terms_are_scaled_to_unit_size_only_where_there_are_two_or_more():
    assert not Recipe(losses={"logits": 1.0}).scales_terms
    assert Recipe(losses={"logits": 1.0, "l1": 1.0}).scales_terms
    assert not Recipe(losses={"logits": 1.0, "l1": 1.0}, unit_scale=False).scales_terms


def test_a_recipe_goes_into_json_and_back_through_toml_types():
    raw = json.loads(json.dumps(BASE["small"].to_json()))
    assert raw["losses"] == {"logits": 1.0} and raw["augment"]["flip"] is False
    assert Recipe(**(raw | {"augment": Augment(**raw["augment"])})) == BASE["small"]


def test_settings_of_older_recipes_are_read_under_their_names_of_today(tmp_path):
    (tmp_path / "old.toml").write_text("flatness = 0.03\npatch = 96\n[losses]\nl1 = 1.0\n")
    assert load_recipe(str(tmp_path / "old.toml"), {}).min_detail == 0.03
    assert apply_overrides(BASE["small"], ["flatness=0.1"]).to_json()["min_detail"] == 0.1
    with pytest.raises(UsageError, match=r"min_detail must be .* got 1"):
        apply_overrides(BASE["small"], ["flatness=1"])


def test_an_epoch_is_selected_by_any_task_type_s_criterion_and_by_nothing_else():
    assert {"ce_difference", "psnr", "none", "accuracy", "emd"} <= set(criteria())
    with pytest.raises(UsageError, match="no criterion of select named 'acuracy'; did you mean accuracy"):
        Recipe(losses={"l1": 1.0}, select="acuracy")
    for name, (worse, better) in {
        "psnr": (20, 21),
        "accuracy": (0.1, 0.2),
        "emd": (0.2, 0.1),
        "logits": (2, 1),
    }.items():
        assert is_better(name, {name: better}, {name: worse}) and not is_better(name, {name: worse}, {name: better})
    assert choose_criterion("accuracy", ["emd", "psnr"]) == "emd" and choose_criterion("psnr", ["loss"]) == "none"
