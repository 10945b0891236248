"""Speech with exact phonemes, f0 and phase from the `hibari-tts` package (one American English
voice), 110 times as fast as real time.

hibari's network predicts spectra and an f0 curve at 80 Hz, and its signal processing filters a
pulse train of exactly that f0. So the phase of the first harmonic is known at every sample, and no
pitch tracker is needed. The durations are an inner tensor of the graph; a copy of the graph with
that tensor as an output gives phoneme times.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import hibari
import numpy as np
import onnx
from hibari import dsp

from cosyvoice_cpu.demo.training.speech import FASTEST, SLOWEST, Sentence, Speech, joined

ASSETS = Path(hibari.__file__).parent / "assets"
_DURATIONS = "/Clip_output_0"
_VOICED_ABOVE = 40.0  # Hz; below it hibari emits no pulses and its phase runs on at 40 Hz


class HibariVoice:
    """The synthesizer, one thread."""

    name = "hibari-heart"

    def __init__(self) -> None:
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
