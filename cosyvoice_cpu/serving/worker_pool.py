"""Worker processes of a server: each speaks several requests in turn, and is replaced if it dies.

    with WorkerPool(Setup("voice/", 1, None, False), count=2) as pool:
        for audio in pool.seat(0).stream("Hello.", "anna"):
            ...

Requests are bound to the seat on which they began; who asks decides which (`serving.engine_room`).
A process that ends takes its own requests with it, each gets a `WorkerLostError`, and another one
sits down. Nothing is polled: a thread per process reads its messages and finds their end.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from cosyvoice_cpu import errors
from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.worker_messages import (
    Block,
    Close,
    Done,
    Failed,
    FromWorker,
    Next,
    Open,
    Ready,
    Setup,
    ToWorker,
    read_from_worker,
    write,
)
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.report import Report

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "cosyvoice_cpu.serving.worker_process")
_STOP_SECONDS = 5.0  # that a process gets to end by itself

Reply = tuple[FromWorker, bytes]
Replies = queue.SimpleQueue[Reply | None]
"""What came of a request; None once its process is gone."""


class WorkerLostError(CosyVoiceError):
    """The process that spoke a request ended before the request did."""


class RemoteAudio(Iterator[Audio]):
    """The audio of one request in a worker process, as `AudioStream`."""

    def __init__(
        self, process: _Process, given: Open, progress: Callable[..., object] | None
    ) -> None:
        self._ended = False
        self._process, self._number, self._progress = process, given.request, progress
        self._replies = process.begin(given)

    def __next__(self) -> Audio:
        if self._ended:
            raise StopIteration
        if self._progress is not None:
            self._progress("", 0.0, 0.0)
        self._process.send(Next(self._number))
        reply = self._replies.get()
        if reply is not None and isinstance(reply[0], Block):
            return _audio(reply[0], reply[1])
        self.close()
        if reply is None:
            raise self._process.loss()
        if isinstance(reply[0], Failed):
            raise _error(reply[0])
        raise StopIteration

    def close(self) -> None:
        """End the work after the kernel that runs; from any thread, any number of times."""
        if not self._ended:
            self._ended = True
            self._process.end(self._number)

    def __del__(self) -> None:
        self.close()


class _Process:
    """One process from its start to its end, and the thread that reads its messages."""

    def __init__(
        self, command: Sequence[str], setup: Setup, on_end: Callable[[_Process], None]
    ) -> None:
        """`on_end` is called by the thread when the process has ended."""
        self._on_end = on_end
        self._lock = threading.Lock()
        self._replies: dict[int, Replies] = {}
        self._first: Replies = queue.SimpleQueue()
        self.is_ready = self.has_ended = False
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self._thread = threading.Thread(target=self._read, name=f"worker-{self.pid}", daemon=True)
        self._thread.start()
        self.send(setup)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Raises: what kept it from loading, WorkerLostError if it ended."""
        reply = self._first.get()
        self._first.put(reply)  # for who else asks
        if reply is None:
            raise self.loss()
        if isinstance(reply[0], Failed):
            raise _error(reply[0])

    def begin(self, given: Open) -> Replies:
        """Where the replies to a new request will be."""
        replies: Replies = queue.SimpleQueue()
        with self._lock:
            if self.has_ended:
                replies.put(None)
            else:
                self._replies[given.request] = replies
        self.send(given)
        return replies

    def end(self, request: int) -> None:
        """The request is not wanted any more."""
        with self._lock:
            known = self._replies.pop(request, None)
        if known is not None:
            self.send(Close(request))
            known.put((Done(request), b""))  # for a reader in another thread

    def send(self, message: ToWorker) -> None:
        """To the process; if it is gone, the thread finds out."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            write(self._to, message)

    def loss(self) -> WorkerLostError:
        """How it ended."""
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self.is_ready:
            return WorkerLostError(
                f"a worker process ended ({how}) before it had loaded", "its words are in the log"
            )
        return WorkerLostError(
            f"the worker process that spoke this ended ({how})",
            "ask again: another one has taken its place",
        )

    def stop(self, timeout: float) -> None:
        """Let it end, or end it after `timeout` seconds."""
        with self._lock, contextlib.suppress(OSError):
            self._to.close()
        self._end_process(timeout)
        self._thread.join()

    def _end_process(self, timeout: float = 1.0) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        with contextlib.suppress(Exception):  # a message that is none: it can't be relied on
            while (reply := read_from_worker(self._from)) is not None:
                self._pass_on(*reply)
        self._end_process()
        with self._lock:
            self.has_ended = True
            replies, self._replies = self._replies, {}
            with contextlib.suppress(OSError):
                self._to.close()
        self._from.close()
        for waiting in (self._first, *replies.values()):
            waiting.put(None)
        self._on_end(self)

    def _pass_on(self, message: FromWorker, content: bytes) -> None:
        if isinstance(message, Ready):
            self.is_ready = True
            self._first.put((message, content))
        elif isinstance(message, Failed) and message.request == 0:
            self._first.put((message, content))
        else:
            with self._lock:
                waiting = self._replies.get(message.request)
            if waiting is not None:
                waiting.put((message, content))


class Seat:
    """The place of a worker process; it speaks like a `Synthesizer`."""

    def __init__(self, start: Callable[[Callable[[_Process], None]], _Process]) -> None:
        self._start = start
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False
        self.restarts = 0
        self._process = start(self._ended)

    def stream(
        self, text: str, speaker: str | None = None, *, workers: int | None = 0, **options: Any
    ) -> RemoteAudio:
        """As `Synthesizer.stream`; `workers` is not used, the process is the worker.

        What is wrong with the request is raised when the first block is asked for.
        """
        return self._open(text, speaker, False, options)

    def pieces(self, text: str, speaker: str | None = None, **options: Any) -> RemoteAudio:
        """As `Synthesizer.pieces`."""
        return self._open(text, speaker, True, options)

    @property
    def pid(self) -> int:
        """The number of the process that sits here now."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Raises: what kept the process from loading."""
        self._process.wait_until_ready()

    def close(self) -> None:
        """Nobody sits here any more."""
        with self._lock:
            self._closed = True
        self._process.stop(_STOP_SECONDS)

    def _open(
        self, text: str, speaker: str | None, is_whole: bool, options: dict[str, Any]
    ) -> RemoteAudio:
        progress = options.pop("progress", None)
        with self._lock:
            if self._process.has_ended and not self._closed:
                self._process = self._start(self._ended)  # it could not even load before
            process = self._process
        given = Open(next(self._numbers), text, speaker, is_whole, options)
        return RemoteAudio(process, given, progress)

    def _ended(self, process: _Process) -> None:
        with self._lock:
            if self._closed:
                return
            log.error("%s", process.loss().what)
            self.restarts += 1
            if process.is_ready:  # else the next would end likewise: a request starts it
                self._process = self._start(self._ended)


