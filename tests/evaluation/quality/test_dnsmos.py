"""The second opinion on the sound: the package's own values."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from support.command_line import CLIP

from cosyvoice_cpu.evaluation.quality.dnsmos import load_dnsmos, missing_packages
from cosyvoice_cpu.frontend import resample

CLIP_MOS = 3.6001  # `p808_mos` of `speechmos.dnsmos.run` on CLIP

pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="speechmos is missing")


def clip16k() -> np.ndarray:
    samples, rate = soundfile.read(CLIP, dtype="float32")
    return resample(samples, rate, 16000)


def test_a_clip_is_rated_as_the_package_itself_rates_it() -> None:
    assert load_dnsmos().predict(clip16k(), 16000) == pytest.approx(CLIP_MOS, abs=1e-3)


def test_noise_costs_mos() -> None:
    speech = clip16k()
    noise = np.random.default_rng(0).normal(0, 0.03, len(speech)).astype(np.float32)
    clear, noisy = (load_dnsmos().predict(wave, 16000) for wave in (speech, speech + noise))
    assert clear is not None
    assert noisy is not None
    assert clear > noisy + 0.3


@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_silence_has_no_mos(samples: int) -> None:
    assert load_dnsmos().predict(np.zeros(samples, np.float32), 16000) is None
