"""What a speech generator gives for one text, and the phoneme ids that the generators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.sizes import HOP, SAMPLES_PER_TOKEN

SAMPLES_PER_UNIT = 600  # both generators' durations count units of 25 ms
SLOWEST, FASTEST = 0.9, 1.12  # tempo, drawn per text


@dataclass(frozen=True)
class Speech:
    """One generated text. Its length is a whole number of speech tokens (40 ms)."""

    text: str
    phonemes: list[int]  # ids in order, pads included
    audio: NDArray[np.int16]  # [960 N], 24 kHz
    f0: NDArray[np.float32]  # [2 N] Hz, mean over the frame, 0 where unvoiced
    phase: NDArray[np.float32]  # [2 N] first harmonic, cycles at the frame's last sample, mod 1
    units: NDArray[np.uint8]  # phoneme id of every 25 ms


class Voice(Protocol):
    """A speech generator with one voice."""

    @property
    def name(self) -> str:
        """The speaker's name in the corpus."""

    def speak(self, text: str, seed: int) -> Speech | None:
        """Read `text`; the seed draws tempo and noise. None when there is nothing to say."""


@dataclass(frozen=True)
class Sentence:
    """A generator's result for one sentence; n samples, a multiple of 600."""

    phonemes: list[int]
    durations: NDArray[np.int64]  # units of each phoneme
    audio: NDArray[np.float32]  # [n]
    f0: NDArray[np.float64]  # [n] Hz
    phase: NDArray[np.float64]  # [n] cycles


def joined(text: str, sentences: Sequence[Sentence], voiced_above: float) -> Speech:
    """The sentences in a row, silence added up to a whole token.

    Raises ValueError when durations do not add up to the audio.
    """
    for part in sentences:
        if int(part.durations.sum()) * SAMPLES_PER_UNIT != len(part.audio):
            raise ValueError(f"the durations of {text!r} do not add up to its audio")
    audio = np.concatenate([part.audio for part in sentences])
    missing = -len(audio) % SAMPLES_PER_TOKEN
    f0 = np.pad(np.concatenate([part.f0 for part in sentences]), (0, missing)).reshape(-1, HOP)
    phase = np.pad(np.concatenate([part.phase for part in sentences]), (0, missing), mode="edge")
    voiced = (f0 > voiced_above).mean(1) > 0.5
    return Speech(
        text=text,
        phonemes=[i for part in sentences for i in part.phonemes],
        audio=(np.pad(np.clip(audio, -0.99, 0.99), (0, missing)) * 32767).astype(np.int16),
        f0=np.where(voiced, f0.mean(1), 0).astype(np.float32),
        phase=(phase[HOP - 1 :: HOP] % 1).astype(np.float32),
        units=np.concatenate(
            [np.repeat(np.asarray(part.phonemes, np.uint8), part.durations) for part in sentences]
        ),
    )
