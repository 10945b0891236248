"""Reading an audio file back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyvoice_cpu.errors import AudioError
from tools.read_back import main, read_back


class Recogniser:
    languages = frozenset({"en"})

    def transcribe(self, wave16k: np.ndarray) -> str:
        assert len(wave16k) == 16000
        return "a small goat came to home"


def test_words_that_are_others_more_and_missing_are_counted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(24000), 24000)
    lines = read_back(
        tmp_path / "a.wav", "A small boat came home today.", Recogniser()
    ).splitlines()
    assert lines[0] == "a small goat came to home"
    assert lines[1].startswith("3 of 6 words wrong (50.0%)")
    assert lines[1].endswith("; 1.0 s")


def test_audio_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 181, np.int16), 16000)
    with pytest.raises(AudioError, match="lasts 180 s or more"):
        read_back(tmp_path / "long.wav", "words", Recogniser())


def test_a_missing_text_is_named_in_two_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "a.wav"), "--text-file", str(tmp_path / "none.txt")]) == 2
    assert "none.txt can't be read" in capsys.readouterr().err
