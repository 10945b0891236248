"""Clips in containers that libsndfile does not read: M4A, WebM, AAC, WMA, AMR.

PyAV (extra `clips`) decodes them where it is installed. It gets an open file and the one format
that its first bytes show: by name alone FFmpeg would also follow playlists and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError, first_line


def container_of(head: bytes) -> tuple[str, str] | None:
    """What people call the container that begins with `head`, and what FFmpeg; None if unknown."""
    if head[4:8] == b"ftyp":
        return "M4A or MP4", "mp4"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "WebM or Matroska", "matroska"
    if head[:4] == b"\x30\x26\xb2\x75":
        return "WMA", "asf"
    if head[:5] == b"#!AMR":
        return "AMR", "amr"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "AAC", "aac"
    return None


def decode(file: BinaryIO, where: str, container: tuple[str, str]) -> tuple[int, Iterator[Floats]]:
    """Sample rate in Hz, and blocks [samples, channels] of the first audio track.

    Raises: AudioError beginning with `where` if no decoder is installed, there is no audio, or,
    while iterating, it can't be decoded.
    """
    kind, name = container
    if find_spec("av") is None:
        raise AudioError(
            f"{where} is {kind}, which takes a decoder",
            f'pip install "cosyvoice-cpu[clips]", or convert it: ffmpeg -i "{where}" clip.wav',
        )
    import av

    damaged = AudioError(f"{where} is damaged or no {kind}", "copy the file again")
    file.seek(0)
    try:
        opened = av.open(file, mode="r", format=name)
        tracks = opened.streams.audio
        rate = int(tracks[0].rate) if tracks else 0
    except (av.FFmpegError, OSError, ValueError) as error:
        raise damaged from error
    if not tracks:
        opened.close()
        raise AudioError(f"{where} has no audio track", "give a recording of speech")

    def blocks() -> Iterator[Floats]:
        planes = av.AudioResampler(format="fltp", rate=rate)
        try:
            with opened:
                for frame in opened.decode(tracks[0]):
                    for plain in planes.resample(frame):
                        yield np.ascontiguousarray(plain.to_ndarray().T, np.float32)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"{damaged.what} ({first_line(error)})", damaged.hint) from error

    return rate, blocks()
