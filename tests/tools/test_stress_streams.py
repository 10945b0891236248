"""That the program sees what a cancelled stream leaves behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import psutil
import pytest

from cosyvoice_cpu import Synthesizer
from tools.stress_streams import _cancelled

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

_STREAMS = 40


class Endless:
    """A stream that gives nothing until it is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[object]:
        self._closed.wait(10)
        return iter(())

    def close(self) -> None:
        self._closed.set()


class Streams:
    """If it `leaks`, all together keep a fifth of what the process has, whatever ran before."""

    def __init__(self, *, leaks: bool) -> None:
        self._leaks, self._kept = leaks, list[Any]()
        self._bytes = psutil.Process().memory_info().rss // 5 // _STREAMS

    def stream(self, text: str, speaker: str, workers: int) -> Endless:
        array = np.ones(self._bytes, np.uint8)
        if self._leaks:
            self._kept.append(array)
        return Endless()


@pytest.mark.parametrize(("leaks", "problems"), [(False, []), (True, ["memory grew"])])
def test_memory_that_streams_leave_behind_is_told(leaks: bool, problems: list[str]) -> None:
    synthesizer = cast(Synthesizer, Streams(leaks=leaks))
    assert _cancelled(synthesizer, "anna", _STREAMS, seconds=0.002) == problems
