"""WebSocket `/v1/audio/speech/stream`: text arrives in pieces and is spoken sentence by sentence.

The client sends `session.config` (fields as of the speech endpoint, once and first, optional),
`input.text` as often as it likes, then `input.done`; `session.close` ends at once. The server sends
for each sentence `audio.start`, binary frames that are one file together, and `audio.done`; in the
end `session.done`. What goes wrong is an `error`; a sentence that fails does not end the session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.arriving_text import ArrivingText
from cosyvoice_cpu.serving.engine_room import Refused
from cosyvoice_cpu.serving.errors import RequestError, failure_of, is_ours
from cosyvoice_cpu.serving.gate import log
from cosyvoice_cpu.serving.records import Record, record_of
from cosyvoice_cpu.serving.speech import Speech, SpeechService
from cosyvoice_cpu.serving.speech_body import SpeechFields, decoded

_NORMAL, _TRY_AGAIN_LATER = 1000, 1013  # close codes
_MOST_AHEAD = 16  # times the longest text: how much may wait to be spoken


class Config(SpeechFields, frozen=True, tag="session.config"):
    """How to speak. `response_format` is pcm unless said."""


class Text(msgspec.Struct, frozen=True, tag="input.text"):
    """Goes on where the one before ended."""

    text: str


class Done(msgspec.Struct, frozen=True, tag="input.done"):
    """No text follows."""


class Close(msgspec.Struct, frozen=True, tag="session.close"):
    """Nothing more is wanted."""


Message: TypeAlias = Config | Text | Done | Close
_MESSAGE: Any = Message  # a union is no type to the type checker


def stream_endpoint(service: SpeechService) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint of `service`."""

    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        await _Session(service, websocket).run()

    return stream


class _Session:
    def __init__(self, service: SpeechService, websocket: WebSocket) -> None:
        self._service, self._websocket = service, websocket
        self._record: Record = record_of(websocket.scope)
        self._text = ArrivingText()
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue()  # None is the end
        self._ahead = 0  # characters in that queue
        self._speech = Speech("", audio_format="pcm")
        self._has_text = False

    async def run(self) -> None:
        """Read and speak at the same time until either is at its end."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._read()), loop.create_task(self._speak())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client left
                await self._websocket.close(_NORMAL)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, WebSocketDisconnect):
                raise end

    async def _read(self) -> None:
        """Until the client wants nothing more or leaves."""
        seconds = self._service.settings.request_seconds
        while True:
            try:
                message = await asyncio.wait_for(self._websocket.receive(), seconds)
            except asyncio.TimeoutError:
                await self._tell_error(RequestError(f"no message within {seconds:g} s", status=408))
                return
            if message["type"] == "websocket.disconnect":
                return
            try:
                received = message.get("text") or message.get("bytes") or b""
                content: Message = decoded(received, _MESSAGE)
                if isinstance(content, Close):
                    return
                self._take(content)
            except CosyVoiceError as error:
                await self._tell_error(error)

    def _take(self, message: Config | Text | Done) -> None:
        """Raises: RequestError."""
        if isinstance(message, Config):
            if self._has_text:
                raise RequestError("session.config comes before the text")
            speech = message.speech("", audio_format="pcm")
            self._speech = self._service.check_manner(speech)
            return
        self._has_text = True
        if isinstance(message, Done):
            new: list[str | None] = [*self._text.end(), None]
        else:
            new = [*self._text.add(message.text)]
        most = _MOST_AHEAD * self._service.settings.max_characters
        for sentence in new:
            self._ahead += len(sentence or "")
            if self._ahead > most:
                self._ahead -= len(sentence or "")
                raise RequestError(f"more than {most} characters wait to be spoken", status=413)
            self._sentences.put_nowait(sentence)

    async def _speak(self) -> None:
        number = 0
        while (sentence := await self._sentences.get()) is not None:
            self._ahead -= len(sentence)
            try:
                await self._say(sentence, number)
            except Refused as error:
                await self._tell_error(error, number)
                await self._websocket.close(_TRY_AGAIN_LATER)
                return
            except WebSocketDisconnect:
                raise
            except Exception as error:
                if is_ours(error):
                    log.error("request %s failed", self._record.request_id, exc_info=error)
                await self._tell_error(error, number)
            number += 1
        await self._tell({"type": "session.done", "total_sentences": number})
        await self._websocket.close(_NORMAL)

    async def _say(self, sentence: str, number: int) -> None:
        speech = self._service.check(replace(self._speech, text=sentence))
        self._record.add_speech(speech, self._service.settings.log_text)
        about = {"sentence_index": number}
        async with self._service.speaking(speech, is_patient=number > 0) as (job, blocks):
            try:
                size, is_first = 0, True
                async for block in blocks:
                    if is_first:
                        await self._tell(
                            {
                                "type": "audio.start",
                                **about,
                                "sentence_text": sentence,
                                "format": speech.audio_format,
                                "sample_rate": self._service.sample_rate,
                            }
                        )
                        is_first = False
                    size += len(block.content)
                    await self._in_time(self._websocket.send_bytes(block.content))
                await self._tell({"type": "audio.done", **about, "total_bytes": size})
            finally:
                self._record.add_job(job)

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._in_time(self._websocket.send_text(msgspec.json.encode(message).decode()))

    async def _tell_error(self, error: Exception, number: int | None = None) -> None:
        about = {} if number is None else {"sentence_index": number}
        await self._tell({"type": "error", **about, **failure_of(error).body})

    async def _in_time(self, sending: Awaitable[None]) -> None:
        try:
            await asyncio.wait_for(sending, self._service.settings.stall_seconds)
        except asyncio.TimeoutError:
            raise WebSocketDisconnect(1006, "the client does not read") from None
