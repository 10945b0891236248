"""Wyoming, with the client of the `wyoming` package and over a raw socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest
from support.served import BLOCK_SECONDS, RATE, TIMEOUT, ScriptedSynthesizer, Served, until
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeVoice,
)

WORD = round(2 * RATE * BLOCK_SECONDS)


def talk(served: Served, work: Callable[[AsyncTcpClient], Awaitable[None]]) -> None:
    async def connected() -> None:
        async with AsyncTcpClient("127.0.0.1", served.wyoming_port) as client:
            await work(client)

    asyncio.run(asyncio.wait_for(connected(), TIMEOUT))


async def until_kind(client: AsyncTcpClient, kind: str) -> list[Event]:
    found: list[Event] = []
    while not found or found[-1].type != kind:
        event = await client.read_event()
        assert event is not None
        found.append(event)
    return found


def audio_of(events: list[Event]) -> bytes:
    return b"".join(
        AudioChunk.from_event(event).audio for event in events if AudioChunk.is_type(event.type)
    )


def test_it_describes_its_voices(served: Served) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(Describe().event())
        info = Info.from_event((await until_kind(client, "info"))[0])
        [program] = info.tts
        assert [voice.name for voice in program.voices] == ["anna", "bob"]
        assert "en" in program.voices[0].languages
        assert program.supports_synthesize_streaming
        await client.write_event(Ping("x").event())
        assert (await until_kind(client, "pong"))[0].data == {"text": "x"}

    talk(served, work)


def test_a_text_is_spoken_with_the_voice_that_is_asked_for(
    served: Served, synthesizer: ScriptedSynthesizer
) -> None:
    async def work(client: AsyncTcpClient) -> None:
        for _ in range(2):
            voice = SynthesizeVoice(name="bob")
            await client.write_event(Synthesize("one two three", voice=voice).event())
            events = await until_kind(client, "audio-stop")
            start = AudioStart.from_event(events[0])
            assert (start.rate, start.width, start.channels) == (RATE, 2, 1)
            assert len(audio_of(events)) == 3 * WORD
            assert AudioStop.is_type(events[-1].type)
        assert synthesizer.calls[-1][:2] == ("one two three", "bob")

    talk(served, work)
    until(lambda: len(served.records()) == 2)
    record = served.records()[0]
    assert (record["method"], record["status"], record["voice"]) == ("WYOMING", 200, "bob")


def test_text_that_arrives_in_pieces_is_spoken_sentence_by_sentence(
    served: Served, synthesizer: ScriptedSynthesizer
) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(SynthesizeStart().event())
        await client.write_event(SynthesizeChunk("One two. Th").event())
        first = await until_kind(client, "audio-chunk")
        assert first[0].type == "audio-start"
        await client.write_event(SynthesizeChunk("ree.").event())
        await client.write_event(Synthesize("One two. Three.").event())  # for older servers
        await client.write_event(SynthesizeStop().event())
        events = first + await until_kind(client, "synthesize-stopped")
        assert [event.type for event in events].count("audio-start") == 1
        assert events[-2].type == "audio-stop"
        assert len(audio_of(events)) == 3 * WORD

    talk(served, work)
    assert [text for text, *_ in synthesizer.calls[-2:]] == ["One two.", "Three."]


@pytest.mark.parametrize(
    ("text", "voice", "code"),
    [
        ("", None, "invalid_request_error"),
        ("fail", None, "synthesis_failed"),
        ("crash", None, "internal_error"),
        ("one", SynthesizeVoice(name="nobody"), "voice_not_found"),
    ],
)
def test_what_goes_wrong_is_an_error_and_the_connection_lives(
    served: Served, text: str, voice: SynthesizeVoice | None, code: str
) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(Synthesize(text, voice=voice).event())
        error = Error.from_event((await until_kind(client, "error"))[-1])
        assert error.code == code
        assert "secret" not in error.text
        await client.write_event(Synthesize("one").event())
        assert len(audio_of(await until_kind(client, "audio-stop"))) == WORD

    talk(served, work)


def raw(served: Served, content: bytes) -> bytes:
    """What comes back for `content`, until the server closes."""
    with socket.create_connection(("127.0.0.1", served.wyoming_port), TIMEOUT) as connection:
        connection.sendall(content)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no json\n", "an event is no JSON"),
        (b"[1]\n", "an event is no JSON object"),
        (b'{"type": 5}\n', "an event has a type and data"),
        (b'{"type": "x", "data_length": 99999999}\n', "data_length is 99999999"),
        (b'{"type": "x", "payload_length": -1}\n', "payload_length is -1"),
        (b'{"type": "x", "data_length": "9"}\n', "data_length is 9"),
        (b'{"type": "x", "data_length": 3}\n[1]', "an event is no JSON object"),
        (b"x" * 200_000, "a line exceeds 64 kB"),
        (b"[" * 60_000 + b"\n", "an event is no JSON"),
    ],
)
def test_what_is_no_event_is_said_and_the_connection_ends(
    served: Served, content: bytes, words: str
) -> None:
    head, _, data = raw(served, content).partition(b"\n")
    assert json.loads(head)["type"] == "error"
    assert words in json.loads(data)["text"]


def test_a_client_that_leaves_stops_the_work(
    served: Served, synthesizer: ScriptedSynthesizer
) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(Synthesize("wait second").event())
        assert await asyncio.to_thread(synthesizer.waiting.acquire, timeout=TIMEOUT)

    talk(served, work)
    until(lambda: all(job.why_cancelled for job in served.service._speeches))
    synthesizer.go.set()
    until(lambda: len(served.records()) == 1)
    assert served.records()[0]["status"] == 499
    assert "second" not in synthesizer.words
