"""Log-mel spectrograms of the flow's prompt and of the speech tokenizer.

Both take Slaney's mel scale with area normalization; they differ in framing, in magnitude against
power, and in the logarithm.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import MelSettings
from cosyvoice_cpu.frontend.pcm import Doubles, as_mono, frames, periodic_hann, require_samples

FLOW_RATE = 24_000  # Hz
WHISPER_RATE = 16_000  # Hz
WHISPER_FFT = 400  # 25 ms
WHISPER_HOP = 160  # 10 ms
WHISPER_BINS = 128


def mel_spectrogram(audio_24k: NDArray[Any], *, fmax: float | None = None) -> Floats:
    """Natural log-mel of the prompt for the flow, 50 frames a second.

    Shapes: audio_24k [n] at 24 kHz -> [n // 480, 80]. `fmax` in Hz comes from the checkpoint's
    YAML; None is 12 kHz (CosyVoice3), CosyVoice2 says 8000.
    Raises: AudioError below 721 samples.
    Source: Matcha-TTS matcha/utils/audio.py, `mel_spectrogram`.
    """
    settings = MelSettings(n_fft=1920, hop=480, win=1920, num_mels=80, fmin=0.0, fmax=fmax)
    return flow_mel(audio_24k, FLOW_RATE, settings)


def flow_mel(audio: NDArray[Any], sample_rate: int, settings: MelSettings) -> Floats:
    """`mel_spectrogram` with every setting.

    Shapes: audio [n] -> [T, num_mels], T = n // hop when n_fft is a multiple of hop. Silence is
    ln(1e-5) = -11.51 in every bin.
    Raises: AudioError if the clip is not longer than the reflected border, (n_fft - hop) / 2.
    """
    n_fft, hop, win = settings.n_fft, settings.hop, settings.win
    audio = as_mono(audio)
    border = (n_fft - hop) // 2
    require_samples(audio, border + 1, sample_rate, "mel spectrogram")
    padded = np.pad(audio, border, mode="reflect")
    before = (n_fft - win) // 2
    window = np.pad(periodic_hann(win), (before, n_fft - win - before))
    spectrum = np.fft.rfft(frames(padded, n_fft, hop) * window)  # [T, n_fft // 2 + 1]
    magnitude = np.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
    filters = slaney_filters(sample_rate, n_fft, settings.num_mels, settings.fmin, settings.fmax)
    return np.log(np.maximum(magnitude @ filters.T, 1e-5)).astype(np.float32)


def whisper_log_mel(audio_16k: NDArray[Any]) -> Floats:
    """Whisper's scaled log-mel, 100 frames a second, without its padding to 30 s.

    Shapes: audio_16k [n] at 16 kHz -> [128, n // 160]. The floor is 8 decades below the loudest
    bin of the whole clip, so cutting a clip changes all its frames.
    Raises: AudioError below 201 samples.
    Source: openai/whisper whisper/audio.py, `log_mel_spectrogram`.
    """
    audio = as_mono(audio_16k)
    half = WHISPER_FFT // 2
    require_samples(audio, half + 1, WHISPER_RATE, "speech tokenizer's log-mel")
    padded = np.pad(audio, half, mode="reflect")
    windowed = frames(padded, WHISPER_FFT, WHISPER_HOP) * periodic_hann(WHISPER_FFT)
    spectrum = np.fft.rfft(windowed)[:-1]  # whisper drops the last frame
    power = spectrum.real**2 + spectrum.imag**2
    filters = slaney_filters(WHISPER_RATE, WHISPER_FFT, WHISPER_BINS, 0.0, None)
    log = np.log10(np.maximum(power @ filters.T, 1e-10))
    log = np.maximum(log, log.max() - 8.0)
    return np.ascontiguousarray(((log + 4.0) / 4.0).T, dtype=np.float32)  # [128, T]


@lru_cache(maxsize=8)
def slaney_filters(
    sample_rate: int, n_fft: int, bins: int, fmin: float, fmax: float | None
) -> Doubles:
    """Triangles [bins, n_fft // 2 + 1] of equal area, rounded to float32.

    Source: librosa filters.py, `mel` (htk=False, norm="slaney").
    """
    top = sample_rate / 2 if fmax is None else fmax
    edges = _slaney_to_hz(np.linspace(_hz_to_slaney(fmin), _hz_to_slaney(top), bins + 2))
    frequency = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    width = np.diff(edges)
    slope = edges[:, None] - frequency[None, :]
    rising, falling = -slope[:-2] / width[:-1, None], slope[2:] / width[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return triangles.astype(np.float32).astype(np.float64)


_LINEAR_STEP = 200.0 / 3  # Hz per mel below 1 kHz
_LOG_START = 1000.0  # Hz
_LOG_STEP = np.log(6.4) / 27  # per mel above 1 kHz


def _hz_to_slaney(hertz: float) -> float:
    if hertz < _LOG_START:
        return hertz / _LINEAR_STEP
    return float(_LOG_START / _LINEAR_STEP + np.log(hertz / _LOG_START) / _LOG_STEP)


def _slaney_to_hz(mel: Doubles) -> Doubles:
    knee = _LOG_START / _LINEAR_STEP
    above = _LOG_START * np.exp(_LOG_STEP * (np.maximum(mel, knee) - knee))
    return np.where(mel < knee, mel * _LINEAR_STEP, above)
