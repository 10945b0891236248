"""Speech with exact phonemes, f0 and phase from the `hibari-tts` package (one American English
voice).

hibari's network predicts spectra and an f0 curve at 80 Hz, and its signal processing filters a
pulse train of exactly that f0. So the phase of the first harmonic is known at every sample, and no
pitch tracker is needed. The durations are an inner tensor of the graph; a copy of the graph with
that tensor as an output gives phoneme times.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import hibari
import numpy as np
import onnx
from hibari import dsp
from numpy.typing import NDArray

from cosyvoice_cpu.demo.training.sizes import HOP, SAMPLES_PER_TOKEN

ASSETS = Path(hibari.__file__).parent / "assets"
SAMPLES_PER_UNIT = 600  # hibari's durations count units of 25 ms
_DURATIONS = "/Clip_output_0"
_VOICED_ABOVE = 40.0  # Hz; below it hibari emits no pulses and its phase runs on at 40 Hz


@dataclass(frozen=True)
class Speech:
    """One generated text. Its length is a whole number of speech tokens (40 ms)."""

    text: str
    phonemes: list[int]  # hibari's ids in order, pads included
    audio: NDArray[np.int16]  # [960 N], 24 kHz
    f0: NDArray[np.float32]  # [2 N] Hz, mean over the frame, 0 where unvoiced
    phase: NDArray[
        np.float32
    ]  # [2 N] cycles of the first harmonic at the frame's last sample, mod 1
    units: NDArray[np.uint8]  # phoneme id of every 25 ms


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
        """Read `text`; the seed draws the tempo (0.9 to 1.12) and the noise. None when there is
        nothing to say.
        """
        rng = np.random.default_rng(seed)
        speed = np.float32(rng.uniform(0.9, 1.12))
        parts = [self._sentence(phonemes, speed, rng) for phonemes in self._hibari.phonemize(text)]
        if not parts:
            return None
        phonemes = [i for part in parts for i in part[0]]
        audio, units, f0, phase = (np.concatenate([part[k] for part in parts]) for k in range(1, 5))
        silence = -len(audio) % SAMPLES_PER_TOKEN
        audio, f0 = np.pad(audio, (0, silence)), np.pad(f0, (0, silence))
        phase = np.pad(phase, (0, silence), mode="edge")
        frame_f0 = f0.reshape(-1, HOP)
        voiced = (frame_f0 > _VOICED_ABOVE).mean(1) > 0.5
        return Speech(
            text=text,
            phonemes=phonemes,
            audio=(np.clip(audio, -0.99, 0.99) * 32767).astype(np.int16),
            f0=np.where(voiced, frame_f0.mean(1), 0).astype(np.float32),
            phase=phase[HOP - 1 :: HOP].astype(np.float32),
            units=units,
        )

    def _sentence(
        self, phonemes: str, speed: np.float32, rng: np.random.Generator
    ) -> tuple[
        list[int], NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]
    ]:
        """Ids, audio [n], units [n / 600], f0 [n] Hz and phase [n] cycles of one sentence."""
        ids = self._hibari.ids(phonemes)
        outputs = self._hibari.sess.run(
            None, {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed])}
        )
        *spectra, f0_80hz = (output[0] for output in outputs[:6])
        durations = outputs[6].reshape(-1).round().astype(int)
        audio = dsp.synth(*spectra, f0_80hz, rng)
        at = (np.arange(len(audio)) + 0.5) / dsp.HOP - 0.5
        f0 = np.interp(at, np.arange(len(f0_80hz)), f0_80hz)
        phase = np.cumsum(np.maximum(f0, _VOICED_ABOVE)) / dsp.SR % 1
        units = np.repeat(np.asarray(ids, np.uint8), durations)
        if len(units) * SAMPLES_PER_UNIT != len(audio):
            raise ValueError(f"durations of {phonemes!r} do not add up to its audio")
        return ids, audio, units, f0, phase
