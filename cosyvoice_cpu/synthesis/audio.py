"""Finished audio and its files: WAV, FLAC, OGG and MP3 by suffix, whole or absent."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.errors import AudioError, UsageError
from cosyvoice_cpu.synthesis.report import Report

_ENCODINGS = {  # format: libsndfile's container and sample encoding
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
AUDIO_FORMATS = tuple(_ENCODINGS)


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
        """The content of a file of format "wav", "flac", "ogg" or "mp3"; 16 bits where it applies.

        Raises: UsageError for another format, AudioError for empty audio or an encoder that is
        missing from this machine's libsndfile.
        """
        if audio_format not in _ENCODINGS:
            raise UsageError(
                f"unknown audio format {audio_format!r}", f"formats: {', '.join(AUDIO_FORMATS)}"
            )
        if len(self.samples) == 0:
            raise AudioError("there is no audio to write (0 samples)", "speak a text first")
        container, encoding = _ENCODINGS[audio_format]
        samples = np.clip(self.samples, -1.0, 1.0)
        buffer = io.BytesIO()
        try:
            with soundfile.SoundFile(
                buffer, "w", self.sample_rate, channels=1, format=container, subtype=encoding
            ) as file:
                # One second at a time: libsndfile's Vorbis encoder puts the whole block on the
                # stack and crashes on a few minutes at once (python-soundfile issue 426).
                for start in range(0, len(samples), self.sample_rate):
                    file.write(samples[start : start + self.sample_rate])
        except (soundfile.LibsndfileError, ValueError) as error:
            raise AudioError(
                f"this machine's libsndfile can't write {audio_format} at {self.sample_rate} Hz"
                f" ({error})",
                "write .wav or .flac, or update the soundfile package",
            ) from error
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write a file whose format is the suffix of `path`; it appears only when complete.

        Raises: UsageError for another suffix, AudioError for empty audio, OutputError if the file
        can't be written.
        """
        path = Path(path)
        write_file_atomically(path, self.to_bytes(format_of(path)))


def format_of(path: Path) -> str:
    """The audio format that the suffix of `path` names. Raises: UsageError for another suffix."""
    name = path.suffix.lower().removeprefix(".")
    if name not in _ENCODINGS:
        said = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        known = ", ".join(f".{known}" for known in AUDIO_FORMATS)
        raise UsageError(f"{path}: {said} names no audio format", f"suffixes: {known}")
    return name


def join(pieces: list[Audio]) -> Audio:
    """One audio of all `pieces`, which must share a sample rate; their reports are added up."""
    reports = [piece.report for piece in pieces if piece.report]
    return Audio(
        np.concatenate([piece.samples for piece in pieces]),
        pieces[0].sample_rate,
        Report.total(reports) if reports else None,
    )
