"""What is logged of a request: one JSON object on one line, without its text unless asked."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, TextIO

from cosyvoice_cpu.serving.job import Job
from cosyvoice_cpu.serving.speech import Speech

_STATE_KEY = "cosyvoice_record"


@dataclass
class Record:
    """One request, from its arrival on; `facts` are added by who knows them."""

    request_id: str
    method: str
    path: str
    client: str | None
    facts: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def add_speech(self, speech: Speech, with_text: bool) -> None:
        """What is to be said, but for its words."""
        self.facts |= {
            "voice": speech.voice,
            "format": speech.audio_format,
            "characters": len(speech.text),
        }
        if with_text:
            self.facts["text"] = speech.text

    def add_job(self, job: Job) -> None:
        """How it went; several jobs of one request are added up."""
        times = job.times
        if "first_audio_s" not in self.facts and times.first_block is not None:
            self.facts["first_audio_s"] = round(times.first_block - times.submitted, 4)
        for name, seconds in (
            ("seconds_audio", job.seconds_audio),
            ("seconds_computing", times.computing),
        ):
            self.facts[name] = round(self.facts.get(name, 0.0) + seconds, 4)
        if reason := job.why_cancelled or job.error:  # a worker may still be about to notice
            self.facts["ended"] = str(reason)[:200]

    def line(self, status: int) -> str:
        """JSON in ASCII, on one line."""
        return json.dumps(
            {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "id": self.request_id,
                "client": self.client,
                "method": self.method,
                "path": self.path,
                "status": status,
                "seconds": round(time.monotonic() - self.started, 4),
                **self.facts,
            }
        )


class RecordLog:
    """Writes lines to a stream; a stream that is full or closed stops nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """`stream` None is stderr, as it is at each line."""
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        """One line."""
        stream = self._stream if self._stream is not None else sys.stderr
        with self._lock, contextlib.suppress(OSError, ValueError):
            print(line, file=stream, flush=True)


def record_of(scope: Any) -> Record:
    """The record of an ASGI scope, which the gate put there."""
    record = scope["state"][_STATE_KEY]
    assert isinstance(record, Record)
    return record


def keep_record(scope: Any, record: Record) -> None:
    """Put `record` into an ASGI scope."""
    scope.setdefault("state", {})[_STATE_KEY] = record
