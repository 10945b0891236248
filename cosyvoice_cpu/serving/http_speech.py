"""`POST /v1/audio/speech`, as OpenAI has it, sound leaving as it is made."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cosyvoice_cpu.serving.bodies import read_body
from cosyvoice_cpu.serving.encoding import MEDIA_TYPES
from cosyvoice_cpu.serving.errors import RequestError, failure_of, is_ours
from cosyvoice_cpu.serving.gate import BrokenOff, Receive, Scope, Send, log
from cosyvoice_cpu.serving.job import Block, Job
from cosyvoice_cpu.serving.records import record_of
from cosyvoice_cpu.serving.settings import LARGEST_JSON
from cosyvoice_cpu.serving.speech import Speech, SpeechService
from cosyvoice_cpu.serving.speech_body import SpeechBody, decoded


def speech_endpoint(service: SpeechService) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of `service`."""

    async def speech(request: Request) -> Response:
        settings = service.settings
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
        if kind.lower() != "application/json":  # other kinds are what foreign pages may send
            raise RequestError(
                f"the request's type is {kind[:80]!r}", "send application/json", status=415
            )
        content = await read_body(request, LARGEST_JSON, settings.stall_seconds)
        body = decoded(content, SpeechBody)
        is_whole = body.stream is False and not body.is_sse
        wanted = service.check(body.speech(body.input, is_whole=is_whole))
        record = record_of(request.scope)
        record.add_speech(wanted, settings.log_text)
        return SpeechResponse(service, wanted, is_sse=body.is_sse)

    return speech


class SpeechResponse(Response):
    """Speaks while it is sent. The status waits for the first sound, so that errors have one."""

    def __init__(self, service: SpeechService, speech: Speech, *, is_sse: bool) -> None:
        super().__init__()
        self._service, self._speech = service, speech
        self._is_sse = is_sse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises: what prevented the first sound; BrokenOff for what came later."""
        async with self._service.speaking(self._speech) as (job, blocks):
            watcher = asyncio.get_running_loop().create_task(self._watch_client(receive, job))
            try:
                await self._send(send, job, blocks)
            except BrokenOff as error:
                self._service.room.cancel(job, str(error))
                raise
            except Exception as error:
                if watcher.done():  # nobody is there to be told
                    raise BrokenOff from error
                raise
            finally:
                watcher.cancel()
                record_of(scope).add_job(job)

    async def _watch_client(self, receive: Receive, job: Job) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._service.room.cancel(job, "the client left")

    async def _send(self, send: Send, job: Job, blocks: AsyncGenerator[Block, None]) -> None:
        first = (await anext(blocks)).content
        if self._speech.is_whole:
            await self._start(send, len(first))
            await self._part(send, first, more=False)
            return
        await self._start(send)
        await self._part(send, self._framed(first))
        try:
            async for block in blocks:
                await self._part(send, self._framed(block.content))
        except BrokenOff:
            raise
        except Exception as error:
            if not self._is_sse:
                raise
            if is_ours(error):
                log.error("a speech failed on its way", exc_info=error)
            await self._part(send, _event("speech.audio.error", failure_of(error).body), more=False)
            return
        usage = self._service.usage(self._speech, job)
        last = _event("speech.audio.done", {"usage": usage}) if self._is_sse else b""
        await self._part(send, last, more=False)

    async def _start(self, send: Send, length: int | None = None) -> None:
        media_type = MEDIA_TYPES[self._speech.audio_format]
        if self._is_sse:
            media_type = "text/event-stream; charset=utf-8"
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _part(self, send: Send, content: bytes, *, more: bool = True) -> None:
        message = {"type": "http.response.body", "body": content, "more_body": more}
        try:
            await asyncio.wait_for(send(message), self._service.settings.stall_seconds)
        except asyncio.TimeoutError:
            raise BrokenOff("the client does not read") from None

    def _framed(self, content: bytes) -> bytes:
        if not self._is_sse:
            return content
        audio = base64.b64encode(content).decode()
        return _event("speech.audio.delta", {"audio": audio})


def _event(kind: str, content: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + msgspec.json.encode({"type": kind, **content}) + b"\n\n"
