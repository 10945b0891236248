"""A server in this process on a free port of loopback, and a synthesizer that obeys a script."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.serving.app import make_app
from cosyvoice_cpu.serving.records import RecordLog
from cosyvoice_cpu.serving.server import Server, address, bind
from cosyvoice_cpu.serving.settings import Settings
from cosyvoice_cpu.serving.speech import SpeechService
from cosyvoice_cpu.serving.voices import Uploads, Voices
from cosyvoice_cpu.serving.worker_pool import WorkerPool
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.report import STAGE_NAMES, Report

TIMEOUT = 20.0  # seconds; no test waits for longer
RATE = 24000
BLOCK_SECONDS = 0.25  # of a word


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * RATE)) / 10)).astype(np.float32)


class ScriptedStream:
    """As `AudioStream`: it may be closed while another thread reads it."""

    def __init__(self, blocks: Generator[Audio, None, None]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[Audio]:
        return self._blocks

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._blocks.close()


class ScriptedSynthesizer:
    """Each word is a block of sound; some words do more.

    "wait" waits until `go` is set, "fail" fails as a model does, "crash" as a bug does.
    """

    sample_rate = RATE

    def __init__(self) -> None:
        self.go = threading.Event()
        self.waiting = threading.Semaphore(0)  # released at each "wait"
        self.calls: list[tuple[str, str | None, dict[str, Any]]] = []
        self.words: list[str] = []  # in the order in which they were spoken
        self.closed: list[str] = []  # texts whose streams ended, however

    def count_text_ids(self, text: str) -> int:
        return len(text.split())

    def stream(self, text: str, speaker: str | None = None, **options: Any) -> ScriptedStream:
        self.calls.append((text, speaker, options))
        if "unreadable" in text:
            raise TextError("there is nothing to speak", "give at least one letter")
        return ScriptedStream(self._speak(text, options.get("progress") or (lambda *_: None)))

    pieces = stream

    def _speak(self, text: str, progress: Callable[..., None]) -> Generator[Audio, None, None]:
        words = text.split()
        try:
            for number, word in enumerate(words):
                progress("speech_lm", 0.0, 0.0)
                if word == "wait":
                    self.waiting.release()
                    assert self.go.wait(TIMEOUT)
                if word == "fail":
                    raise SynthesisError("nothing but silence came", "try another seed")
                if word == "crash":
                    raise RuntimeError("a bug in /secret/path")
                self.words.append(word)
                stages = dict.fromkeys(STAGE_NAMES, 0.0)
                last = number == len(words) - 1
                report = Report(BLOCK_SECONDS, 0.0, stages, 6, 1, 0, (), last)
                yield Audio(tone(BLOCK_SECONDS), RATE, report)
        finally:
            self.closed.append(text)


@dataclass
class Served:
    """A server that runs."""

    url: str
    service: SpeechService
    server: Server
    log: io.StringIO = field(repr=False)
    key: str | None = None
    wyoming_port: int = 0

    def client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.Client(base_url=self.url, timeout=TIMEOUT, headers=headers)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does without telling."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@contextmanager
def serving(
    synthesizer: Any,
    folders: list[Path],
    uploads: Uploads | None = None,
    pool: WorkerPool | None = None,
    **options: Any,
) -> Iterator[Served]:
    """A server on `synthesizer`, warm, whose voices are the files in `folders`.

    With a `pool` its processes speak.
    """
    settings = Settings(port=0, **options)
    settings.check()
    log = io.StringIO()
    service = SpeechService(
        synthesizer, Voices(folders, uploads), settings, ("default", "fast"), pool=pool
    )
    listening = threading.Event()
    with bind("127.0.0.1", 0) as listener, bind("127.0.0.1", 0) as wyoming:
        lines = RecordLog(log)
        app = make_app(service, model="demo", created=0, log_lines=lines, wyoming=wyoming)
        server = Server(app, service, on_listening=listening.set)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert listening.wait(TIMEOUT)
            assert service.warmed.wait(TIMEOUT)
            found = Served(address(listener), service, server, log, settings.api_key)
            found.wyoming_port = wyoming.getsockname()[1]
            yield found
        finally:
            if isinstance(synthesizer, ScriptedSynthesizer):
                synthesizer.go.set()
            server.handle_exit(0, None)
            server.handle_exit(0, None)
            thread.join(TIMEOUT)
            assert not thread.is_alive()
