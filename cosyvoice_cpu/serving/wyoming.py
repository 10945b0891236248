"""Wyoming, the protocol of Home Assistant's voice satellites: a line of JSON, then data, then PCM.

`describe` is answered by `info`; `synthesize`, or `synthesize-start`, `-chunk` and `-stop` for text
that arrives in pieces, by `audio-start`, `audio-chunk` and `audio-stop`. The protocol has no
authentication.
Source: the package `wyoming` (event.py, tts.py, info.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.arriving_text import ArrivingText
from cosyvoice_cpu.serving.errors import RequestError, failure_of, is_ours
from cosyvoice_cpu.serving.records import Record, RecordLog
from cosyvoice_cpu.serving.speech import Speech, SpeechService

log = logging.getLogger(__name__)

_LONGEST_LINE = 64 << 10  # bytes
_LARGEST_PART = 1 << 20  # bytes of data or payload
_CHUNK = 1 << 13  # bytes of PCM in an event; 170 ms
_WIDTH, _CHANNELS = 2, 1
# Those that CosyVoice's authors name; a bundle does not say, and clients list voices by language.
_LANGUAGES = ["zh", "en", "ja", "ko", "de", "es", "fr", "it", "ru"]
_SOURCE = {"name": "cosyvoice-cpu", "url": "https://github.com/FunAudioLLM/CosyVoice"}


@dataclass(frozen=True)
class Event:
    """What goes over the wire; a payload that comes is skipped."""

    kind: str
    data: dict[str, Any]


@asynccontextmanager
async def wyoming_server(
    service: SpeechService, listener: socket.socket, log_lines: RecordLog
) -> AsyncGenerator[None, None]:
    """Answers on `listener` while the block runs; at its end, what is being said is ended."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _Connection(service, reader, writer, log_lines).run()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass  # the client left
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would report a cancelled task as a failure
        except Exception:
            log.exception("a Wyoming connection failed")
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, sock=listener, limit=_LONGEST_LINE)
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event, None at the end. Raises: RequestError for what is none, OSError."""
    try:
        line = await reader.readline()
    except ValueError as error:
        raise RequestError(f"a line exceeds {_LONGEST_LINE >> 10} kB") from error
    if not line:
        return None
    head = _object(line)
    data = head.get("data") or {}
    parts = []
    for name in ("data_length", "payload_length"):
        length = head.get(name) or 0
        if not isinstance(length, int) or not 0 <= length <= _LARGEST_PART:
            raise RequestError(f"{name} is {str(length)[:40]}, at most {_LARGEST_PART} is taken")
        parts.append(await reader.readexactly(length))
    if parts[0]:
        data = {**data, **_object(parts[0])}
    kind = head.get("type")
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise RequestError("an event has a type and data")
    return Event(kind, data)


def event_bytes(kind: str, data: dict[str, Any] | None = None, payload: bytes = b"") -> bytes:
    """An event as it goes over the wire."""
    content = json.dumps(data).encode() if data else b""
    head: dict[str, Any] = {"type": kind, "version": "1.0.0"}
    if content:
        head["data_length"] = len(content)
    if payload:
        head["payload_length"] = len(payload)
    return json.dumps(head).encode() + b"\n" + content + payload


class _Connection:
    def __init__(
        self,
        service: SpeechService,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log_lines: RecordLog,
    ) -> None:
        self._service, self._log = service, log_lines
        self._reader, self._writer = reader, writer
        self._events: asyncio.Queue[Event | CosyVoiceError | None] = asyncio.Queue(100)
        self._text: ArrivingText | None = None  # between synthesize-start and -stop
        self._voice: dict[str, Any] = {}
        self._spoken = 0  # texts since audio-start
        peer = writer.get_extra_info("peername")
        self._client = peer[0] if peer else None

    async def run(self) -> None:
        """Answer events in turn; a client that leaves ends what is being said."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._read()), loop.create_task(self._answer_all())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _read(self) -> None:
        while True:
            try:
                event = await read_event(self._reader)
            except CosyVoiceError as error:
                await self._events.put(error)
                await self._events.put(None)
                await asyncio.Event().wait()  # until the answer ends the connection
            if event is None:
                return
            await self._events.put(event)

    async def _answer_all(self) -> None:
        while (event := await self._events.get()) is not None:
            if isinstance(event, CosyVoiceError):
                await self._send("error", {"text": event.what, "code": "bad-event"})
                continue
            try:
                await self._answer(event)
            except CosyVoiceError as error:
                await self._tell(error)

    async def _answer(self, event: Event) -> None:
        if event.kind == "describe":
            await self._send("info", _info(self._service.voices.names()))
        elif event.kind == "ping":
            await self._send("pong", event.data)
        elif event.kind == "synthesize" and self._text is None:
            self._begin(event)
            await self._say(_text_of(event))
            await self._end_audio()
        elif event.kind == "synthesize-start":
            self._begin(event)
            self._text = ArrivingText()
        elif event.kind == "synthesize-chunk" and self._text is not None:
            for sentence in self._text.add(_text_of(event)):
                await self._say(sentence)
        elif event.kind == "synthesize-stop" and self._text is not None:
            sentences, self._text = self._text.end(), None
            for sentence in sentences:
                await self._say(sentence)
            await self._end_audio()
            await self._send("synthesize-stopped")

    def _begin(self, event: Event) -> None:
        voice = event.data.get("voice")
        self._voice = voice if isinstance(voice, dict) else {}
        self._spoken = 0

    async def _say(self, text: str) -> None:
        """One sentence, or the whole of a `synthesize`. What fails is told; others follow."""
        record = Record(uuid.uuid4().hex, "WYOMING", "synthesize", self._client)
        status = 200
        try:
            speech = self._service.check(
                Speech(
                    text,
                    voice=_string(self._voice, "name"),
                    language=_string(self._voice, "language"),
                    audio_format="pcm",
                )
            )
            record.add_speech(speech, self._service.settings.log_text)
            is_patient = self._spoken > 0
            async with self._service.speaking(speech, is_patient=is_patient) as (job, blocks):
                try:
                    async for block in blocks:
                        if self._spoken == 0:
                            await self._send("audio-start", self._format())
                            self._spoken = 1
                        for start in range(0, len(block.content), _CHUNK):
                            payload = block.content[start : start + _CHUNK]
                            await self._send("audio-chunk", self._format(), payload)
                finally:
                    record.add_job(job)
        except (OSError, asyncio.CancelledError, asyncio.TimeoutError):
            status = 499
            raise
        except Exception as error:
            status = failure_of(error).status
            if is_ours(error):
                log.error("request %s failed", record.request_id, exc_info=error)
            await self._tell(error)
        finally:
            self._log.write(record.line(status))

    async def _end_audio(self) -> None:
        if self._spoken:
            await self._send("audio-stop")

    async def _tell(self, error: Exception) -> None:
        failure = failure_of(error)
        await self._send("error", {"text": failure.message, "code": failure.code or failure.kind})

    def _format(self) -> dict[str, int]:
        return {"rate": self._service.sample_rate, "width": _WIDTH, "channels": _CHANNELS}

    async def _send(
        self, kind: str, data: dict[str, Any] | None = None, payload: bytes = b""
    ) -> None:
        self._writer.write(event_bytes(kind, data, payload))
        await asyncio.wait_for(self._writer.drain(), self._service.settings.stall_seconds)


def _info(voices: list[str]) -> dict[str, Any]:
    def artifact(name: str, description: str) -> dict[str, Any]:
        return {
            "name": name,
            "description": description,
            "attribution": _SOURCE,
            "installed": True,
            "version": __version__,
        }

    listed = [{**artifact(name, name), "languages": _LANGUAGES} for name in voices]
    program = {
        **artifact("cosyvoice-cpu", "CosyVoice on a CPU"),
        "voices": listed,
        "supports_synthesize_streaming": True,
    }
    domains = ("asr", "tts", "handle", "intent", "wake", "mic", "snd")
    return {domain: [program] if domain == "tts" else [] for domain in domains}


def _text_of(event: Event) -> str:
    """Raises: RequestError."""
    text = event.data.get("text")
    if not isinstance(text, str):
        raise RequestError(f"{event.kind} has no text", param="text")
    return text


def _string(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _object(content: bytes) -> dict[str, Any]:
    """Raises: RequestError."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError("an event is no JSON") from error
    if not isinstance(found, dict):
        raise RequestError("an event is no JSON object")
    return found
