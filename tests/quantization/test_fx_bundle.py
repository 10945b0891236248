"""Bundles with calibrated activation ranges: one file of integers, two engines, one report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from safetensors import safe_open
from support.networks_golden import ids
from support.quantization_examples import float_bundle, int8_bundle, quantize_on_random_ids

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.distances import sqnr_db
from cosyvoice_cpu.evaluation.parity.outputs import Outputs
from cosyvoice_cpu.quantization import QualityRefusedError
from cosyvoice_cpu.quantization.gate.accuracy import gate
from cosyvoice_cpu.quantization.kernels.parameters import CalibrationReport
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe, parse_recipe
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances
from tools.compare_engines import agreements, speeds

FX = "fx-int8"
CALIBRATED = ("speech_lm", "flow_estimator")
NETWORKS = ("speech_lm", "flow_encoder", "flow_estimator", "vocoder")


@cache
def naive_bundle() -> Path:
    path = float_bundle().with_name("naive")
    quantize_on_random_ids(
        float_bundle(),
        path,
        recipe="naive-int8",
        components=["flow_encoder", "vocoder"],
        force=True,
    )
    return path


def on_torch(bundle: Path) -> BundleStages:
    """All networks of a bundle on the torch engine."""
    return BundleStages.load(bundle, engines=dict.fromkeys(NETWORKS, "torch"))


@cache
def outputs(bundle: Path, load: Callable[[Path], BundleStages] = BundleStages.load) -> Outputs:
    """All sides are given what the float32 bundle makes on the way."""
    reference = None if bundle == float_bundle() else outputs(float_bundle())
    stages = load(bundle)
    manifest = open_bundle(bundle).manifest
    item = random_utterances(manifest, seed=5)[0]
    return Outputs(stages, item, reference)


@pytest.mark.parametrize(
    ("output", "least"),
    [
        ("logits", 10),
        ("velocity", 8),
        ("velocity_streaming", 8),
        ("mel", 2),
        ("waveform", 2),
    ],
)
def test_both_engines_agree_within_rounding(output: str, least: float) -> None:
    """Closer to each other than to float32: only values on the edge of a step fall apart.

    One such value moves the values behind it a little, which brings some of these over an edge.
    """
    want = getattr(outputs(float_bundle()), output)
    onnx_side = getattr(outputs(int8_bundle(FX)), output)
    torch_side = getattr(outputs(int8_bundle(FX), on_torch), output)
    agreement, quality = sqnr_db(torch_side, onnx_side), sqnr_db(onnx_side, want)
    print(output, agreement, quality, sqnr_db(torch_side, want))
    assert agreement > quality + least
    assert sqnr_db(torch_side, want) == pytest.approx(quality, abs=1.5)


@pytest.mark.parametrize("output", ["mu", "speaker", "vocoded"])
def test_integer_convolutions_agree_in_both_engines(output: str) -> None:
    onnx_side = getattr(outputs(naive_bundle()), output)
    torch_side = getattr(outputs(naive_bundle(), on_torch), output)
    quality = sqnr_db(onnx_side, getattr(outputs(float_bundle()), output))
    print(output, sqnr_db(torch_side, onnx_side), quality)
    assert sqnr_db(torch_side, onnx_side) > quality + 10


def test_the_torch_engine_speaks_in_int8() -> None:
    stages = on_torch(int8_bundle(FX))
    tokens = stages.generate_speech_tokens(ids("lm_text_ids"), max_tokens=20)
    item = random_utterances(stages.manifest)[0]
    prompt = {
        "prompt_tokens": item.prompt_tokens,
        "prompt_mel": item.prompt_mel,
        "embedding": item.embedding,
    }
    waveform = stages.mel_to_waveform(stages.tokens_to_mel(tokens, **prompt))
    assert len(waveform) == 2 * len(tokens) * 480
    assert waveform.any()


def test_the_gate_judges_the_torch_engine_as_any_other() -> None:
    sides = BundleStages.load(float_bundle()), on_torch(int8_bundle(FX))
    limits = {name: part.limits for name, part in load_recipe(FX).components.items()}
    items = random_utterances(sides[0].manifest)
    results = gate(*sides, items, limits)
    assert [result for result in results if not result.passed] == []


def test_the_engines_of_one_bundle_are_compared_in_quality_and_speed() -> None:
    reference = BundleStages.load(float_bundle())
    sides = BundleStages.load(int8_bundle(FX)), on_torch(int8_bundle(FX))
    items = random_utterances(reference.manifest)
    rows = agreements(reference, sides, items)
    limits = {name: part.limits for name, part in load_recipe(FX).components.items()}
    gated = {r.measure: r.value for r in gate(reference, sides[0], items, limits)}
    assert {row.measure: round(row.onnxruntime, 3) for row in rows} == gated
    assert all(row.apart > row.onnxruntime for row in rows if row.measure.endswith("sqnr_db"))
    measured = speeds(reference, sides, items[0])
    assert {speed.component for speed in measured} == set(CALIBRATED)
    assert all(speed.onnxruntime > 0 and speed.torch > 0 for speed in measured)


def test_every_product_has_a_fixed_range_in_every_graph() -> None:
    for folder, count, floats in (("speech_lm", 9, 0), ("flow_estimator", 12, 2)):
        for path in sorted((int8_bundle(FX) / folder).glob("*.onnx")):
            graph = onnx.load(str(path), load_external_data=False).graph
            counts = Counter(node.op_type for node in graph.node)
            assert counts["QuantizeLinear"] == counts["MatMulIntegerToFloat"] == count
            assert counts["MatMul"] + counts["Gemm"] == floats
            assert counts["ConvInteger"] == 0


@pytest.mark.parametrize("name", CALIBRATED)
def test_the_report_in_the_bundle_states_what_the_engines_use(name: str) -> None:
    bundle = open_bundle(int8_bundle(FX), recheck=True)
    component = bundle.component(name)  # type: ignore[arg-type]
    assert component.precision == "int8-static"
    assert f"{name}/calibration.json" in {entry.path for entry in component.files}
    text = (bundle.path / name / "calibration.json").read_bytes()
    report = msgspec.json.decode(text, type=CalibrationReport)
    assert (report.component, report.observer) == (name, "histogram")
    assert report.method.startswith("torch.ao.quantization, FX mode, torch ")
    assert report.items == ["random 2"]  # the others are held out for the gate
    with safe_open(bundle.path / name / "weights.safetensors", "numpy") as weights:
        names = set(weights.keys())
        assert {name for name in names if name.endswith(".input_scale")} == {
            f"{layer}.weight.input_scale" for layer in report.layers
        }
        for layer, seen in report.layers.items():
            weight = f"{layer}.weight"
            assert weights.get_tensor(weight).dtype == np.int8
            assert weights.get_tensor(f"{weight}.input_scale") == np.float32(seen.scale)
            assert weights.get_tensor(f"{weight}.input_zero_point") == seen.zero_point
            assert seen.minimum < seen.maximum


def test_the_naive_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QualityRefusedError) as caught:
        quantize_on_random_ids(
            float_bundle(), tmp_path / "out", recipe="naive-int8", components=["flow_estimator"]
        )
    assert caught.value.what.startswith("the quality gate refused: flow_estimator velocity_sqnr_db")
    assert list(tmp_path.iterdir()) == []


def test_the_naive_recipe_spares_no_convolution() -> None:
    for folder, start in (("vocoder", "generator"), ("flow_encoder", "flow_encoder")):
        for path in (naive_bundle() / folder).glob(f"{start}*.onnx"):
            model = onnx.load(str(path), load_external_data=False)
            fourier = {tensor.name for tensor in model.graph.initializer if tensor.raw_data}
            convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
            assert all(node.input[1] in fourier for node in convolutions)
            assert any(node.op_type == "ConvInteger" for node in model.graph.node)
    quality = json.loads((naive_bundle() / "manifest.json").read_text())["quality"]
    assert quality["forced"]


def test_a_plan_with_fixed_ranges_needs_no_torch() -> None:
    code = (
        "import sys; from cosyvoice_cpu.quantization import quantize_bundle;"
        "from pathlib import Path;"
        f"bundle = Path({str(float_bundle())!r});"
        "quantize_bundle(bundle, Path('x'), recipe='fx-int8', dry_run=True);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from cosyvoice_cpu.errors import MissingExtraError\n"
        "from cosyvoice_cpu.quantization import quantize_bundle\n"
        "try:\n"
        f"    quantize_bundle(Path({str(float_bundle())!r}), Path('out'), recipe='fx-int8',"
        " calibration='random')\n"
        "except MissingExtraError as error:\n"
        "    print(error.what, '|', error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == (
        "a recipe with fixed activation ranges needs torch | "
        'install it with: pip install "cosyvoice-cpu[export]"\n'
    )
    assert list(tmp_path.iterdir()) == []


RECIPE = """
name = "mine"
description = "a test"
[components.speech_lm]
kernel = "static-int8"
[components.speech_lm.activations]
observer = "percentile"
percentile = 99.9
[components.speech_lm.limits]
logits_sqnr_db = 20.0
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '[components.speech_lm.activations]\nobserver = "percentile"\npercentile = 99.9\n',
            "",
            "static-int8 of speech_lm has no activations",
        ),
        ('"static-int8"', '"dynamic-int8"', "no kernel of speech_lm has fixed activations"),
        ('"percentile"', '"eyes"', "Invalid enum value 'eyes'"),
        ("99.9", "5", "Expected `float` > 50"),
    ],
)
def test_a_recipe_says_how_ranges_are_found_where_they_are_fixed(
    old: str, new: str, message: str
) -> None:
    assert parse_recipe(RECIPE.encode(), "mine.toml").components["speech_lm"].activations
    assert old in RECIPE
    with pytest.raises(UsageError, match=message):
        parse_recipe(RECIPE.replace(old, new).encode(), "mine.toml")
