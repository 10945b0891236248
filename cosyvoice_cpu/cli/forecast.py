"""How long a long text will take, said once where no bar shows it."""

from __future__ import annotations

import time
from collections.abc import Callable

_LONG_SECONDS = 60.0  # of work; what is shorter is over before one has read the line


class Forecast:
    """Called as speaking goes on; gives its line to `tell` once, when there is something to go by.

    Not before the first sound: opening graphs and checking files are no measure of the rest.
    """

    def __init__(
        self, tell: Callable[[str], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`clock` gives seconds. The work begins now."""
        self._tell, self._clock = tell, clock
        self._started = clock()
        self._told = False

    def __call__(self, done: float, seconds_audio: float) -> None:
        """`done` is the share of the text that is spoken (0..1), in `seconds_audio` of sound."""
        if self._told or seconds_audio == 0 or done == 0:
            return
        self._told = True
        work = (self._clock() - self._started) / done
        if work >= _LONG_SECONDS:
            self._tell(
                f"about {in_words(seconds_audio / done)} of audio, which takes about"
                f" {in_words(work)} and is written as it is made"
            )


def in_words(seconds: float) -> str:
    """Two digits at most: "50 s", "12 min", "3.5 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 9.95 else f"{hours:.0f} h"
