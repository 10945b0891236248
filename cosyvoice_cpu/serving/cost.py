"""What a request will cost, predicted from its text and from how fast the last ones went."""

from __future__ import annotations

import threading

from cosyvoice_cpu.frontend.writing_systems import counts_in_characters

# Of what is written with one sign a syllable, and of letters: about what people speak.
_SECONDS_PER_SYLLABLE_SIGN = 0.24
_SECONDS_PER_LETTER = 0.07
_NEWEST = 0.2  # weight of the newest request in the mean
_FIRST_RTF = 1.0  # until something was spoken
_LEAST_SECONDS = 0.5  # of audio


class CostModel:
    """Seconds of computing on one worker. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rtf: float | None = None
        self._scale = 1.0  # audio as it came to audio as predicted

    @property
    def rtf(self) -> float:
        """Exponential mean of the seconds of computing per second of audio."""
        with self._lock:
            return _FIRST_RTF if self._rtf is None else self._rtf

    def seconds_audio(self, text: str, speed: float = 1.0) -> float:
        """Of `text`, predicted."""
        with self._lock:
            return self._scale * _seconds_by_length(text, speed)

    def seconds_computing(self, text: str, speed: float = 1.0) -> float:
        """Of `text`, predicted."""
        return self.seconds_audio(text, speed) * self.rtf

    def learn(self, text: str, speed: float, seconds_audio: float, seconds: float) -> None:
        """From a finished request of `seconds_audio` that took `seconds` of a worker's time."""
        if seconds_audio <= 0:
            return
        rtf = seconds / seconds_audio
        scale = seconds_audio / _seconds_by_length(text, speed)
        with self._lock:
            if self._rtf is None:
                self._rtf = rtf
                return  # the first is the warm-up, whose few words are no measure of length
            self._rtf += _NEWEST * (rtf - self._rtf)
            self._scale += _NEWEST * (scale - self._scale)


def _seconds_by_length(text: str, speed: float) -> float:
    by_sign = counts_in_characters(text)
    each = _SECONDS_PER_SYLLABLE_SIGN if by_sign else _SECONDS_PER_LETTER
    return max(_LEAST_SECONDS, each * len(text.strip())) / speed
