"""What a request will cost, predicted from its text and from how fast the last ones went."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple

from cosyvoice_cpu.frontend.writing_systems import counts_in_characters

# Of what is written with one sign a syllable, and of letters: about what people speak.
_SECONDS_PER_SYLLABLE_SIGN = 0.24
_SECONDS_PER_LETTER = 0.07
_NEWEST = 0.2  # weight of the newest request in a mean
_FIRST_RTF = 1.0  # until something was spoken
_LEAST_SECONDS = 0.5  # of audio


class Spent(NamedTuple):
    """Seconds of audio, and of a worker's time that they took."""

    seconds_audio: float
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Seconds of computing on one worker, as expected."""

    seconds: float
    first_seconds: float  # of these until there is sound
    rtf_after: float  # of the rest


class _Mean:
    """Exponential, but for the first value: it is the warm-up's, in which graphs are opened."""

    def __init__(self) -> None:
        self._count = 0
        self.value: float | None = None

    def add(self, value: float) -> None:
        self._count += 1
        if self.value is None or self._count <= 2:
            self.value = value
        else:
            self.value += _NEWEST * (value - self.value)


class CostModel:
    """Expectations of a server's requests. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rtf, self._first, self._rtf_after = _Mean(), _Mean(), _Mean()
        self._scale = 1.0  # audio as it came to audio as predicted
        self._is_warm = False

    @property
    def rtf(self) -> float:
        """Mean of the seconds of computing per second of audio."""
        with self._lock:
            return _FIRST_RTF if self._rtf.value is None else self._rtf.value

    def seconds_audio(self, text: str, speed: float = 1.0) -> float:
        """Of `text`, predicted."""
        with self._lock:
            return self._scale * _seconds_by_length(text, speed)

    def expected(self, text: str, speed: float = 1.0) -> Cost:
        """Of `text`; its sound may come a piece at a time."""
        seconds = self.seconds_audio(text, speed) * self.rtf
        with self._lock:
            first, after = self._first.value, self._rtf_after.value
        return Cost(
            seconds,
            seconds if first is None else min(first, seconds),
            self.rtf if after is None else after,
        )

    def learn(self, text: str, speed: float, whole: Spent, first: Spent | None = None) -> None:
        """From a finished request, and its first sound if that came before the rest."""
        if whole.seconds_audio <= 0:
            return
        with self._lock:
            self._rtf.add(whole.seconds / whole.seconds_audio)
            if first is not None:
                self._first.add(first.seconds)
                if (after := whole.seconds_audio - first.seconds_audio) > _LEAST_SECONDS:
                    self._rtf_after.add((whole.seconds - first.seconds) / after)
            if self._is_warm:
                scale = whole.seconds_audio / _seconds_by_length(text, speed)
                self._scale += _NEWEST * (scale - self._scale)
            self._is_warm = True  # a warm-up's few words are no measure of length


def _seconds_by_length(text: str, speed: float) -> float:
    by_sign = counts_in_characters(text)
    each = _SECONDS_PER_SYLLABLE_SIGN if by_sign else _SECONDS_PER_LETTER
    return max(_LEAST_SECONDS, each * len(text.strip())) / speed
