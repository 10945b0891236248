"""Audio files, fades and speed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.errors import AudioError, OutputError, UsageError
from cosyvoice_cpu.synthesis.audio import AUDIO_FORMATS, Audio, join
from cosyvoice_cpu.synthesis.audio_files import AudioWriter, audio_file
from cosyvoice_cpu.synthesis.postprocessing import change_speed, check_speed, fade_edges
from cosyvoice_cpu.synthesis.report import STAGE_NAMES, Report


def tone(seconds: float = 1.0) -> Audio:
    time = np.arange(int(24000 * seconds)) / 24000
    return Audio((0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32), 24000)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".WAV"])
def test_every_suffix_gives_a_file_that_can_be_read_back(tmp_path: Path, suffix):
    path = tmp_path / f"tone{suffix}"
    tone().save(path)
    samples, rate = soundfile.read(path)
    assert rate == 24000
    assert abs(len(samples) - 24000) < 2400  # MP3 pads its frames
    assert 0.45 < np.abs(samples[2400:-2400]).max() < 0.55


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_lossless_file_differs_by_16_bit_rounding_only(tmp_path: Path, suffix):
    path = tmp_path / f"tone{suffix}"
    tone().save(path)
    samples, _ = soundfile.read(path, dtype="float32")
    assert np.abs(samples - tone().samples).max() <= 1 / 32768


def test_bytes_are_those_of_the_file(tmp_path: Path):
    path = tmp_path / "tone.wav"
    tone().save(path)
    assert tone().to_bytes("wav") == path.read_bytes()


def test_minutes_of_ogg_do_not_overflow_the_encoders_stack():
    content = Audio(np.zeros(24000 * 300, np.float32), 24000).to_bytes("ogg")
    assert soundfile.info(io.BytesIO(content)).frames == 24000 * 300


class Forward(soundfile.SoundFile):
    """Never seeks: at the end of FLAC without a length it would fail."""

    def seekable(self) -> bool:
        return False


class Pipe(io.BytesIO):
    """Takes bytes in order only."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_):
        raise OSError("a pipe")

    tell = seek


@pytest.mark.parametrize("audio_format", AUDIO_FORMATS)
@pytest.mark.parametrize("blocks", [1, 7])
def test_a_pipe_gets_audio_that_can_be_read_back_block_by_block(audio_format, blocks):
    pipe = Pipe()
    writer = AudioWriter(pipe, audio_format, 24000)
    sizes = []
    for block in np.array_split(tone(20.0).samples, blocks):
        writer.write(block)
        sizes.append(len(pipe.getvalue()))
    assert sizes[0] > 1000
    assert sizes == sorted(sizes)
    assert blocks == 1 or sizes[-1] > 4 * sizes[0]
    writer.close()
    raw = {"channels": 1, "samplerate": 24000, "subtype": "PCM_16", "format": "RAW"}
    options = raw if audio_format == "pcm" else {}
    with Forward(io.BytesIO(pipe.getvalue()), **options) as file:
        samples = file.read(24000 * 30)
    assert abs(len(samples) - 24000 * 20) < 2400
    assert 0.45 < np.abs(samples[2400:-2400]).max() < 0.55


@pytest.mark.parametrize("audio_format", AUDIO_FORMATS)
def test_a_file_of_many_blocks_is_that_of_one(tmp_path: Path, audio_format):
    path = tmp_path / f"x.{audio_format}"
    with audio_file(path, audio_format, 24000) as writer:
        for second in np.array_split(tone(5.0).samples, 5):
            writer.write(second)
    content, whole = path.read_bytes(), tone(5.0).to_bytes(audio_format)
    if audio_format in ("wav", "flac", "pcm"):
        assert content == whole
    if audio_format != "pcm":
        assert soundfile.info(path).frames == soundfile.info(io.BytesIO(whole)).frames


def test_a_pipe_gets_the_size_of_a_wav_whose_first_block_is_its_last():
    pipe = Pipe()
    writer = AudioWriter(pipe, "wav", 24000)
    writer.write(tone().samples, last=True)
    writer.close()
    assert pipe.getvalue() == tone().to_bytes("wav")


