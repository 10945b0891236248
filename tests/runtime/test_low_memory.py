"""`low_memory`: one stage open at a time, the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.command_line import run

from cosyvoice_cpu.runtime.bundle_stages import BundleStages

NETWORKS = {"speech_lm", "flow_encoder", "flow_estimator", "vocoder"}


def speak(stages: BundleStages) -> np.ndarray:
    """The chain once, from ids to samples; checks what is open on the way if memory is low."""
    prompt = {
        "prompt_tokens": list(range(10)),
        "prompt_mel": np.full((20, 80), -6, np.float32),
        "embedding": np.ones(192, np.float32),
    }
    tokens = stages.generate_speech_tokens([1, 2, 3], min_tokens=20, max_tokens=20)
    lm_open = stages.open_components
    mel = stages.tokens_to_mel(tokens, **prompt)
    flow_open = stages.open_components
    waveform = stages.mel_to_waveform(mel)
    vocoder_open = stages.open_components
    if stages.low_memory:
        assert lm_open == {"speech_lm"}
        assert flow_open == {"flow_encoder", "flow_estimator"}
        assert vocoder_open == {"vocoder"}
    else:
        assert vocoder_open == NETWORKS
    return waveform


def test_low_memory_keeps_one_stage_open_and_changes_no_sample(tiny_bundle: Path) -> None:
    plain = speak(BundleStages.load(tiny_bundle))
    frugal = BundleStages.load(tiny_bundle, low_memory=True)
    assert np.array_equal(speak(frugal), plain)
    assert np.array_equal(speak(frugal), plain)  # graphs open again for the next request


def test_synth_takes_the_option(tmp_path: Path) -> None:
    outcome = run("synth", "Hello", "--output", tmp_path / "a.wav", "--low-memory")
    assert outcome.code == 0
    assert (tmp_path / "a.wav").stat().st_size > 4800
