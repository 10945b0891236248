"""`--recipe auto`: what is chosen among candidates, what goes back to float32, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.quantization_examples import float_bundle

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization import quantize_bundle
from cosyvoice_cpu.quantization.component import ComponentPlan, plan_component
from cosyvoice_cpu.quantization.layer_timing import layer_speedups
from cosyvoice_cpu.quantization.recipe import load_recipe, parse_recipe
from cosyvoice_cpu.quantization.search import Attempt, Candidate, candidates_of, fastest, pooled
from cosyvoice_cpu.utterances import random_utterances

SEARCH = """
name = "mine"
about = "a test"
[search.speech_lm]
candidates = ["int8", "int4-lm", "dynamic-int8"]
least_speedup = 0.0
[search.speech_lm.limits]
logits_sqnr_db = 25.0
"""


def attempt(
    name: str,
    speedup: float | None,
    value: float = 40.0,
    slow: dict[str, float] | None = None,
    put_back: tuple[str, ...] = (),
) -> Attempt:
    part = load_recipe("int8").components["flow_estimator"]
    result = QualityResult(
        component="flow_estimator",
        measure="mel_sqnr_db",
        value=value,
        bound="at_least",
        limit=20.0,
        passed=value >= 20.0,
    )
    bundle = open_bundle(float_bundle())
    plan = plan_component(bundle, "flow_estimator", part, put_back=put_back)
    return Attempt(Candidate(name, part), plan, [result], speedup, slow or {})


def test_the_fastest_that_passes_is_taken() -> None:
    attempts = [attempt("a", 2.0), attempt("b", 3.0), attempt("c", 4.0, value=12.25)]
    best = fastest(attempts, 1.05)
    assert best
    assert best.candidate.recipe == "b"
    assert attempts[2].refusal(1.05) == "mel_sqnr_db is 12.25, the limit is 20"


def test_of_two_that_are_as_fast_the_better_one_is_taken() -> None:
    best = fastest([attempt("a", 2.0, value=45.0), attempt("b", 2.05), attempt("c", 1.9)], 1.05)
    assert best
    assert best.candidate.recipe == "a"


def test_attempts_of_the_same_forms_have_one_speed_whatever_was_measured() -> None:
    other = attempt("other", 3.0, put_back=("blocks.0.out",))
    attempts = pooled([attempt("even", 2.0), other, attempt("plain", 2.42), attempt("none", None)])
    assert [a.speedup for a in attempts[:3]] == pytest.approx([2.2, 3.0, 2.2])
    assert attempts[3].speedup is None


def test_what_is_not_faster_here_stays_float32() -> None:
    slower = attempt("a", 1.01)
    assert fastest([slower], 1.05) is None
    assert slower.refusal(1.05) == "not faster than float32 on this machine (1.01 times)"
    nothing = attempt("a", None)
    assert nothing.refusal(1.05) == "no layer is 1.05 times as fast as in float32 here"


def test_a_candidate_that_lacks_its_packages_is_passed_over() -> None:
    absent = replace(attempt("a", None), missing="calibrating needs torch; install it")
    assert absent.refusal(1.05) == "calibrating needs torch; install it"
    best = fastest([absent, attempt("b", 2.0)], 1.05)
    assert best
    assert best.candidate.recipe == "b"


def test_candidates_have_the_limits_of_the_search() -> None:
    recipe = parse_recipe(SEARCH.encode(), "mine.toml")
    candidates = candidates_of(recipe, "speech_lm")
    assert [candidate.recipe for candidate in candidates] == ["int8", "int4-lm", "dynamic-int8"]
    assert {candidate.part.limits["logits_sqnr_db"] for candidate in candidates} == {25.0}


def test_a_candidate_that_says_nothing_of_the_component_is_named() -> None:
    text = SEARCH.replace("search.speech_lm", "search.flow_estimator").replace(
        "logits_sqnr_db = 25.0",
        "velocity_sqnr_db = 1.0\nmel_sqnr_db = 1.0\nspectrum_db = 9.0\nwaveform_sqnr_db = 1.0",
    )
    recipe = parse_recipe(text.replace('"int8"', '"weight-only-int8"').encode(), "mine.toml")
    with pytest.raises(UsageError, match="searches flow_estimator in weight-only-int8, which says"):
        candidates_of(recipe, "flow_estimator")


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
    report = quantize_bundle(float_bundle(), tmp_path / "out", recipe=str(path))
    (part,) = report.components
    attempts = {entry.recipe: entry for entry in part.attempts}
    assert set(attempts) == {"int8", "int4-lm", "dynamic-int8"}
    refusal = attempts["int4-lm"].refusal
    assert refusal
    assert refusal.startswith("logits_sqnr_db is ")
    component = open_bundle(tmp_path / "out").manifest.components["speech_lm"]
    assert component.recipe == part.recipe
    assert part.recipe in {"int8", "dynamic-int8"}
    assert component.precision == attempts[part.recipe].precision


def test_auto_writes_a_bundle_whatever_it_puts_back(tmp_path: Path) -> None:
    report = quantize_bundle(float_bundle(), tmp_path / "out")
    manifest = open_bundle(tmp_path / "out").manifest
    assert report.written
    for part in report.components:
        assert manifest.components[part.name].precision == part.precision
        assert (part.precision == "float32") == bool(part.put_back)
    judged = {result.component for result in manifest.quality.results}
    assert judged == {part.name for part in report.components if not part.put_back}


def test_every_quantized_layer_is_timed(tmp_path: Path) -> None:
    bundle = open_bundle(float_bundle())
    (item,) = random_utterances(bundle.manifest, prompt=4, tokens=8)
    for name, part in load_recipe("int8").components.items():
        plan = plan_component(bundle, name, part)
        speedups = layer_speedups(plan, item, threads=1)
        assert set(speedups) == set(plan.layers)
        assert all(value > 0 for value in speedups.values())


def test_layers_that_are_put_back_are_float_products_again(tmp_path: Path) -> None:
    bundle = open_bundle(float_bundle())
    part = load_recipe("int8").components["speech_lm"]
    plan = plan_component(bundle, "speech_lm", part, put_back=["layers.0.down", "head"])
    assert {"layers.0.down", "head"} <= set(plan.kept)
    assert plan.weights["head.weight"] is plan.floats["head.weight"]
    whole: ComponentPlan = plan_component(bundle, "speech_lm", part)
    assert plan.bytes_after > whole.bytes_after
    assert isinstance(whole.weights["head.weight"], Weight)


def test_a_candidate_that_just_fails_gives_up_its_most_sensitive_layers(tmp_path: Path) -> None:
    whole = quantize_bundle(
        float_bundle(), tmp_path / "whole", recipe="int8", components=["speech_lm"]
    )
    limit = whole.results[0].value + 0.3
    path = tmp_path / "mine.toml"
    text = SEARCH.replace('["int8", "int4-lm", "dynamic-int8"]', '["int8"]')
    path.write_text(text.replace("25.0", f"{limit}"))
    report = quantize_bundle(float_bundle(), tmp_path / "out", recipe=str(path))
    (part,) = report.components
    (attempt,) = part.attempts
    assert part.put_back is None
    assert report.results[0].value >= limit
    assert 1 <= len(attempt.sensitive) <= 2  # of nine layers
    assert set(attempt.sensitive) <= set(part.kept)


def test_a_candidate_that_fails_by_far_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = SEARCH.replace('["int8", "int4-lm", "dynamic-int8"]', '["int4-lm"]')
    path.write_text(text)
    report = quantize_bundle(float_bundle(), tmp_path / "out", recipe=str(path))
    (part,) = report.components
    assert part.precision == "float32"
    assert part.put_back
    assert part.put_back.startswith("logits_sqnr_db is ")
    assert not part.attempts[0].sensitive
