"""Speech with exact phonemes, f0 and phase from the `hibari-tts` package (one American English
voice), 110 times as fast as real time.

hibari's network predicts spectra and an f0 curve at 80 Hz, and its signal processing filters a
pulse train of exactly that f0. So the phase of the first harmonic is known at every sample, and no
pitch tracker is needed. The durations are an inner tensor of the graph; a copy of the graph with
that tensor as an output gives phoneme times.

The spectra also make further speakers: another length of the vocal tract stretches their frequency
axis, another pitch scales f0, and the timing stays as it is. So two speakers say the same text
token by token, from which the flow learns what of a mel is the speaker.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hibari
import numpy as np
import onnx
from hibari import dsp
from numpy.typing import NDArray

from training.speech import FASTEST, SLOWEST, Sentence, Speech, joined

ASSETS = Path(hibari.__file__).parent / "assets"
_DURATIONS = "/Clip_output_0"
_VOICED_ABOVE = 40.0  # Hz; below it hibari emits no pulses and its phase runs on at 40 Hz


@dataclass(frozen=True)
class Character:
    """A speaker that hibari's only one is turned into."""

    name: str
    formants: float = 1.0  # scale of the spectra's frequency axis; a longer vocal tract is below 1
    pitch: float = 1.0  # scale of f0


MAIN = Character("heart")
FURTHER = (
    Character("low", formants=0.84, pitch=0.6),
    Character("high", formants=1.14, pitch=1.28),
)


class HibariVoice:
    """The synthesizer, one thread."""

    def __init__(self, character: Character = MAIN) -> None:
        self.name = f"hibari-{character.name}"
        self._character = character
        graph = onnx.load(str(ASSETS / "hibari.onnx"))
        graph.graph.output.append(
            onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None)
        )
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "hibari-durations.onnx")
            onnx.save(graph, path)
            self._hibari = hibari.Hibari(model=path, threads=1)

    def speak(self, text: str, seed: int) -> Speech | None:
        """Read `text`; the seed draws tempo and noise. None when there is nothing to say."""
        rng = np.random.default_rng(seed)
        speed = np.float32(rng.uniform(SLOWEST, FASTEST))
        parts = [self._sentence(part, speed, rng) for part in self._hibari.phonemize(text)]
        return joined(text, parts, _VOICED_ABOVE) if parts else None

    def _sentence(self, phonemes: str, speed: np.float32, rng: np.random.Generator) -> Sentence:
        ids = self._hibari.ids(phonemes)
        outputs = self._hibari.sess.run(
            None, {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed])}
        )
        *spectra, f0_80hz = (output[0] for output in outputs[:6])
        spectra, f0_80hz = _in_character(self._character, spectra, f0_80hz)
        audio = dsp.synth(*spectra, f0_80hz, rng)
        at = (np.arange(len(audio)) + 0.5) / dsp.HOP - 0.5
        f0 = np.interp(at, np.arange(len(f0_80hz)), f0_80hz)
        return Sentence(
            phonemes=ids,
            durations=outputs[6].reshape(-1).round().astype(np.int64),
            audio=audio,
            f0=f0,
            phase=np.cumsum(np.maximum(f0, _VOICED_ABOVE)) / dsp.SR,
        )


def _in_character(
    character: Character, spectra: Sequence[NDArray[np.float32]], f0: NDArray[np.float32]
) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Spectra [601, F] (harmonic level and phase, noise level, free level and phase) and f0 [F] of
    another speaker.
    """
    if character.formants == 1.0 and character.pitch == 1.0:
        return list(spectra), f0
    bins = len(spectra[0])
    taken = np.minimum(np.round(np.arange(bins) / character.formants), bins - 1).astype(int)
    harmonic, *others = (part[taken] for part in spectra)
    # More harmonics in the same band have more power.
    harmonic = harmonic + np.float32(0.5 * np.log(character.pitch))
    return [harmonic, *others], f0 * np.float32(character.pitch)
