"""A worker process whose synthesizer obeys a script: each word is a block of sound.

"die" ends the process as a kill does, "fail" fails as a model does, "crash" as a bug does,
"unreadable" is no text. "wait:PATH" waits for whoever opens the named pipe PATH for writing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cosyvoice_cpu.errors import BundleError, SynthesisError, TextError
from cosyvoice_cpu.serving.worker_messages import Failed, Ready, read_to_worker, write
from cosyvoice_cpu.serving.worker_process import answer, pipes
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.report import STAGE_NAMES, Report

COMMAND = (sys.executable, __file__)
RATE = 24000
BLOCK = 2400  # samples of a word


def sound(word: str) -> np.ndarray:
    """What a word sounds like: every word differently."""
    return np.full(BLOCK, sum(word.encode()) % 97 / 100, np.float32)


class Scripted:
    """As a `Synthesizer`."""

    def stream(self, text: str, speaker: str | None, **options: Any) -> Iterator[Audio]:
        if "unreadable" in text:
            raise TextError("there is nothing to speak", "give at least one letter")
        return self._speak(text.split(), options["progress"])

    pieces = stream

    def _speak(self, words: list[str], progress: Any) -> Iterator[Audio]:
        for number, word in enumerate(words):
            progress("speech_lm", 0.0, 0.0)
            if word == "die":
                os.kill(os.getpid(), 9)
            if word == "fail":
                raise SynthesisError("nothing but silence came", "try another seed")
            if word == "crash":
                raise ValueError("a bug")
            if word.startswith("wait:"):
                Path(word[5:]).read_bytes()
            stages = dict.fromkeys(STAGE_NAMES, 0.0)
            last = number == len(words) - 1
            report = Report(BLOCK / RATE, 0.0, stages, 6, 1, 0, ("a warning",), last)
            yield Audio(sound(word), RATE, report)


if __name__ == "__main__":
    source, target = pipes()
    setup = read_to_worker(source)
    if getattr(setup, "bundle", "") == "missing":
        refused = BundleError("there is no bundle missing", "make one")
        write(target, Failed(0, "BundleError", refused.what, refused.hint))
    elif getattr(setup, "bundle", "") != "broken":
        write(target, Ready())
        answer(Scripted(), source, target)  # type: ignore[arg-type]
