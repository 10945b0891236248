"""Audio of a stream as bytes of one file that is written as it is made."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Final

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.serving.job import Block
from cosyvoice_cpu.synthesis.audio import Audio, join
from cosyvoice_cpu.synthesis.audio_files import AudioWriter

MEDIA_TYPES: Final = {  # format: what the response's header says
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
FORMATS: Final = tuple(MEDIA_TYPES)


def check_format(name: str) -> str:
    """`name`, if audio can be sent so. Raises: UsageError, which lists what can."""
    if name not in MEDIA_TYPES:
        raise UsageError(
            f"response_format {name[:40]!r} is not available", f"formats: {', '.join(FORMATS)}"
        )
    return name


def encoded(stream: Iterable[Audio], audio_format: str, sample_rate: int) -> Iterator[Block]:
    """A block for each audio of `stream`, and one for what closes the file.

    Joined, the contents are one file. Its header can't be changed afterwards: a WAV says 0xFFFFFFFF
    for its size unless it is of one block. An encoder keeps some samples back, so a block's content
    may be empty. Raises: AudioError if this machine can't encode it, and what `stream` raises.
    """
    file = io.BytesIO()
    writer = AudioWriter(file, audio_format, sample_rate, seekable=False)
    for audio in stream:
        report = audio.report
        writer.write(audio.samples, last=report is not None and report.ends_text)
        yield Block(_taken(file), audio.seconds, report.speech_tokens if report else 0)
    writer.close()
    yield Block(_taken(file), 0.0)


def encoded_whole(stream: Iterable[Audio], audio_format: str) -> Iterator[Block]:
    """Empty blocks while `stream` is made, then the whole file with its length in the header.

    Raises: as `encoded`.
    """
    parts = []
    for audio in stream:
        parts.append(audio)
        yield Block(b"", audio.seconds, audio.report.speech_tokens if audio.report else 0)
    yield Block(join(parts).to_bytes(audio_format), 0.0)


def _taken(file: io.BytesIO) -> bytes:
    """What was written since the last call."""
    content = file.getvalue()
    file.seek(0)
    file.truncate()
    return content
