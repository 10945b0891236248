"""Quantized bundles: they speak, are small, say what was done; bad ones are refused."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from support.networks_golden import CHECKPOINT, FLOW_PROMPT, ids
from support.quantization_examples import (
    copy_of,
    fix_activation_ranges,
    float_bundle,
    int8_bundle,
    quantize_on_random_ids,
    sign_again,
    stored,
)

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import BundleError, CosyVoiceError, UsageError
from cosyvoice_cpu.evaluation.parity.verify_graphs import graph_problems
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint
from cosyvoice_cpu.quantization import QualityRefusedError
from cosyvoice_cpu.quantization.gate.accuracy import gate
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe, recipe_names
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.stages import load_bundle
from cosyvoice_cpu.utterances import random_utterances

STRICT = """
name = "strict"
description = "asks for more than 8 bits can give"
[components.speech_lm]
kernel = "weight-only-int8"
[components.speech_lm.limits]
logits_sqnr_db = 90.0
"""


# The gate refuses naive-int8; of the others left out listeners decide (search/test_presets.py).
@pytest.mark.parametrize("recipe", sorted({*recipe_names()} - {"naive-int8", "cached", "fast"}))
def test_a_quantized_bundle_speaks(recipe: str) -> None:
    stages = load_bundle(int8_bundle(recipe))
    tokens = stages.generate_speech_tokens(ids("lm_text_ids"), max_tokens=30)
    mel = stages.tokens_to_mel(tokens, **FLOW_PROMPT)
    waveform = stages.mel_to_waveform(mel)
    assert len(waveform) == 2 * len(tokens) * 480
    assert np.isfinite(waveform).all()
    assert waveform.any()


def test_every_product_of_the_recipe_is_an_integer_product_in_every_graph() -> None:
    bundle = int8_bundle()
    for folder, op, float_products in (
        ("speech_lm", "MatMulNBits", 0),
        ("flow_estimator", "DynamicQuantizeMatMul", 2),  # `input` and `final`
    ):
        for path in sorted((bundle / folder).glob("*.onnx")):
            graph = onnx.load(str(path), load_external_data=False).graph
            counts = Counter(node.op_type for node in graph.node)
            assert counts[op] == {"speech_lm": 9, "flow_estimator": 12}[folder]
            assert counts["MatMul"] + counts["Gemm"] == float_products
            onnx.checker.check_model(str(path))


@pytest.mark.parametrize("component", ["speech_lm", "flow_estimator", "vocoder"])
def test_ladders_stay_one_network_at_many_sizes(component: str) -> None:
    assert graph_problems(open_bundle(int8_bundle()), component) == []  # type: ignore[arg-type]


def test_all_sizes_share_one_weight_file_of_open_format() -> None:
    with safe_open(int8_bundle() / "flow_estimator" / "weights.safetensors", "numpy") as weights:
        layer = weights.get_tensor("blocks.0.expand.weight")
        scale = weights.get_tensor("blocks.0.expand.weight.scale")
        assert (layer.dtype, scale.dtype) == (np.int8, np.float32)
        assert layer.shape[1:] == scale.shape
        assert weights.get_tensor("position.conv1.weight").dtype == np.float32
    with safe_open(float_bundle() / "flow_estimator" / "weights.safetensors", "numpy") as weights:
        was = weights.get_tensor("blocks.0.expand.weight")
    assert np.abs(layer * scale - was).max() <= scale.max() / 2 * 1.001


def test_the_manifest_says_what_was_done_and_how_good_it_is() -> None:
    manifest = open_bundle(int8_bundle(), recheck=True).manifest
    parts = manifest.components
    assert {name: (part.precision, part.recipe) for name, part in parts.items()} == {
        "speech_lm": ("int8-weights", "int8"),
        "flow_encoder": ("float32", None),
        "flow_estimator": ("int8-dynamic", "int8"),
        "vocoder": ("float32", None),
    }
    assert [result.measure for result in manifest.quality.results] == [
        "logits_sqnr_db",
        "velocity_sqnr_db",
        "mel_sqnr_db",
        "spectrum_db",
        "waveform_sqnr_db",
    ]
    assert all(result.passed for result in manifest.quality.results)
    assert not manifest.quality.forced
    before = open_bundle(float_bundle()).manifest
    assert manifest.source == before.source
    assert manifest.synthesis == before.synthesis


def test_a_dry_run_predicts_the_size_and_writes_nothing(tmp_path: Path) -> None:
    planned = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe="int8", dry_run=True)
    assert not planned.written
    assert list(tmp_path.iterdir()) == []
    files = [path for path in int8_bundle().rglob("*") if path.parent != int8_bundle()]
    actual = sum(path.stat().st_size for path in files if path.is_file())
    assert planned.bytes_after == pytest.approx(actual, rel=0.01)


def test_the_gate_refuses_and_nothing_is_written(tmp_path: Path) -> None:
    recipe = tmp_path / "strict.toml"
    recipe.write_text(STRICT)
    with pytest.raises(QualityRefusedError) as caught:
        quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=str(recipe))
    assert caught.value.exit_code == 3
    assert "speech_lm logits_sqnr_db is" in caught.value.what
    assert "at least 90 is needed" in caught.value.what
    assert [result.passed for result in caught.value.results] == [False]
    assert list(tmp_path.iterdir()) == [recipe]


def test_force_writes_what_the_gate_refused_and_marks_it(tmp_path: Path) -> None:
    recipe = tmp_path / "strict.toml"
    recipe.write_text(STRICT)
    report = quantize_on_random_ids(
        float_bundle(), tmp_path / "out", recipe=str(recipe), force=True
    )
    assert report.forced
    quality = open_bundle(tmp_path / "out").manifest.quality
    assert quality.forced
    assert [(result.limit, result.passed) for result in quality.results] == [(90.0, False)]


def measured(bundle: Path, component: str) -> dict[str, QualityResult]:
    sides = BundleStages.load(float_bundle()), BundleStages.load(bundle, trust=True)
    limits = {component: load_recipe("int8").components[component].limits}  # type: ignore[index]
    results = gate(*sides, random_utterances(sides[0].manifest), limits)
    return {result.measure: result for result in results}


@pytest.mark.parametrize(
    ("component", "layer", "measure"),
    [
        ("speech_lm", "layers.0.down", "logits_sqnr_db"),
        ("speech_lm", "head", "logits_sqnr_db"),
        ("flow_estimator", "blocks.1.qkv", "velocity_sqnr_db"),
        ("flow_estimator", "blocks.1.expand", "velocity_sqnr_db"),
    ],
)
def test_scales_in_the_wrong_order_in_one_layer_are_refused(
    component: str, layer: str, measure: str, tmp_path: Path
) -> None:
    bundle = copy_of(int8_bundle(), tmp_path)
    good = measured(bundle, component)[measure]
    scale = stored(bundle / component / "weights.safetensors", f"{layer}.weight.scale")
    scale[:] = np.random.default_rng(0).permutation(scale)
    bad = measured(bundle, component)[measure]
    assert good.passed
    assert not bad.passed
    assert bad.value < good.value - 10


@pytest.mark.parametrize("largest", [2, 64])
def test_activations_over_one_fixed_range_are_refused(largest: float, tmp_path: Path) -> None:
    """Too narrow a range clips, too wide a one leaves few steps; either ruins the speech."""
    bundle = copy_of(int8_bundle(), tmp_path)
    for path in (bundle / "flow_estimator").glob("*.onnx"):
        fix_activation_ranges(path, largest)
    sign_again(bundle)
    results = measured(bundle, "flow_estimator")
    assert not results["velocity_sqnr_db"].passed
    assert results["velocity_sqnr_db"].value < results["velocity_sqnr_db"].limit - 10


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    bundle = copy_of(int8_bundle(), tmp_path)
    stored(bundle / "speech_lm" / "weights.safetensors", "head.weight.scale")[0] = np.nan
    assert measured(bundle, "speech_lm")["logits_sqnr_db"].value == -200


def test_only_the_named_components_are_quantized(tmp_path: Path) -> None:
    quantize_on_random_ids(
        float_bundle(), tmp_path / "out", recipe="dynamic-int8", components=["flow_estimator"]
    )
    parts = open_bundle(tmp_path / "out").manifest.components
    assert parts["speech_lm"].precision == "float32"
    assert parts["flow_estimator"].precision == "int8-dynamic"


def test_speakers_go_along(tmp_path: Path) -> None:
    bundle = copy_of(float_bundle(), tmp_path)
    (bundle / "speakers").mkdir()
    speaker = Speaker(
        name="anna",
        generation="cosyvoice3",
        transcript="",
        prompt_text_ids=np.zeros(0, np.int32),
        speech_tokens=np.arange(4, dtype=np.int32),
        mel=np.zeros((8, 80), np.float32),
        embedding=np.ones(192, np.float32),
    )
    speaker.save(bundle / "speakers" / "anna.safetensors")
    quantize_on_random_ids(bundle, tmp_path / "out", recipe="weight-only-int8")
    assert Speaker.load(tmp_path / "out" / "speakers" / "anna.safetensors").name == "anna"


def test_a_quantized_bundle_is_not_quantized_again(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"speech_lm of .* is int8-weights; quantization starts"):
        quantize_on_random_ids(int8_bundle(), tmp_path / "out")


def test_a_bundle_of_stored_halves_is_refused(tmp_path: Path) -> None:
    half = tmp_path / "half"
    export_checkpoint(CHECKPOINT, half, max_seconds=2, front_end=False, storage="float16")
    with pytest.raises(BundleError, match="is float16-storage; quantization starts from float32"):
        quantize_on_random_ids(half, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_component_outside_the_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="recipe auto has no component 'vocoder'") as caught:
        quantize_on_random_ids(float_bundle(), tmp_path / "out", components=["vocoder"])
    assert caught.value.hint == "it has speech_lm, flow_estimator"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('layers = ["decoder.*"]', "the recipe selects no layer of speech_lm"),
        ('embedding_tables = { phonemes = "float16" }', "speech_lm has no table phonemes"),
    ],
)
def test_a_recipe_that_does_not_fit_the_bundle_is_refused(
    line: str, message: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "odd.toml"
    limits = "[components.speech_lm.limits]"
    recipe.write_text(STRICT.replace(limits, f"{line}\n{limits}"))
    with pytest.raises(UsageError, match=message):
        quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=str(recipe))


def test_an_output_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(BundleError, match="out exists"):
        quantize_on_random_ids(float_bundle(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


def test_quantizing_loads_no_torch() -> None:
    code = (
        "import sys; from cosyvoice_cpu.quantization import quantize_bundle;"
        "from pathlib import Path;"
        f"quantize_bundle(Path({str(float_bundle())!r}), Path('x'), recipe='int8', dry_run=True);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_of_another_checkpoint_in_a_bundle_are_refused(tmp_path: Path) -> None:
    bundle = copy_of(float_bundle(), tmp_path)
    path = bundle / "flow_estimator" / "weights.safetensors"
    stored(path, "blocks.0.qkv.weight")[:] = 0.5
    with pytest.raises(BundleError, match=r"flow_estimator/weights\.safetensors does not match"):
        quantize_on_random_ids(bundle, tmp_path / "out", recipe="int8")
    assert not (tmp_path / "out").exists()


def test_graphs_of_another_checkpoint_beside_a_bundles_weights_are_refused(tmp_path: Path) -> None:
    """Signed again, as by whoever mixes two bundles: the layers don't fit the weights."""
    other = tmp_path / "other"
    checkpoint = make_synthetic_checkpoint(tmp_path / "checkpoint", size="tiny")
    export_checkpoint(checkpoint, other, max_seconds=4, front_end=False)
    bundle = copy_of(float_bundle(), tmp_path)
    (bundle / "speech_lm" / "speech_lm.onnx").write_bytes(
        (other / "speech_lm" / "speech_lm.onnx").read_bytes()
    )
    sign_again(bundle)
    with pytest.raises(CosyVoiceError) as caught:
        quantize_on_random_ids(bundle, tmp_path / "out", recipe="int8")
    assert caught.value.hint
    assert not (tmp_path / "out").exists()
