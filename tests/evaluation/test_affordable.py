"""Which preset a machine can afford: the best-sounding one that is fast enough."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundle_examples import SOLVER, make_bundle

from cosyvoice_cpu.bundle.manifest import Manifest, Quality, QualityResult
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES
from cosyvoice_cpu.decoding.solver import evaluated_rows
from cosyvoice_cpu.evaluation.affordable import Speed, choose_preset, measured_speed
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

SPEED = Speed(others=0.4, step=0.1, cached_step=0.06)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    found = read_manifest(make_bundle(tmp_path_factory.mktemp("affordable") / "bundle"))
    presets = {name: candidate.preset(SOLVER) for name, candidate in CANDIDATES.items()}
    synthesis = msgspec.structs.replace(
        found.synthesis, solver_presets={"default": SOLVER, **presets}
    )
    return msgspec.structs.replace(found, synthesis=synthesis)


@given(target=st.floats(0.01, 3))
def test_what_is_taken_is_fast_enough_and_nothing_better_is(manifest: Manifest, target: float):
    choice = choose_preset(manifest, SPEED, target)
    rows = {name: evaluated_rows(p) for name, p in manifest.synthesis.solver_presets.items()}
    cost = {"solved": 0.05, "cached": 0.03}
    presets = manifest.synthesis.solver_presets
    rtfs = {name: 0.4 + cost[presets[name].prompt] * count for name, count in rows.items()}
    assert choice.rtf == pytest.approx(rtfs[choice.preset])
    assert choice.default_rtf == pytest.approx(1.4)
    assert choice.is_affordable == (min(rtfs.values()) <= target)
    if choice.is_affordable:
        assert choice.rtf <= target
        assert rows[choice.preset] == max(rows[name] for name in rows if rtfs[name] <= target)
    else:
        assert choice.rtf == pytest.approx(min(rtfs.values()))


def test_a_prompt_that_is_not_there_costs_what_solving_it_does(manifest: Manifest) -> None:
    assert choose_preset(manifest, SPEED, 1.1).preset == "euler-10-cached"
    without = choose_preset(manifest, SPEED, 1.1, lambda preset: False)
    assert manifest.synthesis.preset(without.preset).prompt == "solved"
    cheapest = choose_preset(manifest, SPEED, 0.01, lambda preset: False)
    assert cheapest.rtf == pytest.approx(0.4 + 0.05 * 6)


def test_what_the_gate_refused_is_not_taken(manifest: Manifest) -> None:
    taken = choose_preset(manifest, SPEED, 0.01).preset
    lost = QualityResult(
        component=None,
        preset=taken,
        measure="mos_lost",
        value=1.0,
        bound="at_most",
        limit=0.1,
        passed=False,
    )
    refused = msgspec.structs.replace(manifest, quality=Quality(results=[lost], forced=True))
    assert choose_preset(refused, SPEED, 0.01).preset != taken


def test_a_speed_is_measured_once_and_found_again(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))
    stages = BundleStages.load(tiny_bundle)
    speed, was_known = measured_speed(stages, 3.0)
    assert not was_known
    assert speed.others > 0
    assert speed.step > 0
    assert measured_speed(BundleStages.load(tiny_bundle), 3.0) == (speed, True)
    assert not measured_speed(stages, 8.0)[1]  # another prompt
    other = BundleStages.load(tiny_bundle, engines={"vocoder": "torch"})
    assert not measured_speed(other, 3.0)[1]
