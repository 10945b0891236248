"""The command `quantize`: exit codes, tables, JSON."""

from __future__ import annotations

import json
from pathlib import Path

from support.command_line import WITHOUT_TORCH, lines, run
from support.quantization_examples import float_bundle, int8_bundle

from cosyvoice_cpu.quantization.recipes.recipe import recipe_names

QUANTIZE = ("quantize", float_bundle(), "--calibration", "random")
STRICT = """
name = "strict"
description = "asks for more than 8 bits can give"
[components.speech_lm]
kernel = "weight-only-int8"
[components.speech_lm.limits]
logits_sqnr_db = 90.0
"""


def test_quantize_prints_what_it_did_and_what_was_measured(tmp_path: Path) -> None:
    outcome = run(*QUANTIZE, "--output", tmp_path / "out", "--recipe", "int8")
    assert outcome.code == 0
    random, speech = outcome.stderr.splitlines()
    assert random.startswith("calibrated and measured on random ids, not on speech")
    assert speech.startswith("words and voices were left out of the gate: ")
    for word in ("speech_lm", "int8-weights", "float32: input, final", "velocity_sqnr_db"):
        assert word in outcome.stdout
    assert "calibration data: random ids; measured on random 1, random 3" in outcome.stdout
    assert run("verify", tmp_path / "out").code == 0


def test_a_refused_gate_ends_with_3_its_table_and_no_bundle(tmp_path: Path) -> None:
    recipe = tmp_path / "strict.toml"
    recipe.write_text(STRICT)
    arguments = (*QUANTIZE, "--output", tmp_path / "out", "--recipe", recipe)
    outcome = run(*arguments)
    assert outcome.code == 3
    assert "REFUSED" in outcome.stdout
    error, hint = outcome.stderr.splitlines()
    assert error.startswith("error: the quality gate refused: speech_lm logits_sqnr_db is ")
    assert hint.endswith("or override with --force")
    assert not (tmp_path / "out").exists()
    content = json.loads(run(*arguments, "--json").stdout)
    assert content["written"] is False
    assert content["results"][0]["limit"] == 90.0


def test_force_writes_with_a_warning(tmp_path: Path) -> None:
    recipe = tmp_path / "strict.toml"
    recipe.write_text(STRICT)
    outcome = run(*QUANTIZE, "--output", tmp_path / "out", "--recipe", recipe, "--force")
    assert outcome.code == 0
    assert "warning: " in outcome.stderr
    assert "although the quality gate refused it (--force)" in outcome.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["quality"]["forced"]


def test_a_dry_run_as_json_is_the_plan(tmp_path: Path) -> None:
    outcome = run("quantize", float_bundle(), "--output", tmp_path / "out", "--dry-run", "--json")
    content = json.loads(outcome.stdout)
    assert not content["written"]
    assert [part["name"] for part in content["components"]] == ["speech_lm", "flow_estimator"]
    assert content["components"][1]["float32_layers"] == ["input", "final"]
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_ends_with_2(tmp_path: Path) -> None:
    outcome = run("quantize", float_bundle(), "--output", tmp_path / "out", "--recipe", "int3")
    assert outcome.code == 2
    assert outcome.stderr == lines(
        "there is no recipe 'int3'",
        f"choose {', '.join(recipe_names())} or a file that ends in .toml",
    )


def test_a_quantized_input_ends_with_1(tmp_path: Path) -> None:
    outcome = run("quantize", int8_bundle(), "--output", tmp_path / "out")
    assert outcome.code == 1
    assert "quantization starts from float32" in outcome.stderr


def test_without_the_extra_the_remedy_is_named(tmp_path: Path) -> None:
    outcome = run("quantize", float_bundle(), "--output", tmp_path / "out", program=WITHOUT_TORCH)
    assert outcome.code == 1
    assert outcome.stderr == lines(
        "quantizing needs onnx", 'install it with: pip install "cosyvoice-cpu[export]"'
    )
