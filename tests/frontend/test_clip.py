"""Reading prompt clips."""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support.recordings import RATE, SPEECH, silence, talk

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend.clip import load_clip
from cosyvoice_cpu.frontend.clip_quality import best_cut, judge_clip


@pytest.mark.parametrize(
    "name, subtype, tolerance",
    [
        ("clip.wav", "PCM_16", 2e-5),
        ("clip.wav", "PCM_24", 1e-6),
        ("clip.wav", "PCM_U8", 8e-3),
        ("clip.wav", "FLOAT", 0.0),
        ("clip.flac", "PCM_16", 2e-5),
        ("clip.ogg", "VORBIS", 0.2),
        ("clip.mp3", "MPEG_LAYER_III", 0.2),
    ],
)
def test_a_clip_is_read_from_the_usual_formats(
    tmp_path: Path, name: str, subtype: str, tolerance: float
) -> None:
    soundfile.write(tmp_path / name, SPEECH, RATE, subtype=subtype)
    audio, rate = load_clip(tmp_path / name)
    assert rate == RATE and audio.dtype == np.float32 and audio.shape == SPEECH.shape
    assert np.abs(audio - SPEECH).max() <= tolerance


def test_channels_are_averaged_and_loud_floats_kept(tmp_path: Path) -> None:
    left, right = np.full(9000, 1.5, np.float32), np.full(9000, 0.5, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 48000, subtype="FLOAT")
    audio, rate = load_clip(tmp_path / "a.wav")
    assert rate == 48000 and np.all(audio == 1.0)


def test_exactly_thirty_seconds_pass(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(30 * 16000), 16000)
    assert load_clip(tmp_path / "a.wav")[0].size == 30 * 16000


def wav(path: Path, audio: NDArray[np.float32], rate: int = RATE, subtype: str = "PCM_16") -> None:
    soundfile.write(path, audio, rate, subtype=subtype)


def shortened(path: Path, audio: Floats, share: float) -> None:
    soundfile.write(path, audio, RATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


BAD_FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("a.wav", lambda p: None, "can't be read \\(No such file or directory\\)"),
    ("a.wav", lambda p: p.mkdir(), "is a folder"),
    ("a.wav", lambda p: p.touch(), "is empty"),
    ("a.wav", lambda p: p.write_text("Hello there."), "is not an audio file that can be read"),
    ("a.raw", lambda p: p.write_text("Hello there."), "is not an audio file that can be read"),
    ("a.mp3", lambda p: p.write_bytes(b"RIFF" + bytes(900)), "is not an audio file"),
    ("a.wav", lambda p: shortened(p, SPEECH, 0.6), "is damaged or incomplete"),
    ("a.flac", lambda p: shortened(p, SPEECH, 0.6), "is damaged or incomplete"),
    ("a.mp3", lambda p: shortened(p, SPEECH, 0.5), "is damaged or incomplete"),
    ("a.wav", lambda p: wav(p, silence(0)), "has no samples"),
    ("a.wav", lambda p: wav(p, SPEECH, 8000), "has a sample rate of 8000 Hz; a prompt needs at"),
    ("a.wav", lambda p: wav(p, silence(30.1)), "lasts 30 s; a prompt may have at most 30 s"),
    ("a.wav", lambda p: wav(p, SPEECH * np.float32(np.nan), RATE, "FLOAT"), "are not finite"),
    ("a.wav", lambda p: wav(p, SPEECH / np.float32(0), RATE, "FLOAT"), "are not finite"),
]


@pytest.mark.parametrize("name, make, message", BAD_FILES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_bad_file_is_refused_by_name(
    tmp_path: Path, name: str, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(AudioError, match=message) as caught:
        load_clip(path)
    assert caught.value.what.startswith(str(path)) and caught.value.hint


def test_a_header_of_unknown_length_is_read_to_the_end(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", SPEECH)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # as written to a pipe
    (tmp_path / "a.wav").write_bytes(content)
    assert load_clip(tmp_path / "a.wav")[0].size == SPEECH.size


@pytest.fixture
def two_hours(tmp_path: Path) -> Path:
    """A sparse WAV file of two hours."""
    path, size = tmp_path / "long.wav", 2 * 3600 * RATE * 2
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, RATE,
                         2 * RATE, 2, 16)  # fmt: skip
    with path.open("wb") as file:
        file.write(header + struct.pack("<4sI", b"data", size))
        file.write((talk(8) * 32767).astype("<i2").tobytes())
        file.truncate(44 + size)
    return path


def test_two_hours_are_refused_from_the_header(two_hours: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AudioError, match="lasts 7200 s"):
        load_clip(two_hours)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_to_trim_only_the_first_minutes_are_read(two_hours: Path) -> None:
    audio, rate = load_clip(two_hours, trim=True)
    assert audio.size == 180 * rate
    start, end = best_cut(audio, rate)
    assert end / rate < 25 and judge_clip(audio[start:end], rate).seconds_speech > 6
