"""A second opinion on the sound: DNSMOS, trained on listeners' scores of noisy and enhanced speech.

The network comes in the package `speechmos`, of which only the file is read; nothing is fetched.
Where it and DistillMOS disagree, neither is to be believed.
Source: Reddy, Gopal and Cutler, arXiv 2010.15258 (P.808 scores); package `speechmos`, dnsmos.py.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import util
from pathlib import Path

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.evaluation.quality.mos import MOS_RATE, MosPredictor, too_little_to_hear
from cosyvoice_cpu.frontend.resampling import resample

_MODEL = Path("dnsmos_models", "model_v8.onnx")
_SECONDS = 9.01  # that the network hears at a time
_WINDOW = round(_SECONDS * MOS_RATE)
_MEL_WINDOW, _MEL_HOP, _MEL_BINS = 321, 160, 120
_RANGE_DB = 40.0  # below the loudest; the features are (dB + 40) / 40


class DnsMos:
    """DNSMOS's P.808 network."""

    name = "DNSMOS"

    def __init__(self) -> None:
        """Raises: MissingExtraError without the packages `speechmos` or librosa."""
        if missing := missing_packages():
            raise MissingExtraError(
                f"a second opinion on MOS needs {' and '.join(missing)}, not installed here",
                "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps speechmos==0.0.1.1",
            )
        import onnxruntime as ort

        spec = util.find_spec("speechmos")
        assert spec is not None and spec.origin is not None  # missing_packages() looked
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        model = str(Path(spec.origin).parent / _MODEL)
        self._session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])

    def predict(self, audio: Floats, sample_rate: int) -> float | None:
        """Mean over windows of 9 s, one a second; a shorter clip is doubled until it fills one."""
        if too_little_to_hear(audio, sample_rate):
            return None
        wave = audio if sample_rate == MOS_RATE else resample(audio, sample_rate, MOS_RATE)
        wave = np.clip(wave, -1, 1)
        while len(wave) < _WINDOW:
            wave = np.append(wave, wave)
        whole_seconds = len(wave) // MOS_RATE
        windows = max(1, int(whole_seconds - _SECONDS) + 1)  # as the package counts them
        starts = range(0, windows * MOS_RATE, MOS_RATE)
        return float(np.mean([self._rate(wave[start : start + _WINDOW]) for start in starts]))

    def _rate(self, wave: Floats) -> float:
        import librosa

        power = librosa.feature.melspectrogram(
            y=wave[:-_MEL_HOP],
            sr=MOS_RATE,
            n_fft=_MEL_WINDOW,
            hop_length=_MEL_HOP,
            n_mels=_MEL_BINS,
        )
        level = librosa.power_to_db(power, ref=np.max) / _RANGE_DB + 1
        [[score]] = self._session.run(None, {"input_1": level.T[None].astype(np.float32)})[0]
        return float(score)


@lru_cache(maxsize=1)
def load_dnsmos() -> MosPredictor:
    """The predictor, loaded once per process. Raises: MissingExtraError."""
    return DnsMos()


def missing_packages() -> list[str]:
    """The packages, by their names in the index, that DNSMOS lacks here."""
    return [name for name in ("librosa", "speechmos") if util.find_spec(name) is None]
