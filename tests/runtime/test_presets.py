"""Solver presets on a bundle's engines: as the reference, whole and streamed, kept apart."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from support.networks_golden import CHECKPOINT, FLOW_PROMPT, ids, relative_error
from support.networks_golden import stages as reference

from cosyvoice_cpu.bundle.manifest import SolverPreset
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES
from cosyvoice_cpu.decoding.solver import evaluations, time_grid
from cosyvoice_cpu.errors import BundleError, UsageError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

MEL = 1e-3
DEFAULT = reference().synthesis.solver
TOKENS = ids("flow_token")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> BundleStages:
    bundle = tmp_path_factory.mktemp("presets") / "bundle"
    export_checkpoint(CHECKPOINT, bundle, max_seconds=12, front_end=False)
    return BundleStages.load(bundle)


def cheap() -> SolverPreset:
    """Midpoint steps with guidance in a part of the time: one row and two in turn."""
    preset = CANDIDATES["midpoint-3"].preset(DEFAULT)
    preset = msgspec.structs.replace(preset, guidance_range=(0.1, 0.6))
    assert {entry.rows for entry in evaluations(preset)} == {1, 2}
    return preset


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "name", [*(name for name, c in CANDIDATES.items() if c.prompt == "solved"), "cheap"]
)
def test_the_bundle_solves_as_the_reference_does(
    stages: BundleStages, name: str, streaming: bool
) -> None:
    preset = cheap() if name == "cheap" else CANDIDATES[name].preset(DEFAULT)
    want, got = (
        engine.tokens_to_mel(TOKENS, **FLOW_PROMPT, streaming=streaming, preset=preset)
        for engine in (reference(), stages)
    )
    assert relative_error(got, want) <= MEL


def test_a_stream_gives_what_the_whole_gives_where_guidance_comes_and_goes(
    stages: BundleStages,
) -> None:
    rng = np.random.default_rng(0)
    voice = {
        "prompt_tokens": rng.integers(0, 500, 33).tolist(),
        "prompt_mel": (rng.standard_normal((66, 80)) - 5).astype(np.float32),
        "embedding": rng.standard_normal(192).astype(np.float32),
    }
    tokens = rng.integers(0, 500, 90).tolist()
    want = stages.tokens_to_mel(tokens, **voice, streaming=True, preset=cheap())
    for _ in range(2):  # the second one finds the prompt computed
        stream = stages.flow_stream(**voice, preset=cheap())
        pieces = [stream.push(tokens[:40]), stream.push(tokens[40:]), stream.finish()]
        assert relative_error(np.concatenate(pieces, axis=1), want) <= MEL
    other = stages.flow_stream(**voice)
    assert len(other._prompt.attended) == 10  # of another solver, and kept apart
    pasts = stream._prompt.attended
    assert [past.shape[2] for past in pasts] == [entry.rows for entry in evaluations(cheap())]


def test_guidance_changes_the_mel(stages: BundleStages) -> None:
    without = msgspec.structs.replace(DEFAULT, guidance_rate=0.0)
    for engine in (reference(), stages):
        guided, plain = (
            engine.tokens_to_mel(TOKENS, **FLOW_PROMPT, preset=preset)
            for preset in (DEFAULT, without)
        )
        assert relative_error(plain, guided) > 0.01


def test_steps_of_the_stage_api_are_those_of_the_cosine_grid(stages: BundleStages) -> None:
    preset = CANDIDATES["euler-5"].preset(DEFAULT)
    assert preset.grid == [float(t) for t in time_grid(5)]
    got = stages.tokens_to_mel(TOKENS, **FLOW_PROMPT, steps=5)
    assert np.array_equal(got, stages.tokens_to_mel(TOKENS, **FLOW_PROMPT, preset=preset))
    with pytest.raises(UsageError, match="can't take 9 euler steps of this grid: it knows no t"):
        stages.tokens_to_mel(TOKENS, **FLOW_PROMPT, steps=9)


def test_a_preset_whose_times_the_table_lacks_is_refused_as_forged(stages: BundleStages) -> None:
    synthesis = stages.synthesis
    forged = msgspec.structs.replace(DEFAULT, grid=[*DEFAULT.grid[:5], 0.4, *DEFAULT.grid[6:]])
    presets = {**synthesis.solver_presets, "fast": forged}
    other = BundleStages.load(stages.bundle_path)
    other.synthesis = msgspec.structs.replace(synthesis, solver_presets=presets)
    with pytest.raises(BundleError, match=r"has no t = 0\.\d+, which its preset 'fast' needs"):
        other.tokens_to_mel(TOKENS, **FLOW_PROMPT)
