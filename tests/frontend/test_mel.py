"""Mel spectrograms and the filter bank: the original's own, and what they do at the edges."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from support.recordings import GOLDEN, at_rate

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import MelSettings
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend import kaldi_fbank, mel_spectrogram, resample, whisper_log_mel
from cosyvoice_cpu.frontend.mel import flow_mel


def mel_cosyvoice1(audio: Floats) -> Floats:
    settings = MelSettings(n_fft=1024, hop=256, win=1024, num_mels=80, fmin=0.0, fmax=8000.0)
    return flow_mel(audio, 22050, settings)


FEATURES: dict[str, tuple[Callable[[Floats], Floats], int, float, float]] = {
    # feature: function, rate, largest and mean difference allowed
    "mel_c3": (mel_spectrogram, 24000, 3e-4, 5e-6),
    "mel_c2": (lambda audio: mel_spectrogram(audio, fmax=8000.0), 24000, 3e-4, 5e-6),
    "mel_c1": (mel_cosyvoice1, 22050, 3e-4, 5e-6),
    "fbank": (kaldi_fbank, 16000, 3e-3, 3e-5),
    "whisper": (whisper_log_mel, 16000, 1e-4, 1e-6),
}
LOUD = dict.fromkeys(("mel_c3", "mel_c2", "mel_c1"), (5e-3, 1e-4)) | {"fbank": (5e-3, 2e-4)}


@pytest.mark.parametrize("key", [k for k in GOLDEN.files if k.split("/")[1] in FEATURES])
def test_a_feature_equals_the_originals(key: str) -> None:
    signal, feature = key.split("/")
    function, rate, largest, mean = FEATURES[feature]
    if signal == "loud22k_float":  # no noise under its tone, so its quiet bins are rounding
        largest, mean = LOUD.get(feature, (largest, mean))
    got, want = function(at_rate(signal, rate)), GOLDEN[key]
    assert got.shape == want.shape and got.dtype == np.float32
    difference = np.abs(got - want)
    print(f"{signal} {feature}: largest {difference.max():.1e}, mean {difference.mean():.1e}")
    assert difference.max() <= largest and difference.mean() <= mean


# Frames by number of samples at the feature's own rate; None where the original fails.
LENGTHS = [
    # samples, mel 24 kHz, mel 22.05 kHz, fbank, whisper
    (0, None, None, None, None), (1, None, None, None, None), (200, None, None, None, None),
    (201, None, None, None, 1), (384, None, None, None, 2), (385, None, 1, None, 2),
    (399, None, 1, None, 2), (400, None, 1, 1, 2), (480, None, 1, 1, 3), (559, None, 2, 1, 3),
    (560, None, 2, 2, 3), (720, None, 2, 3, 4), (721, 1, 2, 3, 4), (959, 1, 3, 4, 5),
    (960, 2, 3, 4, 6), (1200, 2, 4, 6, 7), (1919, 3, 7, 10, 11), (1920, 4, 7, 10, 12),
    (2399, 4, 9, 13, 14), (2400, 5, 9, 13, 15), (24000, 50, 93, 148, 150),
    (24479, 50, 95, 151, 152), (24480, 51, 95, 151, 153),
]  # fmt: skip


@pytest.mark.parametrize("samples, mel, mel_old, fbank, whisper", LENGTHS)
def test_frames_per_length_are_the_originals(
    samples: int, mel: int | None, mel_old: int | None, fbank: int | None, whisper: int | None
) -> None:
    audio = np.linspace(-0.5, 0.5, samples, dtype=np.float32)
    expected = [
        (mel_spectrogram, mel, 0),
        (mel_cosyvoice1, mel_old, 0),
        (kaldi_fbank, fbank, 0),
        (whisper_log_mel, whisper, 1),
    ]
    for function, count, axis in expected:
        if count is None:
            with pytest.raises(AudioError, match=f"the clip has {samples} samples"):
                function(audio)
        else:
            assert function(audio).shape[axis] == count


def test_digital_silence_gives_the_floors() -> None:
    silence = np.zeros(24000, np.float32)
    assert np.allclose(mel_spectrogram(silence), np.log(1e-5))
    assert np.allclose(kaldi_fbank(silence), 0)
    assert np.allclose(whisper_log_mel(silence), -1.5)


def test_settings_do_not_share_filters() -> None:
    audio = at_rate("speech24k", 24000)
    wide, narrow = mel_spectrogram(audio), mel_spectrogram(audio, fmax=8000.0)
    assert np.array_equal(mel_spectrogram(audio), wide)
    assert np.abs(wide - narrow).max() > 1


@pytest.mark.parametrize("function", [mel_spectrogram, kaldi_fbank, whisper_log_mel])
def test_other_than_mono_floats_are_refused(function: Callable[..., Floats]) -> None:
    with pytest.raises(AudioError, match=r"got an array of shape \[2, 4000\]"):
        function(np.zeros((2, 4000), np.float32))
    with pytest.raises(AudioError, match="got int16"):
        function(np.zeros(4000, np.int16))


def test_thirty_seconds_take_less_than_a_second() -> None:
    audio = np.random.default_rng(0).standard_normal(30 * 48000).astype(np.float32)
    start = time.perf_counter()
    at24, at16 = resample(audio, 48000, 24000), resample(audio, 48000, 16000)
    mel_spectrogram(at24), kaldi_fbank(at16), whisper_log_mel(at16)
    assert time.perf_counter() - start < 3  # 0.15 s alone on a core; room for busy machines
