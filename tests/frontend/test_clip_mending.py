"""Clips that are not quite what they should be: read, or refused with the reason."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.recordings import RATE, SPEECH

from cosyvoice_cpu.errors import AudioError, UsageError
from cosyvoice_cpu.frontend.clip import load_clip, read_clip
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.audio_files import AudioWriter

PCM = (SPEECH * 32767).astype("<i2").tobytes()


def wav(declared: int, data: bytes = PCM, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A WAV file whose header says `declared` bytes of samples."""
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + form + before + b"data" + struct.pack("<I", declared) + data + behind
    return b"RIFF" + struct.pack("<I", min(len(body) - len(data) + declared, 2**32 - 1)) + body


@pytest.mark.parametrize(
    "declared",
    [0, 1_000_000_000, 2_000_000_000, 0x7FFF_FFFE, 0x8000_0000, 0xFFFF_FFFF - 44, 0xFFFF_FFFF],
)
@pytest.mark.parametrize("before", [b"", b"LIST" + struct.pack("<I", 5) + b"hello\0"])
def test_a_size_that_is_a_placeholder_means_to_the_end(declared: int, before: bytes) -> None:
    clip = read_clip(wav(declared, before=before))
    assert clip.samples.size == SPEECH.size
    assert np.abs(clip.samples - SPEECH).max() < 1e-4
    assert clip.warnings == ()


@pytest.mark.parametrize("size", [b"\0" * 8, b"\xff" * 8, b"\0\xca\x9a\x3b\0\0\0\0"])
def test_a_placeholder_of_64_bits_means_to_the_end(size: bytes) -> None:
    file = io.BytesIO()
    soundfile.write(file, SPEECH, RATE, format="RF64", subtype="PCM_16")
    content = bytearray(file.getvalue())
    if (place := content.find(b"ds64")) < 0:
        pytest.skip("this libsndfile writes short RF64 files as WAV")
    content[place + 16 : place + 24] = size
    assert read_clip(bytes(content)).samples.size == SPEECH.size


def test_caf_of_unknown_length_is_read_to_the_end() -> None:
    file = io.BytesIO()
    soundfile.write(file, SPEECH, RATE, format="CAF", subtype="PCM_16")
    content = bytearray(file.getvalue())
    place = content.find(b"data")
    content[place + 4 : place + 12] = b"\xff" * 8
    assert read_clip(bytes(content)).samples.size == SPEECH.size


@pytest.mark.parametrize("beyond", [1, 2, 36, 44, 46, 1000])
def test_a_header_that_promises_a_little_too_much_is_read_with_a_warning(beyond: int) -> None:
    clip = read_clip(wav(len(PCM) + beyond))
    assert clip.samples.size == SPEECH.size
    assert clip.warnings == (
        f"the clip: the header promises {beyond} bytes more than there are; read to the end",
    )


@pytest.mark.parametrize("beyond", [5000, 20_000, len(PCM), 300_000_000])
def test_a_file_of_which_a_part_is_missing_is_refused(beyond: int) -> None:
    with pytest.raises(AudioError, match="is damaged or incomplete"):
        read_clip(wav(len(PCM) + beyond))


def test_a_size_of_0_before_further_chunks_is_no_placeholder() -> None:
    tail = b"LIST" + struct.pack("<I", 4) + b"INFO"
    with pytest.raises(AudioError, match="has no samples"):
        read_clip(wav(0, data=b"", behind=tail))


def test_a_file_cut_within_its_header_is_refused() -> None:
    for length in range(1, 44):
        with pytest.raises(AudioError):
            read_clip(wav(len(PCM))[:length])


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("audio_format", ["wav", "flac", "ogg", "opus", "mp3"])
def test_what_this_program_writes_to_a_pipe_can_be_a_clip(audio_format: str) -> None:
    pipe = Pipe()
    writer = AudioWriter(pipe, audio_format, 48000)
    sound = np.repeat(SPEECH, 3)
    for block in np.array_split(sound, 5):
        writer.write(block)
    writer.close()
    samples, rate = read_clip(pipe.getvalue()).samples, 48000
    assert abs(samples.size - sound.size) < 0.1 * rate
    assert 0.5 < np.abs(samples).max() / np.abs(sound).max() < 1.5


@pytest.mark.parametrize("scale", [2**15, 2**23, 2**31])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_at_an_integer_s_scale_are_divided_and_this_is_said(
    tmp_path: Path, scale: int, subtype: str
) -> None:
    soundfile.write(tmp_path / "a.wav", SPEECH.astype(np.float64) * scale, RATE, subtype=subtype)
    clip = read_clip(tmp_path / "a.wav")
    assert np.abs(clip.samples - SPEECH).max() < 1e-6
    [warning] = clip.warnings
    assert warning.startswith(f"{tmp_path / 'a.wav'}: samples reach ")
    assert warning.endswith(f"-bit ones and divided by {scale}")


@pytest.mark.parametrize("peak", [3.0, 100.0, 50_000.0, 1e12, 1e30])
def test_floats_of_no_known_scale_are_refused(peak: float) -> None:
    with pytest.raises(AudioError, match="floating-point samples lie in"):
        read_clip((SPEECH / np.abs(SPEECH).max() * np.float32(peak), RATE))


