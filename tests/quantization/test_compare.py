"""The table of recipes, made by one command."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib import util
from pathlib import Path

import onnx
import pytest
from support.quantization_examples import float_bundle

from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.quantization.players import Player, graph_for
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances
from tools.compare_nncf import nncf_models, with_shapes
from tools.compare_recipes import compare_recipes

STRICT = """
name = "strict"
about = "asks for more than 8 bits can give"
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
    entries = compare_recipes(float_bundle(), tmp_path, ["weight-only-int8"], keep=True)
    assert entries[0].report
    assert entries[0].report.written
    assert (tmp_path / "weight-only-int8" / "manifest.json").is_file()


def test_every_value_of_a_graph_gets_its_shape_for_nncf() -> None:
    stages = BundleStages.load(float_bundle())
    (item,) = random_utterances(stages.manifest, prompt=8, tokens=12)
    graph = graph_for(stages.bundle, "flow_estimator", item)
    call = next(Player(stages, "flow_estimator", lambda model: None).play(item))
    model = onnx.load(str(graph))
    with_shapes(model, graph.parent, call.feed)
    known = {value.name for value in [*model.graph.value_info, *model.graph.output]}
    assert {name for node in model.graph.node for name in node.output if name} <= known


@pytest.mark.skipif(bool(util.find_spec("nncf")), reason="nncf is installed")
def test_without_nncf_the_remedy_is_named() -> None:
    with pytest.raises(MissingExtraError, match="the comparison needs nncf"):
        nncf_models(onnx.ModelProto(), [])
