"""Recordings that are none, or not of a voice."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.command_line import CLIP
from support.fuzz_command import refused

NOISE = np.random.default_rng(0).normal(0, 0.1, 96_000).astype(np.float32)
PCM = (NOISE * 32767).astype("<i2").tobytes()


def wav(
    rate: int = 24_000,
    channels: int = 1,
    bits: int = 16,
    data: bytes = PCM,
    size: int | None = None,
    code: int = 1,
    align: int | None = None,
) -> bytes:
    """A WAV file whose header says what it is told to."""
    align = channels * bits // 8 if align is None else align
    size = len(data) if size is None else size
    form = struct.pack("<HHIIHH", code, channels, rate, rate * align % 2**32, align % 2**16, bits)
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", (len(head) + size) % 2**32) + head + data


FILES = {
    "empty": b"",
    "four-bytes": b"RIFF",
    "header-without-data": wav()[:36],
    "no-samples": wav(data=b""),
    "one-sample": wav(data=b"\x01\x00"),
    "half-a-sample": wav(data=b"\x01"),
    "0-Hz": wav(rate=0),
    "8-kHz": wav(rate=8000),
    "1-MHz": wav(rate=1_000_000),
    "4-GHz": wav(rate=2**32 - 1),
    "2-hours-in-the-header": wav(size=2 * 24_000 * 7200),
    "0-channels": wav(channels=0),
    "65-channels": wav(channels=65, data=PCM * 70),
    "65535-channels": wav(channels=65_535),
    "0-bits": wav(bits=0),
    "512-bits": wav(bits=512),
    "unknown-code": wav(code=0x7777),
    "cut-in-half": wav()[: len(PCM) // 2],
    "web-page": b"<!doctype html><html><body>404</body></html>",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(99),
    "zip": b"PK\x03\x04" + bytes(99),
    "flac-without-frames": b"fLaC" + bytes(99),
    "ogg-without-pages": b"OggS" + bytes(199),
    "mp3-tag-alone": b"ID3" + bytes(99),
    "text": b"It is a truth universally acknowledged",
}
SOUNDS = {
    "silence": np.zeros(96_000),
    "nearly-silence": NOISE * 1e-30,
    "a-constant": np.full(96_000, 0.5),
    "nan": np.full(96_000, np.nan),
    "one-nan": np.concatenate([NOISE, [np.nan]]),
    "infinity": np.full(96_000, np.inf),
    "infinities-that-cancel": np.tile([[np.inf, -np.inf]], (96_000, 1)),
    "one-float": np.ones(1),
    "20-ms": NOISE[:480],
    "31-seconds": np.tile(NOISE, 8),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_that_holds_no_speech_is_refused(
    content: bytes, tmp_path: Path, tiny_bundle: Path
) -> None:
    clip, speakers = tmp_path / "clip.wav", tmp_path / "speakers"
    clip.write_bytes(content)
    fact = refused("cache-speaker", tiny_bundle, "anna", "--audio", clip, "--speakers", speakers)
    assert str(clip) in fact or "clip" in fact
    assert not speakers.exists()


@pytest.mark.parametrize("samples", SOUNDS.values(), ids=SOUNDS)
@pytest.mark.parametrize("trim", [[], ["--trim"]], ids=["whole", "trim"])
def test_a_sound_that_is_no_speech_is_refused(
    trim: list[str],
    samples: np.ndarray,
    tmp_path: Path,
    tiny_bundle: Path,
    request: pytest.FixtureRequest,
    recwarn: pytest.WarningsRecorder,
) -> None:
    if trim and "31-seconds" in request.node.name:
        pytest.skip("--trim takes part of it")
    clip, speakers = tmp_path / "clip.wav", tmp_path / "speakers"
    soundfile.write(clip, samples, 24_000, subtype="FLOAT")
    options = ("--audio", clip, "--speakers", speakers, *trim)
    refused("cache-speaker", tiny_bundle, "anna", *options)
    assert not speakers.exists()
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


@pytest.mark.parametrize("form", ["PCM_U8", "PCM_24", "PCM_32", "DOUBLE", "ULAW", "IMA_ADPCM"])
def test_any_usual_form_of_samples_serves(form: str, tmp_path: Path) -> None:
    from cosyvoice_cpu.frontend.clip import load_clip

    samples, rate = soundfile.read(CLIP, dtype="float32")
    soundfile.write(tmp_path / "clip.wav", samples, rate, subtype=form)
    read, _ = load_clip(tmp_path / "clip.wav")
    error = read[: len(samples)] - samples
    assert 20 * np.log10(np.std(samples) / np.std(error).clip(1e-9)) > 15


@pytest.mark.parametrize("channels", [2, 6, 64])
def test_channels_are_averaged(channels: int, tmp_path: Path) -> None:
    from cosyvoice_cpu.frontend.clip import load_clip

    samples, rate = soundfile.read(CLIP, dtype="float32")
    shares = np.linspace(0, 2, channels, dtype=np.float32)
    soundfile.write(tmp_path / "c.wav", samples[:, None] * shares, rate, subtype="FLOAT")
    read, _ = load_clip(tmp_path / "c.wav")
    np.testing.assert_allclose(read, samples, atol=1e-5)
