"""Smoothing: free in float, and what makes outliers bearable in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.quantization_examples import copy_of, float_bundle, quantize_on_random_ids, sign_again

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.evaluation.distances import relative_error, sqnr_db
from cosyvoice_cpu.export.weights import Weight, read_weights, write_weights
from cosyvoice_cpu.quantization.calibration.activations import by_layer, record_activations
from cosyvoice_cpu.quantization.calibration.scale_folding import (
    ScaleFold,
    Smoothing,
    fold_scales,
    folds_of,
)
from cosyvoice_cpu.quantization.calibration.smoothing import ALPHAS, find_smoothing
from cosyvoice_cpu.quantization.kernels.simulation import simulated_product
from cosyvoice_cpu.quantization.kernels.variants import KernelVariant
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe
from cosyvoice_cpu.quantization.search.candidate import WEIGHTS
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance, random_utterances

COMPONENTS: tuple[ComponentName, ...] = ("speech_lm", "flow_estimator")


def item_of(bundle: Bundle) -> Utterance:
    (item,) = random_utterances(bundle.manifest, prompt=8, tokens=16)
    return item


def folds_and_weights(
    bundle: Bundle, name: ComponentName
) -> tuple[list[ScaleFold], dict[str, Weight]]:
    floats = read_weights(bundle.file(name, WEIGHTS))
    graph = sorted(bundle.path.glob(f"{name}/*.onnx"))[0]
    return folds_of(name, graph, floats), floats


def scaled_bundle(folder: Path, name: ComponentName, spread: float) -> Path:
    """The same float network with input channels of very different size, in every fold."""
    bundle = copy_of(float_bundle(), folder)
    folds, floats = folds_and_weights(open_bundle(bundle), name)
    rng = np.random.default_rng(0)
    scales = {
        fold.layer: np.exp(rng.standard_normal(fold.scales) * spread).astype(np.float32)
        for fold in folds
    }
    arrays = {key: weight.load() for key, weight in fold_scales(floats, folds, scales).items()}
    path = bundle / name / WEIGHTS
    metadata = read_header(path).metadata  # the header keeps its length, the graphs their offsets
    weights = {key: Weight.of(np.array(array)) for key, array in arrays.items()}
    write_weights(path, weights, metadata=metadata)
    sign_again(bundle)
    return bundle


def output(bundle: Path, name: ComponentName) -> NDArray[np.float32]:
    stages = BundleStages.load(bundle)
    item = item_of(stages.bundle)
    if name == "speech_lm":
        return stages.speech_lm_logits(item.text_ids, item.tokens)
    return stages.tokens_to_mel(
        item.tokens,
        prompt_tokens=item.prompt_tokens,
        prompt_mel=item.prompt_mel,
        embedding=item.embedding,
    )


@pytest.mark.parametrize("name", COMPONENTS)
def test_folded_scales_change_nothing_in_float(name: ComponentName, tmp_path: Path) -> None:
    bundle = scaled_bundle(tmp_path, name, spread=1.5)
    assert relative_error(output(bundle, name), output(float_bundle(), name)) < 1e-4


@pytest.mark.parametrize("name", COMPONENTS)
def test_observing_sees_what_enters_every_layer(name: ComponentName) -> None:
    stages = BundleStages.load(float_bundle())
    items = random_utterances(stages.manifest, count=2, prompt=8, tokens=16)
    seen = by_layer(record_activations(stages, name, items, lambda done: None))
    folds, floats = folds_and_weights(stages.bundle, name)
    assert {fold.layer for fold in folds} < {*seen, "x"}
    for layer, part in seen.items():
        assert part.rows.shape[1:] == part.low.shape == part.high.shape
        assert part.rows.shape[1] == floats[f"{layer}.weight"].shape[0]
        assert np.all(part.rows.min(axis=0) >= part.low)
        assert np.all(part.rows.max(axis=0) <= part.high)
        assert len(np.unique(part.rows, axis=0)) > 10


@pytest.mark.parametrize("name", COMPONENTS)
def test_smoothing_restores_what_outliers_cost(name: ComponentName, tmp_path: Path) -> None:
    stages = BundleStages.load(scaled_bundle(tmp_path, name, spread=1.0))
    folds, floats = folds_and_weights(stages.bundle, name)
    arrays = record_activations(stages, name, [item_of(stages.bundle)], lambda done: None)
    seen = by_layer(arrays)
    layers = {fold.layer: KernelVariant("dynamic-int8") for fold in folds}
    found = find_smoothing(floats, layers, folds, seen, None, lambda done: None)
    assert set(found.alphas.values()) <= set(ALPHAS)
    scales, smooth = found.scales, found.applied(floats)
    before, after = [], []
    for fold in folds:
        part, key = seen[fold.layer], f"{fold.layer}.weight"
        scale = scales.get(fold.layer, np.ones(fold.scales, np.float32))[fold.scale_of]
        want = part.rows @ np.asarray(floats[key].load())
        for weights, factor, results in ((floats, 1.0, before), (smooth, scale, after)):
            got = simulated_product(
                part.rows / factor,
                np.asarray(weights[key].load(), np.float32),
                KernelVariant("dynamic-int8"),
                float((part.low / factor).min()),
                float((part.high / factor).max()),
            )
            plain = want.shape[1] // 3  # further right some are scaled for the layer behind
            results.append(sqnr_db(got[:, :plain], want[:, :plain]))
    assert np.mean(after) > np.mean(before) + 3
    assert min(np.subtract(after, before)) > -1


@given(st.integers(0, 2**32 - 1), st.sampled_from(["dynamic-int8", "weight-only-int8"]))
def test_an_simulated_product_is_close_for_even_channels(seed: int, kernel: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((9, 70)).astype(np.float32)
    weight = rng.standard_normal((70, 11)).astype(np.float32)
    form = KernelVariant(kernel, 32)  # type: ignore[arg-type]
    got = simulated_product(x, weight, form, float(x.min()), float(x.max()))
    assert sqnr_db(got, x @ weight) > 30


def test_a_channel_that_never_varies_gets_a_finite_scale() -> None:
    stages = BundleStages.load(float_bundle())
    folds, floats = folds_and_weights(stages.bundle, "speech_lm")
    seen = by_layer(
        record_activations(stages, "speech_lm", [item_of(stages.bundle)], lambda d: None)
    )
    for part in seen.values():
        for array in (part.low, part.high):
            array[0] = 0
        part.rows[:, 0] = 0
    layers = {fold.layer: KernelVariant("dynamic-int8") for fold in folds}
    scales = find_smoothing(floats, layers, folds, seen, 0.5, lambda done: None).scales
    assert len(scales) == len(folds)
    assert all(np.isfinite(scale).all() and (scale > 0).all() for scale in scales.values())


def test_the_search_is_described_by_its_alphas() -> None:
    found = Smoothing([], {}, {"a": 0.5, "b": 0.0, "c": 0.5})
    assert str(found) == "smoothed 2 of 3 layers: alpha 0.5 (2)"
    assert str(Smoothing([], {}, {"a": 0.0})) == "smoothed 0 of 1 layers: alpha 0"


@pytest.mark.parametrize("layer", ["layers.1.qkv", "layers.0.gate_up", "layers.1.out", "head"])
def test_what_touches_one_layer_makes_the_same_of_its_weight_as_everything(layer: str) -> None:
    folds, floats = folds_and_weights(open_bundle(float_bundle()), "speech_lm")
    rng = np.random.default_rng(0)
    scales = {fold.layer: rng.uniform(0.5, 2, fold.scales).astype(np.float32) for fold in folds}
    smoothing = Smoothing(folds, scales, dict.fromkeys(scales, 0.5))
    alone = smoothing.around(layer).applied(floats)
    weights = [part[f"{layer}.weight"].load() for part in (alone, smoothing.applied(floats))]
    assert np.array_equal(*weights)
    assert len([name for name in floats if alone[name] is not floats[name]]) < 6


def test_a_recipe_gives_alpha() -> None:
    part = load_recipe("smooth-int8").components["flow_estimator"]
    assert part.smoothing
    assert part.smoothing.alpha == "search"


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_network_with_outliers_passes_only_when_it_is_smoothed(
    name: ComponentName, tmp_path: Path
) -> None:
    bundle = scaled_bundle(tmp_path, name, spread=1.0)
    values = {}
    for recipe in ("int8", "smooth-int8"):
        report = quantize_on_random_ids(
            bundle, tmp_path / recipe, recipe=recipe, components=[name], force=True
        )
        values[recipe] = report.results[0].value
        assert report.forced == (recipe == "int8")
        smoothing = report.components[0].candidates[0].smoothing
        assert bool(smoothing) == (recipe == "smooth-int8")
    print(name, values)
    assert values["smooth-int8"] > values["int8"] + 5
