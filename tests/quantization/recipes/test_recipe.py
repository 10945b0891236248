"""Recipes: the package's own are whole, and a wrong one is refused by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.quantization.kernels.variants import KernelVariant
from cosyvoice_cpu.quantization.recipes.recipe import AUTO, load_recipe, parse_recipe, recipe_names

RECIPE = """
name = "mine"
description = "a test"
[components.speech_lm]
kernel = "weight-only-int8"
[components.speech_lm.limits]
logits_sqnr_db = 25.0
"""


def test_the_packages_recipes_are_there_under_their_names() -> None:
    assert {AUTO, "dynamic-int8", "int4-lm", "int8", "weight-only-int8"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description
        assert all(entry.reason for part in recipe.components.values() for entry in part.exclude)


def test_the_default_recipe_searches_among_recipes_that_there_are() -> None:
    recipe = load_recipe(AUTO)
    assert not recipe.components
    assert set(recipe.search) == {"speech_lm", "flow_estimator"}
    for name in recipe.search:
        assert recipe.candidates(name)


def test_layers_that_are_excluded_are_not_selected() -> None:
    part = load_recipe("int8").components["flow_estimator"]
    assert part.variant_of("blocks.3.expand") == KernelVariant("dynamic-int8")
    assert part.variant_of("input") is None
    assert part.variant_of("final") is None


def test_layers_may_have_a_variant_of_their_own() -> None:
    part = load_recipe("int4-lm").components["speech_lm"]
    assert part.variant_of("layers.3.down") == KernelVariant("weight-only-int4", 32)
    assert part.variant_of("head") == KernelVariant("weight-only-int8", 128)


def test_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    recipe = load_recipe(str(path))
    assert recipe.name == "mine"
    assert recipe.components["speech_lm"].block_size == 128


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('description = "a test"', 'speed = "high"', r"unknown field `speed`"),
        ('"weight-only-int8"', '"static-int3"', r"Invalid enum value 'static-int3'.*kernel"),
        ('"mine"', '"My recipe"', r"matching regex.*\$\.name"),
        ("[components.speech_lm]\n", "[components.tts]\n", r"Invalid enum value 'tts'"),
        (
            "logits_sqnr_db = 25.0",
            "velocity_sqnr_db = 25.0",
            "the limits of speech_lm are velocity",
        ),
        ("logits_sqnr_db = 25.0", "", "the limits of speech_lm are missing"),
        ("logits_sqnr_db = 25.0", 'logits_sqnr_db = "high"', "Expected `float`"),
        ("speech_lm", "text_tokenizer", "text_tokenizer can't be quantized yet"),
        ('kernel = "w', 'block_size = 100\nkernel = "w', "Invalid enum value 100"),
        ("description", "description description", "TOML|Expected|Invalid"),
    ],
)
def test_a_wrong_recipe_is_refused_by_field(old: str, new: str, message: str) -> None:
    assert old in RECIPE
    with pytest.raises(UsageError, match=message) as caught:
        parse_recipe(RECIPE.replace(old, new).encode(), "mine.toml")
    assert caught.value.what.startswith("recipe mine.toml")
    assert caught.value.hint


def test_a_recipe_without_components_is_refused() -> None:
    text = b'name = "empty"\ndescription = ""\n[components]\n'
    with pytest.raises(UsageError, match="has no component"):
        parse_recipe(text, "empty.toml")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"\0" * 10, b"x" * (2**20 + 1), b"a=" + b"[" * 9999]
)
def test_what_is_no_toml_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match=r"^recipe x\.toml: "):
        parse_recipe(content, "x.toml")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no recipe 'int4'") as caught:
        load_recipe("int4")
    assert caught.value.hint == (f"choose {', '.join(recipe_names())} or a file that ends in .toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.toml can't be read \(No such file"):
        load_recipe(str(tmp_path / "gone.toml"))
