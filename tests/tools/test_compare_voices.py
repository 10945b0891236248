"""Similarity of spoken voices to clips of the same speaker and of others."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from cosyvoice_cpu.errors import UsageError
from tools.compare_voices import (
    clips_by_speaker,
    compare_voices,
    main,
    to_csv,
    to_markdown,
)

RATE = 16_000


class ByPitch:
    """An encoder that takes the strongest frequency for the voice."""

    name = "pitch"
    independent = True

    def embed(self, wave16k):
        if np.abs(wave16k).max() == 0:
            return None
        bins = np.abs(np.fft.rfft(wave16k))
        return np.eye(16, dtype=np.float32)[int(bins.argmax() * RATE / len(wave16k) / 100)]


def _tone(pitch, seconds=1.0):
    return np.sin(2 * np.pi * pitch * np.arange(int(RATE * seconds)) / RATE).astype(np.float32) / 2


@pytest.fixture
def clips(tmp_path):
    for name, pitch in (("anna", 210), ("bert", 110), ("carl", 330)):
        (tmp_path / name).mkdir()
        for number in range(3):
            soundfile.write(tmp_path / name / f"{number}.wav", _tone(pitch), RATE)
    return tmp_path


def _copy_of(clip):
    samples, _ = soundfile.read(clip, dtype="float32")
    return [samples, samples]


def test_a_voice_that_is_copied_is_like_its_own_clips_and_unlike_others(clips):
    spreads = compare_voices(_copy_of, clips_by_speaker(clips), ByPitch(), ["anna", "bert"])
    found = {(s.speaker, s.pairs): s.cosines for s in spreads}
    assert len(found["anna", "same speaker"]) == 2 * 2
    assert len(found["anna", "other speakers"]) == 2 * 4
    for name in ("anna", "bert", "clips"):
        assert (found[name, "same speaker"] == 1).all(), name
        assert (found[name, "other speakers"] == 0).all(), name


def test_the_prompt_clip_itself_is_not_what_speech_is_compared_with(clips):
    soundfile.write(clips / "anna" / "0.wav", _tone(550), RATE)
    spreads = compare_voices(_copy_of, clips_by_speaker(clips), ByPitch(), ["anna"])
    assert (spreads[0].cosines == 0).all()


def test_one_voice_for_all_prompts_shows_as_no_difference(clips):
    spreads = compare_voices(
        lambda clip: [_tone(770)], clips_by_speaker(clips), ByPitch(), ["anna", "bert"]
    )
    assert all(spread.cosines.max() == 0 for spread in spreads if spread.speaker != "clips")


def test_the_table_has_a_row_per_kind_of_pairs_and_the_list_one_per_pair(clips):
    spreads = compare_voices(_copy_of, clips_by_speaker(clips), ByPitch(), ["anna"])
    rows = [line for line in to_markdown(spreads, "pitch").splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[1] for row in rows[1:]] == ["same speaker", "other speakers"] * 2
    assert "| anna | same speaker | 4 | 1.000 | 1.000 to 1.000 |" in rows[1]
    assert len(to_csv(spreads).splitlines()) == 1 + sum(len(s.cosines) for s in spreads)


def test_speakers_with_one_clip_do_not_count(clips):
    (clips / "dora").mkdir()
    soundfile.write(clips / "dora" / "0.wav", _tone(440), RATE)
    assert sorted(clips_by_speaker(clips)) == ["anna", "bert", "carl"]


@pytest.mark.parametrize("missing", ["nowhere", "anna"])
def test_a_folder_without_two_speakers_is_refused(clips, missing):
    with pytest.raises(UsageError, match=r"folder|speaker"):
        clips_by_speaker(clips / missing)


def test_a_speaker_without_clips_is_named(clips):
    with pytest.raises(UsageError, match="emil"):
        compare_voices(_copy_of, clips_by_speaker(clips), ByPitch(), ["emil"])


def test_silent_clips_are_named(clips):
    soundfile.write(clips / "bert" / "2.wav", np.zeros(RATE, np.float32), RATE)
    with pytest.raises(UsageError, match=r"2\.wav"):
        compare_voices(_copy_of, clips_by_speaker(clips), ByPitch(), ["anna"])


def test_the_command_says_in_two_lines_what_is_wrong(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "none"), "--output", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "out").exists()
