"""Mean opinion score: how good listeners would call speech, 1 (bad) to 5 (excellent), as predicted.

The predictor is DistillMOS, whose weights come in the package `distillmos`; nothing is fetched, and
the package is not imported, only its weights are read: its module asks for torchaudio and a
transformer library that the network doesn't need.

It finds broken audio and a vocoder's faults. It knows nothing of words, so it is read beside them.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Protocol

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.frontend.resampling import resample

MOS_RATE = 16_000  # Hz
_SHORTEST_SECONDS = 0.5  # of audio that can be rated
_QUIETEST = 1e-5  # -100 dBFS
_WEIGHTS = Path("weights", "distill_mos_v7.pt")


class MosPredictor(Protocol):
    """Predicts what listeners would say."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def predict(self, audio: Floats, sample_rate: int) -> float | None:
        """MOS, 1 to 5, of `audio` [n] at `sample_rate` Hz; None if there is too little to hear."""
        ...


class DistillMos:
    """The seventh of DistillMOS's networks, as shipped.

    Source: Stahl and Gamper, arXiv 2502.05356; package `distillmos`, sqa.py.
    """

    name = "DistillMOS"

    def __init__(self) -> None:
        """Raises: MissingExtraError without torch or the package `distillmos`."""
        missing = missing_packages()
        if missing:
            raise MissingExtraError(
                f"predicting MOS needs {' and '.join(missing)}, not installed here",
                "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps distillmos==0.9.1",
            )
        from cosyvoice_cpu.evaluation.quality.mos_network import load_network

        spec = util.find_spec("distillmos")
        assert spec is not None and spec.origin is not None  # missing_packages() looked
        self._network = load_network(Path(spec.origin).parent / _WEIGHTS)

    def predict(self, audio: Floats, sample_rate: int) -> float | None:
        """The network's value at 16 kHz; a clip's level doesn't matter."""
        if too_little_to_hear(audio, sample_rate):
            return None
        wave = audio if sample_rate == MOS_RATE else resample(audio, sample_rate, MOS_RATE)
        return self._network.predict(np.ascontiguousarray(wave, np.float32))


def too_little_to_hear(audio: Floats, sample_rate: int) -> bool:
    """Whether `audio` [n] is too short or too quiet to be rated."""
    return len(audio) < _SHORTEST_SECONDS * sample_rate or float(np.abs(audio).max()) < _QUIETEST


@lru_cache(maxsize=1)
def load_mos_predictor() -> MosPredictor:
    """The predictor, loaded once per process. Raises: MissingExtraError."""
    return DistillMos()


def missing_packages() -> list[str]:
    """The packages, by their names in the index, that predicting MOS lacks here."""
    return [name for name in ("distillmos", "torch") if util.find_spec(name) is None]