class WorkerPool:
    """Seats with a worker process each."""

    def __init__(self, setup: Setup, count: int, command: Sequence[str] = COMMAND) -> None:
        """Start `count` processes and wait until they have loaded.

        Raises: what kept one of them from loading.
        """
        self._seats = [Seat(lambda on_end: _Process(command, setup, on_end)) for _ in range(count)]
        try:
            for seat in self._seats:
                seat.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, number: int) -> Seat:
        """The seat of that number, from 0."""
        return self._seats[number]

    @property
    def restarts(self) -> int:
        """How many processes ended unasked."""
        return sum(seat.restarts for seat in self._seats)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        return [seat.pid for seat in self._seats]

    def close(self) -> None:
        """End all processes; those that don't within seconds are killed."""
        closing = [threading.Thread(target=seat.close) for seat in self._seats]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _audio(block: Block, content: bytes) -> Audio:
    report = None
    if block.report is not None:
        report = Report(**{**block.report, "warnings": tuple(block.report["warnings"])})
    return Audio(np.frombuffer(content, np.float32), block.sample_rate, report)


def _error(failed: Failed) -> Exception:
    """The error as it was raised in the worker."""
    kind = getattr(errors, failed.kind, None) if failed.kind else None
    if isinstance(kind, type) and issubclass(kind, CosyVoiceError):
        return kind(failed.what, failed.hint)
    return RuntimeError(failed.what)