def test_a_failed_block_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x.wav"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), audio_file(path, "wav", 24000) as writer:
        writer.write(tone().samples)
        assert len(list(tmp_path.iterdir())) == 2
        raise ZeroDivisionError
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_a_full_disk_names_the_file():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OutputError) as caught, audio_file(Path("/dev/full"), "wav", 24000) as file:
        file.write(tone(100.0).samples)
    assert caught.value.what == "/dev/full can't be written: the disk is full"


def test_samples_beyond_full_scale_are_clipped_not_wrapped():
    content = Audio(np.float32([2.0, -2.0, 0.0]), 24000).to_bytes("wav")
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    assert samples[0] > 0.99
    assert samples[1] == -1.0


def test_the_old_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path):
    path = tmp_path / "tone.wav"
    path.write_bytes(b"old")
    tone().save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tone.wav"]
    assert path.read_bytes()[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tone.xyz", "the suffix '.xyz' names no audio format"),
        ("tone", "no suffix names no audio format"),
    ],
)
def test_an_unknown_suffix_is_wrong_usage_and_writes_nothing(tmp_path: Path, name, message):
    with pytest.raises(UsageError) as caught:
        tone().save(tmp_path / name)
    assert caught.value.what == f"{tmp_path / name}: {message}"
    assert caught.value.hint == "suffixes: .wav, .flac, .ogg, .opus, .mp3, .pcm, .raw"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_of_bytes_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        tone().to_bytes("aiff")
    assert caught.value.hint == f"formats: {', '.join(AUDIO_FORMATS)}"


def test_empty_audio_is_refused(tmp_path: Path):
    with pytest.raises(AudioError, match="no audio to write"):
        Audio(np.zeros(0, np.float32), 24000).save(tmp_path / "empty.wav")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(OutputError, match="missing"):
        tone().save(tmp_path / "missing" / "tone.wav")


def test_joined_audio_has_all_samples_and_the_sum_of_the_reports():
    def report(first: float) -> Report:
        stages = dict.fromkeys(STAGE_NAMES, 1.0)
        return Report(0.5, first, stages, 12, 1, 1, (f"first at {first}",))

    parts = [Audio(np.full(12000, k, np.float32), 24000, report(k)) for k in (1, 2, 3)]
    whole = join(parts)
    assert whole.seconds == 1.5
    assert whole.samples[[0, 12000, 24000]].tolist() == [1, 2, 3]
    assert whole.report == Report(
        seconds_audio=1.5,
        first_audio_s=1,
        stages=dict.fromkeys(STAGE_NAMES, 3.0),
        speech_tokens=36,
        sentences=3,
        retries=3,
        warnings=("first at 1", "first at 2", "first at 3"),
    )
    assert whole.report.seconds_computing == 12.0


@given(st.integers(0, 2000))
def test_a_fade_starts_and_ends_near_zero_and_leaves_the_middle(length):
    samples = np.ones(length, np.float32)
    faded = fade_edges(samples, 24000)
    assert len(faded) == length
    assert np.all(samples == 1)
    if length >= 300:
        assert faded[0] == faded[-1] < 0.005
        assert np.all(faded[120:-120] == 1)
        assert np.all(np.diff(faded[:120]) > 0)


@given(st.integers(1, 60), st.floats(0.5, 2.0))
def test_speed_divides_the_frames_and_stays_between_the_values(frames, speed):
    mel = np.random.default_rng(frames).normal(size=(80, frames)).astype(np.float32)
    changed = change_speed(mel, speed)
    assert changed.shape == (80, max(1, int(frames / speed)))
    assert changed.dtype == np.float32
    assert changed.min() >= mel.min() - 1e-6
    assert changed.max() <= mel.max() + 1e-6


def test_the_normal_speed_changes_nothing():
    mel = np.random.default_rng(0).normal(size=(80, 9)).astype(np.float32)
    assert change_speed(mel, 1.0) is mel


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
def test_speed_interpolates_as_torch_does(speed):
    torch = pytest.importorskip("torch")
    mel = np.random.default_rng(1).normal(size=(80, 141)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(mel)[None], size=int(141 / speed), mode="linear"
    )[0].numpy()
    assert np.abs(change_speed(mel, speed) - expected).max() < 2e-6


@pytest.mark.parametrize("speed", [0.49, 2.01, -1.0, float("nan"), float("inf")])
def test_a_speed_outside_the_range_is_wrong_usage(speed):
    with pytest.raises(UsageError, match=r"is outside 0\.5 to 2"):
        check_speed(speed)
