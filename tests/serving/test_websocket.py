"""Text that arrives in pieces, with the client of the `websockets` package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.served import BLOCK_SECONDS, RATE, TIMEOUT, ScriptedSynthesizer, Served, serving, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

WORD = round(2 * RATE * BLOCK_SECONDS)  # bytes of PCM


@contextmanager
def session(served: Served, **options: Any) -> Iterator[ClientConnection]:
    url = served.url.replace("http", "ws") + "/v1/audio/speech/stream"
    with connect(url, open_timeout=TIMEOUT, close_timeout=TIMEOUT, **options) as found:
        yield found


def send(connection: ClientConnection, kind: str, **fields: Any) -> None:
    connection.send(json.dumps({"type": kind, **fields}))


def received(connection: ClientConnection) -> Any:
    """A message, or the number of bytes of a binary one."""
    message = connection.recv(TIMEOUT)
    return len(message) if isinstance(message, bytes) else json.loads(message)


def rest(connection: ClientConnection) -> list[Any]:
    found = []
    try:
        while True:
            found.append(received(connection))
    except ConnectionClosed:
        return found


def test_each_sentence_is_spoken_before_the_next_one_is_known(served: Served) -> None:
    with session(served) as connection:
        send(connection, "session.config", voice="bob", unknown=1)
        send(connection, "input.text", text="One two. Th")
        assert received(connection) == {
            "type": "audio.start",
            "sentence_index": 0,
            "sentence_text": "One two.",
            "format": "pcm",
            "sample_rate": RATE,
        }
        assert received(connection) == WORD
        assert received(connection) == WORD
        end = {"type": "audio.done", "sentence_index": 0, "total_bytes": 2 * WORD}
        assert received(connection) == end
        send(connection, "input.text", text="ree.")
        send(connection, "input.done")
        start, audio, done, last = rest(connection)
        assert start["sentence_text"] == "Three."
        assert audio == WORD
        assert done["sentence_index"] == 1
        assert last == {"type": "session.done", "total_sentences": 2}


def test_all_fields_reach_the_synthesizer(served: Served, synthesizer: ScriptedSynthesizer) -> None:
    with session(served) as connection:
        fields = {"speed": 1.5, "seed": 3, "instructions": "Softly.", "language": "de"}
        send(connection, "session.config", voice={"id": "bob"}, response_format="wav", **fields)
        send(connection, "input.text", text="Eins.")
        send(connection, "input.done")
        assert rest(connection)[0]["format"] == "wav"
    text, voice, options = synthesizer.calls[-1]
    assert (text, voice) == ("Eins.", "bob")
    wanted = {"speed": 1.5, "seed": 3, "instruct": "Softly.", "language": "de"}
    assert wanted.items() <= options.items()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("{", "no JSON object"),
        ('{"type": "nonsense"}', "Invalid value 'nonsense'"),
        ('{"text": "x"}', "missing required field `type`"),
        ('{"type": "input.text"}', "missing required field `text`"),
        ('{"type": "session.config", "voice": "nobody"}', "there is no voice 'nobody'"),
        ('{"type": "session.config", "speed": 9}', "the speed 9"),
    ],
)
def test_a_message_that_is_wrong_is_said_and_the_session_goes_on(
    served: Served, message: str, words: str
) -> None:
    with session(served) as connection:
        connection.send(message)
        error = received(connection)
        assert error["type"] == "error"
        assert words in error["error"]["message"]
        send(connection, "input.text", text="Fine.")
        send(connection, "input.done")
        assert rest(connection)[-1] == {"type": "session.done", "total_sentences": 1}


def test_a_sentence_that_fails_does_not_end_the_session(served: Served) -> None:
    with session(served) as connection:
        send(connection, "input.text", text="One. fail two. Three.")
        send(connection, "input.done")
        found = rest(connection)
    kinds = [message["type"] for message in found if isinstance(message, dict)]
    assert kinds == [
        *("audio.start", "audio.done", "error", "audio.start", "audio.done", "session.done")
    ]
    [error] = [m for m in found if isinstance(m, dict) and m["type"] == "error"]
    assert error["sentence_index"] == 1
    assert error["error"]["code"] == "synthesis_failed"


def test_a_configuration_after_text_is_refused(served: Served) -> None:
    with session(served) as connection:
        send(connection, "input.text", text="One")
        send(connection, "session.config", voice="bob")
        assert received(connection)["error"]["message"] == "session.config comes before the text"


@pytest.mark.parametrize("way", ["close", "leave"])
def test_who_wants_no_more_stops_the_work(
    served: Served, synthesizer: ScriptedSynthesizer, way: str
) -> None:
    with session(served) as connection:
        send(connection, "input.text", text="wait second. Third. ")
        send(connection, "input.done")
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        if way == "close":
            send(connection, "session.close")
            assert rest(connection) == []
        else:
            connection.close()
    until(lambda: all(job.why_cancelled for job in served.service._speeches))
    synthesizer.go.set()
    until(lambda: len(served.records()) == 1)
    assert not {"second.", "Third."} & set(synthesizer.words)


def test_a_server_that_is_full_refuses_the_first_sentence(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], queue=0) as served, session(served) as first:
        send(first, "input.text", text="wait now. Then more.")
        send(first, "input.done")
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        with session(served) as second:
            send(second, "input.text", text="One. Two.")
            assert received(second)["error"]["code"] == "queue_full"
            assert rest(second) == []
            assert second.close_code == 1013
        synthesizer.go.set()
        assert rest(first)[-1] == {"type": "session.done", "total_sentences": 2}


def test_a_conversation_that_was_taken_waits_for_its_place(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with (
        serving(synthesizer, [voices], queue=0) as served,
        session(served) as first,
        session(served) as second,
    ):
        send(first, "input.text", text="One. T")
        assert [received(first) for _ in range(3)][2]["type"] == "audio.done"
        send(second, "input.text", text="wait now. T")
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        send(first, "input.text", text="wo.")
        send(first, "input.done")
        synthesizer.go.set()
        assert rest(first)[-1] == {"type": "session.done", "total_sentences": 2}


def test_too_much_text_ahead_is_refused(synthesizer: ScriptedSynthesizer, voices: Path) -> None:
    with (
        serving(synthesizer, [voices], max_characters=10) as served,
        session(served) as connection,
    ):
        send(connection, "input.text", text="wait now. ")
        send(connection, "input.text", text="Word. " * 100)
        assert "more than 160 characters wait" in received(connection)["error"]["message"]


def test_the_gate_stands_before_websockets_too(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], api_key="a-key-of-this-test") as served:
        with pytest.raises(InvalidStatus) as refusal, session(served):
            pass
        assert refusal.value.response.status_code == 403
        headers = {"Authorization": "Bearer a-key-of-this-test"}
        with session(served, additional_headers=headers) as connection:
            send(connection, "session.close")
            assert rest(connection) == []
    with (
        serving(synthesizer, [voices]) as served,
        pytest.raises(InvalidStatus),
        session(served, origin="http://evil.example"),
    ):
        pass
