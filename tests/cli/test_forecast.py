"""What is said about the length of a long text."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.cli.forecast import Forecast, in_words


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def told(calls: list[tuple[float, float, float]]) -> list[str]:
    """What is said when `calls` come: (seconds passed, share done, seconds of audio)."""
    lines: list[str] = []
    clock = Clock()
    forecast = Forecast(lines.append, clock)
    for passed, done, audio in calls:
        clock.seconds = 100 + passed
        forecast(done, audio)
    return lines


def test_a_long_text_s_audio_and_work_are_told_once_behind_its_first_sound() -> None:
    calls = [(2, 0.0, 0.0), (3, 0.01, 0.0), (8, 0.01, 4.0), (16, 0.02, 8.0)]
    [line] = told(calls)
    assert line == ("about 7 min of audio, which takes about 13 min and is written as it is made")


def test_a_short_text_is_spoken_without_a_word() -> None:
    assert told([(4, 0.1, 3.0), (40, 1.0, 30.0)]) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.6, "1 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (5969, "99 min"),
        (6000, "1.7 h"),
        (36000, "10 h"),
    ],
)
def test_durations_have_two_digits_at_most(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
