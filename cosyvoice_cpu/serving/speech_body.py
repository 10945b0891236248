"""The JSON in which clients say what is to be spoken, by HTTP and by WebSocket."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from cosyvoice_cpu.serving.errors import RequestError
from cosyvoice_cpu.serving.speech import Speech

T = TypeVar("T")


class VoiceId(msgspec.Struct, frozen=True):
    """OpenAI's other way to name a voice."""

    id: str


class SpeechFields(msgspec.Struct, frozen=True, kw_only=True):
    """How to speak. Unknown fields are ignored, null is as if absent.

    `model` may be anything: a server has one. `seed`, `language` and `preset` are our own.
    """

    model: str | None = None
    voice: str | VoiceId | None = None
    instructions: str | None = None
    response_format: str | None = None
    speed: float | None = None
    seed: int | None = None
    language: str | None = None
    preset: str | None = None

    def speech(self, text: str, *, audio_format: str = "mp3", is_whole: bool = False) -> Speech:
        """`text` in this manner; `audio_format` is for clients that name none."""
        return Speech(
            text=text,
            voice=self.voice.id if isinstance(self.voice, VoiceId) else self.voice,
            audio_format=self.response_format or audio_format,
            speed=1.0 if self.speed is None else self.speed,
            instructions=self.instructions or None,
            seed=self.seed or 0,
            language=self.language or None,
            preset=self.preset or None,
            is_whole=is_whole,
        )


class SpeechBody(SpeechFields, frozen=True, kw_only=True):
    """A text and how to speak it.

    `stream` is our own; false gives the whole file at once, with its length.
    """

    input: str
    stream_format: Literal["audio", "sse"] | None = None
    stream: bool | None = None

    @property
    def is_sse(self) -> bool:
        """Whether the answer is server-sent events."""
        return self.stream_format == "sse"


def decoded(content: bytes | str, kind: type[T]) -> T:
    """`content` as one of `kind`. Raises: RequestError naming the field that is wrong."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        field = place.strip("`.").partition(".")[0]
        if not field and "missing required field" in what:
            field = what.rpartition(" ")[2].strip("`")
        raise RequestError(f"the request's body: {error}", param=field or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(
            f"the request's body is no JSON object ({str(error)[:200]})", "send application/json"
        ) from error
