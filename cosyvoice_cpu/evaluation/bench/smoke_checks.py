"""A figure counts only if what was computed in that time is right.

An engine that skips work is fast. Each row's results are looked at by themselves (finite, audible,
not clipped, of the right length) and against the first row's, which computed the same request. The
limits catch broken engines, not lossy ones: quality is the business of gates, not of a bench.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.frontend.mel import mel_spectrogram

_SILENCE_RMS = 1e-4  # -80 dB of full scale
_CLIPPED_LEVEL = 0.985  # the vocoder limits itself to 0.99
_CLIPPED_SHARE = 0.2
# Relative rms differences from the first row. BF16 and INT8 lie at 0.01 to 0.1 (performance notes),
# an unrelated signal of the same statistics at 1.4.
_LIMITS = {"logits": 0.5, "mel": 0.5, "waveform": 0.7}
_LEAST_GUIDANCE = 1e-3  # of the velocity; rounding is far below


@dataclass(frozen=True)
class Results:
    """What one row computed: logits [rows], log-mel [80, frames], waveform [samples] at 24 kHz."""

    logits: Floats
    mel: Floats
    waveform: Floats

    @classmethod
    def read(cls, folder: Path) -> Results:
        """The arrays that a worker wrote to `folder`."""
        return cls(*(np.load(folder / f"{name}.npy") for name in ("logits", "mel", "waveform")))


def differences(results: Results, first: Results) -> dict[str, float]:
    """Relative rms difference per array; waveforms are compared by their log-mel, not by phase."""
    return {
        "logits": _relative_rms(results.logits, first.logits),
        "mel": _relative_rms(results.mel, first.mel),
        "waveform": _relative_rms(
            mel_spectrogram(results.waveform), mel_spectrogram(first.waveform)
        ),
    }


def problem(results: Results, first: Results, samples: int) -> str | None:
    """Why the results of a row can't count, None if they can; `samples` is the length expected."""
    for name in ("logits", "mel", "waveform"):
        if not np.isfinite(getattr(results, name)).all():
            return f"its {name} is not finite"
    waveform = results.waveform
    if len(waveform) != samples:
        return f"its audio has {len(waveform)} samples, not {samples}"
    if np.sqrt(np.mean(np.square(waveform, dtype=np.float64))) < _SILENCE_RMS:
        return "its audio is silent"
    if np.mean(np.abs(waveform) > _CLIPPED_LEVEL) > _CLIPPED_SHARE:
        return "its audio is clipped"
    for name, difference in differences(results, first).items():
        if difference > _LIMITS[name]:
            return f"its {name} differs from the first row's by {difference:.0%}"
    return None


def guidance_problem(share: float | None) -> str | None:
    """Why a row can't count whose guidance changes `share` of the velocity (None: it has none).

    An engine that drops the row without condition, or computes it with one, is nearly twice as
    fast, and its audio is sound.
    """
    if share is not None and not share > _LEAST_GUIDANCE:
        return "its flow is the same with and without guidance"
    return None


def _relative_rms(a: Floats, b: Floats) -> float:
    if a.shape != b.shape:
        return float("inf")
    reference = b.astype(np.float64)
    spread = float(np.sqrt(np.mean((reference - reference.mean()) ** 2)))
    error = float(np.sqrt(np.mean((a.astype(np.float64) - reference) ** 2)))
    return error / max(spread, 1e-12)
