"""Finished audio, with the report of how it was made."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.synthesis.audio_files import AUDIO_FORMATS, AudioWriter, audio_file, format_of
from cosyvoice_cpu.synthesis.report import Report

__all__ = ["AUDIO_FORMATS", "Audio", "format_of", "join"]


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono audio: `samples` float32 [n] in [-1, 1], `sample_rate` in Hz.

    `report` says how it was made (None for audio from elsewhere).
    """

    samples: Floats
    sample_rate: int
    report: Report | None = field(default=None, repr=False)

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.sample_rate

    def to_bytes(self, audio_format: str = "wav") -> bytes:
        """The content of a file of one of AUDIO_FORMATS; 16 bits where it applies.

        Raises: UsageError for another format, AudioError for empty audio or an encoder that is
        missing from this machine's libsndfile.
        """
        self._require_samples()
        buffer = io.BytesIO()
        writer = AudioWriter(buffer, audio_format, self.sample_rate)
        writer.write(self.samples)
        writer.close()
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write a file whose format is the suffix of `path`; it appears only when complete.

        Raises: UsageError for another suffix, AudioError for empty audio or an encoder that is
        missing, OutputError if the file can't be written.
        """
        path = Path(path)
        audio_format = format_of(path)
        self._require_samples()
        with audio_file(path, audio_format, self.sample_rate) as writer:
            writer.write(self.samples)

    def _require_samples(self) -> None:
        if len(self.samples) == 0:
            raise AudioError("there is no audio to write (0 samples)", "speak a text first")


def join(pieces: list[Audio]) -> Audio:
    """One audio of all `pieces`, which must share a sample rate; their reports are added up."""
    reports = [piece.report for piece in pieces if piece.report]
    return Audio(
        np.concatenate([piece.samples for piece in pieces]),
        pieces[0].sample_rate,
        Report.total(reports) if reports else None,
    )
