"""The table of recipes, made by one command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from support.quantization_examples import float_bundle

from cosyvoice_cpu.quantization.calibration.pairs import RANDOM
from tools.compare_recipes import compare_recipes

RANDOM_IDS = ("--calibration", "random")
STRICT = """
name = "strict"
description = "asks for more than 8 bits can give"
[components.speech_lm]
kernel = "weight-only-int8"
[components.speech_lm.limits]
logits_sqnr_db = 90.0
"""


def test_the_command_writes_a_table_of_all_recipes_the_refused_ones_included(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "strict.toml"
    recipe.write_text(STRICT)
    folder = tmp_path / "tables"
    arguments = [sys.executable, "-m", "tools.compare_recipes", float_bundle()]
    arguments += ["--recipe", "weight-only-int8", "--recipe", recipe, "--output", folder]
    arguments += RANDOM_IDS
    done = subprocess.run(arguments, capture_output=True, check=True, text=True)
    table = (folder / "recipes.md").read_text()
    assert done.stdout == table
    assert "| speech_lm | weight-only-int8 | int8-weights | logits SQNR " in table
    assert "| refused: logits_sqnr_db |" in table
    assert "| passes |" in table
    with (folder / "recipes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["recipe"], row["passed"]) for row in rows] == [
        ("weight-only-int8", "True"),
        (str(recipe), "False"),
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["recipes.csv", "recipes.md"]


def test_a_wrong_recipe_ends_with_its_own_message(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "tools.compare_recipes", float_bundle()]
    arguments += ["--recipe", "int3", "--output", tmp_path / "tables"]
    done = subprocess.run(arguments, capture_output=True, check=False, text=True)
    assert done.returncode == 2
    assert "error: there is no recipe 'int3'" in done.stderr


def test_bundles_are_kept_on_request(tmp_path: Path) -> None:
    entries = compare_recipes(
        float_bundle(), tmp_path, ["weight-only-int8"], calibration=RANDOM, keep=True
    )
    assert entries[0].report
    assert entries[0].report.written
    assert (tmp_path / "weight-only-int8" / "manifest.json").is_file()
