"""Audio as files and streams of bytes: encoded block by block, as it is made.

WAV, FLAC, OGG (Vorbis), Opus (in OGG), MP3 and raw PCM. What is encoded goes out at once; where the
file can be sought in, its header gets the final sizes at the end.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import atomic_file, output_error
from cosyvoice_cpu.errors import AudioError, UsageError

_ENCODINGS: Final = {  # format: libsndfile's container and sample encoding
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "pcm": ("RAW", "PCM_16"),  # little-endian, no header
}
AUDIO_FORMATS: Final = tuple(_ENCODINGS)
_SUFFIXES: Final = {f".{name}": name for name in AUDIO_FORMATS} | {".raw": "pcm"}
# Without a table in front, players tell the length of MP3 from the first frame's bit rate.
_CONSTANT_BITRATE: Final[dict[str, Any]] = {"bitrate_mode": "CONSTANT", "compression_level": 0.4}
_UNKNOWN_SIZE: Final = 0xFFFF_FFFF  # what a WAV header says whose end is not known yet


def format_of(path: Path) -> str:
    """The audio format that the suffix of `path` names; "-", which is stdout, gets WAV.

    Raises: UsageError for another suffix.
    """
    if path == Path("-"):
        return "wav"
    name = _SUFFIXES.get(path.suffix.lower())
    if name is None:
        said = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UsageError(
            f"{path}: {said} names no audio format", f"suffixes: {', '.join(_SUFFIXES)}"
        )
    return name


def check_format(audio_format: str, sample_rate: int) -> None:
    """Raises: UsageError if there is no such format, or none of that rate (Hz)."""
    try:
        AudioWriter(io.BytesIO(), audio_format, sample_rate).close()
    except AudioError as error:
        raise UsageError(error.what, error.hint) from error


class AudioWriter:
    """Encodes mono audio into an open binary file."""

    def __init__(
        self,
        file: BinaryIO,
        audio_format: str,
        sample_rate: int,
        *,
        path: Path | None = None,
        seekable: bool | None = None,
    ) -> None:
        """`path` is the file's name, for messages; `seekable` False never goes back in it.

        Raises: UsageError for an unknown format, AudioError if this machine can't encode it.
        """
        import soundfile

        if audio_format not in _ENCODINGS:
            raise UsageError(
                f"unknown audio format {audio_format!r}", f"formats: {', '.join(AUDIO_FORMATS)}"
            )
        self._file, self._path = file, path
        self._rate = sample_rate
        self._seekable = file.seekable() if seekable is None else seekable
        self._start = file.tell() if self._seekable else 0
        self._encoded = _Encoded()
        container, encoding = _ENCODINGS[audio_format]
        # To a pipe libsndfile would write a header that promises no samples.
        self._header_due = audio_format == "wav" and not self._seekable
        if self._header_due:
            container = "RAW"
        try:
            self._encoder = soundfile.SoundFile(
                self._encoded,
                "w",
                sample_rate,
                channels=1,
                format=container,
                subtype=encoding,
                endian="LITTLE" if container == "RAW" else None,
                **(_CONSTANT_BITRATE if audio_format == "mp3" and not self._seekable else {}),
            )
        except (soundfile.LibsndfileError, ValueError) as error:
            raise AudioError(
                f"this machine's libsndfile can't write {audio_format} at {sample_rate} Hz"
                f" ({getattr(error, 'error_string', error)})",
                "write .wav or .flac, choose another --rate, or update the soundfile package",
            ) from error

    def write(self, samples: Floats, *, last: bool = False) -> None:
        """Encode `samples` [n] in [-1, 1], what is beyond at the limit.

        `last` promises that nothing follows: a WAV of one block has its size in the header even
        where the header can't be changed later.
        Raises: OutputError if the file of that path can't be written, OSError without a path.
        """
        if self._header_due:
            self._header_due = False
            self._send(_wav_header(self._rate, 2 * len(samples) if last else None))
        # A second at a time: libsndfile's Vorbis encoder puts the whole block on the stack and
        # crashes on a few minutes at once (python-soundfile issue 426).
        for start in range(0, len(samples), self._rate):
            self._encoder.write(np.clip(samples[start : start + self._rate], -1.0, 1.0))
            self._send(self._encoded.take())

    def close(self) -> None:
        """Finish the encoding, and the header where that is possible. Raises: as `write`."""
        if self._encoder.closed:
            return
        if self._header_due:
            self.write(np.zeros(0, np.float32), last=True)
        self._encoder.close()
        self._send(self._encoded.take(), self._encoded.patches if self._seekable else ())

    def _send(self, content: bytes, patches: Iterable[tuple[int, bytes]] = ()) -> None:
        try:
            self._file.write(content)
            for position, changed in patches:
                self._file.seek(self._start + position)
                self._file.write(changed)
            self._file.flush()
        except OSError as error:
            if self._path is None:
                raise
            raise output_error(self._path, error) from error


@contextmanager
def audio_file(path: Path, audio_format: str, sample_rate: int) -> Iterator[AudioWriter]:
    """A writer to `path`, which appears under its name only when the block ends without error.

    Until then what is written lies beside it (`bundle.atomic`).
    Raises: UsageError for an unknown format, AudioError if this machine can't encode it,
    OutputError if the file can't be written.
    """
    with atomic_file(path) as file:
        writer = AudioWriter(file, audio_format, sample_rate, path=path)
        yield writer
        writer.close()


class _Encoded:
    """The file that libsndfile writes: new bytes wait to be taken, rewritten ones are kept apart.

    libsndfile swallows the exceptions of a file's methods; these raise none.
    """

    def __init__(self) -> None:
        self.patches: list[tuple[int, bytes]] = []  # place and content
        self._waiting = bytearray()
        self._taken = self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._taken + len(self._waiting)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, content: bytes) -> int:
        content = bytes(content)
        old = max(0, min(len(content), self._taken - self._position))
        if old:
            self.patches.append((self._position, content[:old]))
        place = self._position + old - self._taken
        self._waiting[place : place + len(content) - old] = content[old:]
        self._position += len(content)
        return len(content)

    def take(self) -> bytes:
        content = bytes(self._waiting)
        self._taken += len(content)
        self._waiting.clear()
        return content


def _wav_header(sample_rate: int, size: int | None) -> bytes:
    """RIFF header of `size` bytes of 16-bit mono PCM, None if their number is not known yet."""
    form = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    before = 4 + 8 + len(form) + 8  # what the outer chunk holds beside the samples
    whole = _UNKNOWN_SIZE if size is None else before + size
    data = _UNKNOWN_SIZE if size is None else size
    return (
        struct.pack("<4sI4s4sI", b"RIFF", whole, b"WAVE", b"fmt ", len(form))
        + form
        + struct.pack("<4sI", b"data", data)
    )
