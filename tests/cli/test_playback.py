"""`synth --play`: what is heard is what is made, and a machine without a sound card says so."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from support.command_line import call

from cosyvoice_cpu import Synthesizer
from cosyvoice_cpu.demo import DEMO_BUNDLE

SPEAKER = "hibari-heart-1"
SAY = ("synth", "Hello.", "--speaker", SPEAKER, "--threads", "1", "--play", "--stream")


class SoundCard(types.ModuleType):
    """Stands for the package sounddevice, whose stream keeps what is played."""

    def __init__(self, fails: str = "") -> None:
        super().__init__("sounddevice")
        self.fails = fails
        self.played: list[np.ndarray] = []
        self.calls: list[str] = []

    def OutputStream(self, samplerate: int, channels: int, dtype: str) -> SoundCard:
        assert (samplerate, channels, dtype) == (24000, 1, "float32")
        if self.fails == "open":
            raise ValueError("no default output device")
        return self

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")

    def write(self, samples: np.ndarray) -> None:
        if self.fails == "write":
            raise ValueError("device unplugged")
        assert samples.shape[1] == 1
        self.played.append(samples[:, 0].copy())


def test_the_sound_card_gets_what_the_library_makes_and_is_played_to_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = SoundCard()
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    outcome = call(*SAY, "--output", tmp_path / "x.wav")
    assert outcome.code == 0, outcome.stderr
    want = Synthesizer.load(DEMO_BUNDLE, threads=1).speak("Hello.", SPEAKER, streaming=True)
    assert np.array_equal(np.concatenate(card.played), want.samples)
    assert card.calls == ["start", "stop", "close"]
    assert (tmp_path / "x.wav").exists()
    assert call(*SAY).stdout.startswith("played: ")  # no file is needed


@pytest.mark.parametrize(
    ("fails", "said"), [("open", "no default output device"), ("write", "device unplugged")]
)
def test_a_sound_card_that_fails_is_said_in_two_lines(
    fails: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = SoundCard(fails)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    outcome = call(*SAY)
    assert outcome.code == 1
    assert f"the sound card can't be used ({said})" in outcome.stderr
    assert "leave --play away" in outcome.stderr
    assert not card.calls or card.calls[-1] == "close"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    outcome = call(*SAY)
    assert outcome.code == 1
    assert 'pip install "cosyvoice-cpu[play]"' in outcome.stderr
