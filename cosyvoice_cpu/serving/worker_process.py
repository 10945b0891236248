"""A process that speaks for a server: one block at a time, of whichever request it is asked for.

    python -m cosyvoice_cpu.serving.worker_process

Its weights are mapped files, so several of them share one copy (`runtime.prepacked_graphs`).
Messages come on stdin and leave on what was stdout (`serving.worker_messages`); whatever libraries
print goes to stderr. It ends with stdin, so none outlives its server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, cast

from cosyvoice_cpu.errors import CosyVoiceError, first_line
from cosyvoice_cpu.serving.worker_messages import (
    Block,
    Close,
    Done,
    Failed,
    Next,
    Open,
    Ready,
    Setup,
    read_to_worker,
    write,
)
from cosyvoice_cpu.stage_api import Cancelled
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.synthesizer import SpeakOptions, Synthesizer

log = logging.getLogger(__name__)


class _Request:
    """A request that was begun here. Cancelled by the thread that reads messages."""

    def __init__(self, synthesizer: Synthesizer, given: Open) -> None:
        self._synthesizer, self._given = synthesizer, given
        self._cancelled = threading.Event()
        self._audio: Iterator[Audio] | None = None

    def next(self) -> Audio | None:
        """The next block; None at the end. Raises: what speaking raises."""
        try:
            if self._audio is None:
                self._audio = self._open()
            self._check()
            return next(self._audio, None)
        except Cancelled:
            return None

    def cancel(self) -> None:
        """End it after the kernel that runs, without waiting for that."""
        self._cancelled.set()
        if not self._given.is_whole:
            with contextlib.suppress(ValueError):  # a plain generator that runs: it looks by itself
                self.close()

    def close(self) -> None:
        """Free what it holds."""
        close = getattr(self._audio, "close", None)
        if close is not None:
            close()

    def _open(self) -> Iterator[Audio]:
        given = self._given
        options = cast("SpeakOptions", {**given.options, "progress": lambda *_: self._check()})
        if given.is_whole:
            return self._synthesizer.pieces(given.text, given.speaker, **options)
        return self._synthesizer.stream(given.text, given.speaker, workers=0, **options)

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled


def answer(synthesizer: Synthesizer, source: BinaryIO, target: BinaryIO) -> None:
    """Do what the messages of `source` say, until it ends."""
    requests: dict[int, _Request] = {}
    waiting: queue.SimpleQueue[Next | Close | None] = queue.SimpleQueue()

    def read() -> None:
        while (message := read_to_worker(source)) is not None:
            if isinstance(message, Open):
                requests[message.request] = _Request(synthesizer, message)
            elif isinstance(message, Next | Close):
                if isinstance(message, Close) and message.request in requests:
                    requests[message.request].cancel()
                waiting.put(message)
        for request in list(requests.values()):
            request.cancel()
        waiting.put(None)

    threading.Thread(target=read, name="messages", daemon=True).start()
    while (message := waiting.get()) is not None:
        if isinstance(message, Next):
            _answer(requests.get(message.request), message.request, target)
        elif request := requests.pop(message.request, None):
            with contextlib.suppress(Exception):
                request.close()


def _answer(request: _Request | None, number: int, target: BinaryIO) -> None:
    """The next block of a request, its end, or its error. Raises: OSError if nobody reads."""
    try:
        audio = request.next() if request else None
    except CosyVoiceError as error:
        write(target, Failed(number, type(error).__name__, error.what, error.hint))
    except Exception as error:
        log.exception("a request failed")
        write(target, Failed(number, "", f"{type(error).__name__}: {first_line(error)}", ""))
    else:
        if audio is None:
            write(target, Done(number))
        else:
            report = asdict(audio.report) if audio.report else None
            write(target, Block(number, audio.sample_rate, report), audio.samples.tobytes())


def speak_for_server(source: BinaryIO, target: BinaryIO) -> None:
    """Load what the first message says, then answer."""
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages

    setup = read_to_worker(source)
    if not isinstance(setup, Setup):
        return
    try:
        path, engines = Path(setup.bundle), setup.engines
        stages = BundleStages.load(path, setup.threads, trust=setup.trust, engines=engines)
        synthesizer = Synthesizer.of_bundle(stages, speakers=setup.speakers)
    except CosyVoiceError as error:
        write(target, Failed(0, type(error).__name__, error.what, error.hint))
        return
    write(target, Ready())
    answer(synthesizer, source, target)


def pipes() -> tuple[BinaryIO, BinaryIO]:
    """Where messages come from and go to; what is printed goes to stderr from now on.

    Signals to stop are the server's: a terminal's and a service manager's reach all processes.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return sys.stdin.buffer, target


def main() -> None:
    """Speak until the server ends."""
    from cosyvoice_cpu.system.heaps import share_one_heap

    share_one_heap()
    with contextlib.suppress(BrokenPipeError):
        speak_for_server(*pipes())


if __name__ == "__main__":
    main()
