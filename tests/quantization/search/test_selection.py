"""`--recipe auto`: what is chosen among candidates, what is restored to float32, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.quantization_examples import float_bundle, quantize_on_random_ids

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe, parse_recipe
from cosyvoice_cpu.quantization.search.candidate import ComponentPlan, plan_component
from cosyvoice_cpu.quantization.search.selection import (
    CandidateResult,
    fastest,
    with_pooled_speeds,
)
from cosyvoice_cpu.quantization.search.timing import layer_speedups
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances

SEARCH = """
name = "mine"
description = "a test"
[search.speech_lm]
candidates = ["int8", "int4-lm", "dynamic-int8"]
min_speedup = 0.0
[search.speech_lm.limits]
logits_sqnr_db = 25.0
"""


def measured(
    name: str,
    speedup: float | None,
    value: float = 40.0,
    slow: dict[str, float] | None = None,
    restored: tuple[str, ...] = (),
) -> CandidateResult:
    part = load_recipe("int8").components["flow_estimator"]
    result = QualityResult(
        component="flow_estimator",
        preset=None,
        measure="mel_sqnr_db",
        value=value,
        bound="at_least",
        limit=20.0,
        passed=value >= 20.0,
    )
    bundle = open_bundle(float_bundle())
    plan = plan_component(bundle, "flow_estimator", part, name).restored(restored)
    return CandidateResult(plan, [result], speedup, slow or {})


def test_the_fastest_that_passes_is_taken() -> None:
    results = [measured("a", 2.0), measured("b", 3.0), measured("c", 4.0, value=12.25)]
    best = fastest(results, 1.05)
    assert best
    assert best.plan.recipe_name == "b"
    assert results[2].refusal(1.05) == "mel_sqnr_db is 12.25, the limit is 20"


def test_of_two_that_are_as_fast_the_better_one_is_taken() -> None:
    best = fastest([measured("a", 2.0, value=45.0), measured("b", 2.05), measured("c", 1.9)], 1.05)
    assert best
    assert best.plan.recipe_name == "a"


def test_candidates_of_the_same_kernels_have_one_speed_whatever_was_measured() -> None:
    other = measured("other", 3.0, restored=("blocks.0.out",))
    results = with_pooled_speeds(
        [measured("even", 2.0), other, measured("plain", 2.42), measured("none", None)]
    )
    assert [a.speedup for a in results[:3]] == pytest.approx([2.2, 3.0, 2.2])
    assert results[3].speedup is None


def test_what_is_not_faster_here_stays_float32() -> None:
    slower = measured("a", 1.01)
    assert fastest([slower], 1.05) is None
    assert slower.refusal(1.05) == "not faster than float32 on this machine (1.01 times)"
    nothing = measured("a", None)
    assert nothing.refusal(1.05) == "no layer is 1.05 times as fast as in float32 here"


def test_a_candidate_that_lacks_its_packages_is_passed_over() -> None:
    absent = replace(measured("a", None), missing="calibrating needs torch; install it")
    assert absent.refusal(1.05) == "calibrating needs torch; install it"
    best = fastest([absent, measured("b", 2.0)], 1.05)
    assert best
    assert best.plan.recipe_name == "b"


def test_candidates_have_the_limits_of_the_search() -> None:
    recipe = parse_recipe(SEARCH.encode(), "mine.toml")
    candidates = recipe.candidates("speech_lm")
    assert list(candidates) == ["int8", "int4-lm", "dynamic-int8"]
    assert {part.limits["logits_sqnr_db"] for part in candidates.values()} == {25.0}


def test_a_candidate_that_says_nothing_of_the_component_is_named() -> None:
    text = SEARCH.replace("search.speech_lm", "search.flow_estimator").replace(
        "logits_sqnr_db = 25.0",
        "velocity_sqnr_db = 1.0\nmel_sqnr_db = 1.0\nspectrum_db = 9.0\nwaveform_sqnr_db = 1.0",
    )
    recipe = parse_recipe(text.replace('"int8"', '"weight-only-int8"').encode(), "mine.toml")
    with pytest.raises(
        UsageError, match="searches flow_estimator in weight-only-int8, which has no"
    ):
        recipe.candidates("flow_estimator")


def test_a_component_is_given_or_searched_but_not_both() -> None:
    text = SEARCH + (
        '[components.speech_lm]\nkernel = "weight-only-int8"\n'
        "[components.speech_lm.limits]\nlogits_sqnr_db = 1.0\n"
    )
    with pytest.raises(UsageError, match="speech_lm is given and searched"):
        parse_recipe(text.encode(), "mine.toml")


def test_a_search_reports_all_candidates_and_takes_one_that_passes(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SEARCH)
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=str(path))
    (part,) = report.components
    results = {entry.recipe: entry for entry in part.candidates}
    assert set(results) == {"int8", "int4-lm", "dynamic-int8"}
    refusal = results["int4-lm"].refusal
    assert refusal
    assert refusal.startswith("logits_sqnr_db is ")
    component = open_bundle(tmp_path / "out").manifest.components["speech_lm"]
    assert component.recipe == part.recipe
    assert part.recipe in {"int8", "dynamic-int8"}
    assert component.precision == results[part.recipe].precision


def test_auto_writes_a_bundle_whatever_it_restores(tmp_path: Path) -> None:
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out")
    manifest = open_bundle(tmp_path / "out").manifest
    assert report.written
    for part in report.components:
        assert manifest.components[part.name].precision == part.precision
        assert (part.precision == "float32") == bool(part.restored)
    judged = {result.component for result in manifest.quality.results}
    assert judged == {part.name for part in report.components if not part.restored}


def test_every_quantized_layer_is_timed(tmp_path: Path) -> None:
    bundle = open_bundle(float_bundle())
    (item,) = random_utterances(bundle.manifest, prompt=4, tokens=8)
    for name, part in load_recipe("int8").components.items():
        plan = plan_component(bundle, name, part)
        speedups = layer_speedups(plan, BundleStages(bundle, 1), item, threads=1)
        assert set(speedups) == set(plan.layers)
        assert all(value > 0 for value in speedups.values())


def test_layers_that_are_restored_are_float_products_again(tmp_path: Path) -> None:
    bundle = open_bundle(float_bundle())
    part = load_recipe("int8").components["speech_lm"]
    plan = plan_component(bundle, "speech_lm", part).restored(["layers.0.down", "head"])
    assert {"layers.0.down", "head"} <= set(plan.float32_layers)
    assert plan.weights["head.weight"] is plan.floats["head.weight"]
    whole: ComponentPlan = plan_component(bundle, "speech_lm", part)
    assert plan.bytes_after > whole.bytes_after
    assert isinstance(whole.weights["head.weight"], Weight)


def test_a_candidate_that_just_fails_gives_up_its_most_sensitive_layers(tmp_path: Path) -> None:
    whole = quantize_on_random_ids(
        float_bundle(), tmp_path / "whole", recipe="int8", components=["speech_lm"]
    )
    limit = whole.results[0].value + 0.3
    path = tmp_path / "mine.toml"
    text = SEARCH.replace('["int8", "int4-lm", "dynamic-int8"]', '["int8"]')
    path.write_text(text.replace("25.0", f"{limit}"))
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=str(path))
    (part,) = report.components
    (candidate,) = part.candidates
    assert part.restored is None
    assert report.results[0].value >= limit
    assert 1 <= len(candidate.sensitive) <= 2  # of nine layers
    assert set(candidate.sensitive) <= set(part.float32_layers)


def test_a_candidate_that_fails_by_far_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = SEARCH.replace('["int8", "int4-lm", "dynamic-int8"]', '["int4-lm"]')
    path.write_text(text)
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=str(path))
    (part,) = report.components
    assert part.precision == "float32"
    assert part.restored
    assert part.restored.startswith("logits_sqnr_db is ")
    assert not part.candidates[0].sensitive