@pytest.mark.parametrize("channels", [(1.0, -1.0), (-0.9, 1.0), (1.0, -1.0, 0.0, 0.0)])
def test_of_channels_that_cancel_the_best_one_is_taken(
    tmp_path: Path, channels: tuple[float, ...]
) -> None:
    sound = SPEECH[:, None] * np.float32(channels)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    clip = read_clip(tmp_path / "a.wav")
    best = int(np.argmax(np.abs(channels)))
    assert np.array_equal(clip.samples, sound[:, best])
    [warning] = clip.warnings
    assert warning.endswith(f"one seems inverted; channel {best + 1} is taken")


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.5, 1.0), (1.0, 1.0, 0.0)])
def test_channels_that_agree_or_are_empty_are_averaged(shares: tuple[float, ...]) -> None:
    clip = read_clip((SPEECH[:, None] * np.float32(shares), RATE))
    assert np.allclose(clip.samples, SPEECH * np.mean(shares), atol=1e-6)
    assert clip.warnings == ()


def test_unrelated_channels_are_averaged() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE * 4, 2)).astype(np.float32)
    assert read_clip((noise, RATE)).warnings == ()


def encoded(container: str, codec: str) -> bytes:
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48000, layout="mono")
        sound = np.repeat(SPEECH, 3)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), "fltp", "mono")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(stream.format.name, "mono", 48000, stream.frame_size or 960)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"), [("ipod", "aac"), ("mp4", "aac"), ("webm", "libopus"), ("adts", "aac")]
)
def test_m4a_and_webm_are_decoded_where_a_decoder_is_installed(
    container: str, codec: str, tmp_path: Path
) -> None:
    path = tmp_path / "clip.m4a"
    path.write_bytes(encoded(container, codec))
    samples, rate = load_clip(path)
    assert rate == 48000
    assert abs(samples.size - 3 * SPEECH.size) < 0.1 * rate
    assert 0.5 < np.abs(samples).max() / np.abs(SPEECH).max() < 1.5


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("webm", "libopus")])
def test_a_damaged_m4a_or_webm_is_read_or_refused(container: str, codec: str) -> None:
    good = encoded(container, codec)
    chance = np.random.default_rng(0)
    for _ in range(20):
        bad = bytearray(good[: chance.integers(12, len(good) + 1)])
        for place in chance.integers(12, len(bad) + 1, 20):
            if place < len(bad):
                bad[place] = chance.integers(256)
        try:
            clip = read_clip(bytes(bad))
        except AudioError:
            continue
        assert np.all(np.isfinite(clip.samples))


M4A = b"\0\0\0\x20ftypM4A " + bytes(99)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (M4A, "M4A or MP4"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "WebM or Matroska"),
        (b"\x30\x26\xb2\x75" + bytes(99), "WMA"),
    ],
)
def test_without_a_decoder_the_command_that_converts_is_told(
    content: bytes, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("cosyvoice_cpu.frontend.containers.find_spec", lambda _: None)
    path = tmp_path / "a.m4a"
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        load_clip(path)
    assert caught.value.what == f"{path} is {kind}, which takes a decoder"
    assert caught.value.hint == (
        f'pip install "cosyvoice-cpu[clips]", or convert it: ffmpeg -i "{path}" clip.wav'
    )


def test_a_playlist_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_text("#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n")
    with pytest.raises(AudioError, match="is not an audio file that can be read"):
        load_clip(path)


SIXTEEN = (SPEECH * 32767).astype(np.int16)


@pytest.mark.parametrize(
    "source",
    [
        (SPEECH, RATE),
        (RATE, SPEECH),
        (SPEECH.astype(np.float64), np.int64(RATE)),
        (SIXTEEN, RATE),
        (SIXTEEN.astype(np.int32) << 16, RATE),
        (SPEECH[:, None], RATE),
        (np.stack([SPEECH, SPEECH], 1), RATE),
        (np.stack([SPEECH, SPEECH]), RATE),
        (SPEECH.tolist(), RATE),
        Audio(SPEECH, RATE),
        io.BytesIO(wav(len(PCM))),
        Pipe(wav(len(PCM))),
        wav(len(PCM)),
        bytearray(wav(len(PCM))),
    ],
    ids=lambda source: type(source).__name__,
)
def test_a_clip_comes_as_bytes_a_file_or_samples(source) -> None:
    clip = read_clip(source)
    assert clip.rate == RATE and clip.samples.dtype == np.float32
    assert np.abs(clip.samples - SPEECH).max() < 1e-3


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (None, "a clip can't be read from NoneType"),
        (7, "a clip can't be read from int"),
        (SPEECH, "a clip can't be read from ndarray"),
        (io.StringIO("RIFF"), "the clip is open as text"),
        ((SPEECH, "16000"), "the clip's rate is '16000', not a number of Hz"),
        ((SPEECH.astype(complex), RATE), "the clip's samples are complex"),
        ((np.zeros((2, 2, 2)), RATE), "the clip is an array of shape [2, 2, 2]"),
    ],
)
def test_what_is_no_clip_is_wrong_usage(source, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_clip(source)
    assert caught.value.what.startswith(what)
