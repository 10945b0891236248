"""Recordings, the original's features of them, and clips put together from one."""

from __future__ import annotations

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.frontend import resample
from support.places import DATA

GOLDEN = np.load(DATA / "frontend/features.npz")

RATE = 24_000
SPEECH: Floats = (GOLDEN["speech24k/wave"][0] / 32768).astype(np.float32)  # 2.4 s without a pause
SIGNALS = sorted({key.split("/")[0] for key in GOLDEN.files})


def mono(signal: str) -> tuple[Floats, int]:
    wave, rate = GOLDEN[f"{signal}/wave"], int(GOLDEN[f"{signal}/rate"])
    scale = 1.0 if wave.dtype.kind == "f" else 32768.0
    return (wave / np.float32(scale)).mean(axis=0).astype(np.float32), rate


def at_rate(signal: str, rate: int) -> Floats:
    """What the original fed its features at `rate`, where it is stored; else resampled here."""
    key = f"{signal}/wave{rate}"
    audio, native = mono(signal)
    return GOLDEN[key] if key in GOLDEN.files else resample(audio, native, rate)


def silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * RATE), np.float32)


def talk(sentences: int, pause: float = 0.5) -> Floats:
    """Sentences of 2.4 s with pauses before, between and after."""
    parts = [silence(pause)]
    for _ in range(sentences):
        parts += [SPEECH, silence(pause)]
    return np.concatenate(parts)
