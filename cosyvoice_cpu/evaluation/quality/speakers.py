"""How alike two voices are: the cosine of two speaker embeddings.

Resemblyzer's encoder, which had no part in training any voice, is taken where it is installed.
Without it the bundle's own speaker encoder serves; the flow was given its embedding as input, so
that it is not independent and its values can't be compared with the other's.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib import util
from typing import Any, Protocol

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.frontend.fbank import kaldi_fbank
from cosyvoice_cpu.frontend.onnx_models import FrontEndModels

SHORTEST_SECONDS = 0.5  # of audio that has a voice to speak of
_EMBEDDING_RATE = 16_000  # Hz
_QUIETEST = 1e-5  # -100 dBFS


class SpeakerEncoder(Protocol):
    """Turns audio into a point that lies near those of the same speaker."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def independent(self) -> bool:
        """Whether no network of the bundle was trained with it."""
        ...

    def embed(self, wave16k: Floats) -> Floats | None:
        """Embedding [E] of `wave16k` [n] at 16 kHz; None if there is too little speech."""
        ...


class ResemblyzerEncoder:
    """The GE2E encoder of the package `resemblyzer`, 256 values.

    Source: Wan et al., arXiv 1710.10467.
    """

    name = "resemblyzer"
    independent = True

    def __init__(self) -> None:
        """Raises: MissingExtraError if it or what it imports is not installed."""
        missing = missing_packages()
        if missing:
            raise MissingExtraError(
                f"speaker similarity needs {' and '.join(missing)}, not installed here",
                "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps resemblyzer==0.1.4",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports an old name of scipy.ndimage
            from resemblyzer import VoiceEncoder, preprocess_wav
        self._encoder: Any = VoiceEncoder("cpu", verbose=False)
        self._prepare: Any = preprocess_wav

    def embed(self, wave16k: Floats) -> Floats | None:
        """Long silences are cut out first, as the encoder was trained."""
        if len(wave16k) == 0 or float(np.abs(wave16k).max()) < _QUIETEST:
            return None
        peak = max(1.0, float(np.abs(wave16k).max()))  # it converts to 16 bits without a look
        voiced = self._prepare(np.asarray(wave16k / peak, np.float32))
        if len(voiced) < SHORTEST_SECONDS * _EMBEDDING_RATE:
            return None
        return np.asarray(self._encoder.embed_utterance(voiced), np.float32)


class BundleSpeakerEncoder:
    """A bundle's CAM++, 192 values."""

    name = "the bundle's speaker encoder"
    independent = False

    def __init__(self, models: FrontEndModels) -> None:
        self._models = models

    def embed(self, wave16k: Floats) -> Floats | None:
        """Of the whole audio, pauses included."""
        if len(wave16k) < SHORTEST_SECONDS * _EMBEDDING_RATE:
            return None
        if float(np.abs(wave16k).max()) < _QUIETEST:
            return None
        return self._models.embed(kaldi_fbank(wave16k))


def cosine(a: Floats, b: Floats) -> float:
    """Cosine, -1 to 1, of two embeddings [E]; 0 if one of them is zero."""
    norm = float(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)))
    return float(np.clip(a.astype(np.float64) @ b / norm, -1.0, 1.0)) if norm > 0 else 0.0


@lru_cache(maxsize=1)
def load_resemblyzer() -> SpeakerEncoder:
    """The encoder, loaded once per process. Raises: MissingExtraError."""
    return ResemblyzerEncoder()


def missing_packages() -> list[str]:
    """The packages, by their names in the index, that Resemblyzer lacks here."""
    names = {
        "resemblyzer": "resemblyzer",
        "librosa": "librosa",
        "webrtcvad": "webrtcvad-wheels",
        "scipy": "scipy",
        "torch": "torch",
    }
    return [name for module, name in names.items() if util.find_spec(module) is None]
