"""Predicted MOS: the package's own values, and what does and does not move them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.command_line import CLIP

from cosyvoice_cpu.evaluation.quality.mos import load_mos_predictor, missing_packages
from cosyvoice_cpu.frontend import resample

CLIP_MOS = 4.3209  # of `distillmos.ConvTransformerSQAModel` on CLIP

pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="distillmos is missing")


def wave16k(clip: Path) -> np.ndarray:
    samples, rate = soundfile.read(clip, dtype="float32")
    return resample(samples, rate, 16000)


def test_a_clip_is_rated_as_the_package_itself_rates_it() -> None:
    assert load_mos_predictor().predict(wave16k(CLIP), 16000) == pytest.approx(CLIP_MOS, abs=1e-3)


def test_noise_costs_mos() -> None:
    speech = wave16k(CLIP)
    noise = np.random.default_rng(0).normal(0, 0.03, len(speech)).astype(np.float32)
    predict = load_mos_predictor().predict
    clear, noisy = (predict(wave, 16000) for wave in (speech, speech + noise))
    assert clear is not None
    assert noisy is not None
    assert clear > noisy + 0.5


def test_level_and_rate_matter_little() -> None:
    speech = wave16k(CLIP)
    predict = load_mos_predictor().predict
    loud = predict(speech, 16000)
    assert predict(speech * np.float32(0.1), 16000) == pytest.approx(loud, abs=0.01)
    assert predict(resample(speech, 16000, 24000), 24000) == pytest.approx(loud, abs=0.05)


def test_a_clip_longer_than_a_segment_is_rated_whole() -> None:
    speech = wave16k(CLIP)
    noise = np.random.default_rng(0).normal(0, 0.1, len(speech)).astype(np.float32)
    predict = load_mos_predictor().predict
    good, both = (predict(np.concatenate([speech, then]), 16000) for then in (speech, noise))
    assert good is not None
    assert both is not None
    assert good > both + 0.3


@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_silence_has_no_mos(samples: int) -> None:
    assert load_mos_predictor().predict(np.zeros(samples, np.float32), 16000) is None
