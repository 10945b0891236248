"""OpenAI's speech endpoint over a real socket."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import wave
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support.served import BLOCK_SECONDS, RATE, TIMEOUT, ScriptedSynthesizer, Served, serving, until

from cosyvoice_cpu.frontend.clip import read_clip
from cosyvoice_cpu.serving.cost import Spent
from cosyvoice_cpu.serving.job import State

SPEECH = "/v1/audio/speech"
WORDS = "one two three"


def post(served: Served, content: bytes | None = None, **fields: Any) -> Any:
    body = content if content is not None else json.dumps({"input": WORDS, **fields}).encode()
    with served.client() as client:
        return client.post(SPEECH, content=body, headers={"Content-Type": "application/json"})


def error(answer: Any) -> dict[str, Any]:
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


def events(content: str) -> list[dict[str, Any]]:
    return [json.loads(part.removeprefix("data: ")) for part in content.split("\n\n") if part]


@pytest.mark.parametrize(
    ("audio_format", "media_type"),
    [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("flac", "audio/flac"), ("wav", "audio/wav")],
)
def test_each_format_is_a_file_of_all_words(
    served: Served, audio_format: str, media_type: str
) -> None:
    answer = post(served, response_format=audio_format)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    clip = read_clip(answer.content, trim=True)  # which takes FLAC of unknown length
    samples, rate = clip.samples, clip.rate
    assert rate == RATE
    assert len(samples) / rate == pytest.approx(3 * BLOCK_SECONDS, abs=0.2)


def test_pcm_is_16_bit_samples_at_24_khz(served: Served) -> None:
    answer = post(served, response_format="pcm")
    assert len(answer.content) == 2 * RATE * 3 * BLOCK_SECONDS
    assert answer.headers["content-type"] == "audio/pcm"


def test_mp3_is_what_a_request_without_a_format_gets(served: Served) -> None:
    assert post(served).headers["content-type"] == "audio/mpeg"


def test_sound_leaves_before_the_rest_is_made(
    served: Served, synthesizer: ScriptedSynthesizer
) -> None:
    with (
        served.client() as client,
        client.stream("POST", SPEECH, json={"input": "one wait", "response_format": "pcm"}) as got,
    ):
        parts = got.iter_bytes()
        assert len(next(parts)) == 2 * RATE * BLOCK_SECONDS
        assert "transfer-encoding" in got.headers
        synthesizer.go.set()
        assert sum(map(len, parts)) == 2 * RATE * BLOCK_SECONDS


def test_a_whole_file_has_its_length_and_a_true_header(served: Served) -> None:
    answer = post(served, response_format="wav", stream=False)
    assert int(answer.headers["content-length"]) == len(answer.content)
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() == 3 * BLOCK_SECONDS * RATE
    streamed = post(served, response_format="wav").content
    assert streamed[44:] == answer.content[44:]


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "flac", "wav"])
def test_a_whole_file_is_read_by_everything(served: Served, audio_format: str) -> None:
    answer = post(served, response_format=audio_format, stream=False)
    samples, rate = soundfile.read(io.BytesIO(answer.content))
    assert len(samples) / rate == pytest.approx(3 * BLOCK_SECONDS, abs=0.1)


def test_events_carry_the_same_file_and_the_usage(served: Served) -> None:
    answer = post(served, stream_format="sse", response_format="wav")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(answer.text)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert audio == post(served, response_format="wav").content
    usage = {"input_tokens": 3, "output_tokens": 18, "total_tokens": 21}
    assert done == {"type": "speech.audio.done", "usage": usage}


def test_all_fields_reach_the_synthesizer(served: Served, synthesizer: ScriptedSynthesizer) -> None:
    answer = post(
        served,
        voice={"id": "bob"},
        instructions="Softly.",
        speed=1.5,
        seed=7,
        language="de",
        preset="fast",
        model="tts-1",
        unknown={"to": "everybody"},
    )
    assert answer.status_code == 200
    text, voice, options = synthesizer.calls[-1]
    assert (text, voice) == (WORDS, "bob")
    wanted = {"instruct": "Softly.", "speed": 1.5, "seed": 7, "language": "de", "preset": "fast"}
    assert wanted.items() <= options.items()


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "the text is empty"),
        ({"input": " \n"}, "input", "the text is empty"),
        ({"input": "a" * 4097}, "input", "4097 characters, at most 4096"),
        ({"input": "a\x07"}, "input", "control character U\\+0007"),
        ({"input": None}, "input", "Expected `str`, got `null`"),
        ({"input": 5}, "input", "Expected `str`, got `int`"),
        ({"voice": "nobody"}, "voice", "there is no voice 'nobody': voices: anna, bob"),
        ({"voice": "../anna"}, "voice", "there is no voice"),
        ({"voice": {"name": "x"}}, "voice", "missing required field `id`"),
        ({"response_format": "aac"}, "response_format", "formats: mp3, opus, flac, wav, pcm"),
        ({"speed": 4}, "speed", "the speed 4 is outside 0.5 to 2"),
        ({"seed": -1}, "seed", "the seed -1 is outside"),
        ({"seed": 2**70}, "seed", "seed"),
        ({"language": "!"}, "language", "no language code"),
        ({"preset": "best"}, "preset", "presets: default, fast"),
        ({"stream_format": "xml"}, "stream_format", "Invalid enum value 'xml'"),
        ({"instructions": "\x00"}, "instructions", "control character"),
    ],
)
def test_a_field_that_is_wrong_is_named(
    served: Served, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = post(served, **fields)
    assert answer.status_code == 400
    found = error(answer)
    assert found["type"] == "invalid_request_error"
    assert found["param"] == param
    assert re.search(words, found["message"]), found["message"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"\xff\xfe", b'{"input": "\\ud800"}', b"[" * 100_000]
)
def test_what_is_no_json_object_is_said(served: Served, content: bytes) -> None:
    answer = post(served, content)
    assert answer.status_code == 400
    assert "the request's body" in error(answer)["message"]


def test_a_body_without_input_is_told_so(served: Served) -> None:
    answer = post(served, b'{"voice": "anna"}')
    assert answer.status_code == 400
    assert error(answer)["param"] == "input"


def test_a_body_beyond_a_megabyte_is_refused_before_it_is_read(served: Served) -> None:
    assert post(served, b" " * ((1 << 20) + 1)).status_code == 413
    with served.client() as client:
        chunks = iter([b" " * 70_000] * 20)
        answer = client.post(SPEECH, content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert error(answer)["message"] == "the request's body exceeds 1024 kB"


def test_another_kind_of_body_is_refused(served: Served) -> None:
    with served.client() as client:
        answer = client.post(SPEECH, data={"input": "x"})
        assert answer.status_code == 415
        plain = client.post(SPEECH, content=b"{}", headers={"content-type": "text/plain"})
        assert plain.status_code == 415


def test_what_only_shows_when_the_text_is_read_has_a_status_as_well(served: Served) -> None:
    answer = post(served, input="unreadable")
    assert answer.status_code == 400
    assert "there is nothing to speak" in error(answer)["message"]
    assert error(answer)["param"] == "input"


def test_a_model_that_fails_at_once_gives_status_500_with_its_words(served: Served) -> None:
    answer = post(served, input="fail")
    assert answer.status_code == 500
    found = error(answer)
    assert (found["type"], found["code"]) == ("server_error", "synthesis_failed")
    assert "nothing but silence came" in found["message"]


def test_a_bug_tells_clients_nothing_of_the_inside(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    answer = post(served, input="crash")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert error(answer)["code"] == "internal_error"
    assert "/secret/path" in caplog.text
    assert post(served).status_code == 200


def test_a_failure_after_the_first_sound_breaks_the_answer_off(served: Served) -> None:
    import httpx2

    with pytest.raises(httpx2.RemoteProtocolError):
        post(served, input="one fail", response_format="pcm")
    assert post(served).status_code == 200


def test_a_failure_after_the_first_sound_is_an_event(served: Served) -> None:
    answer = post(served, input="one fail", stream_format="sse", response_format="pcm")
    first, last = events(answer.text)
    assert first["type"] == "speech.audio.delta"
    assert last["type"] == "speech.audio.error"
    assert last["error"]["code"] == "synthesis_failed"


def raw_request(served: Served, text: str) -> socket.socket:
    """A connection on which a request was sent and nothing is read."""
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), TIMEOUT)
    body = json.dumps({"input": text, "response_format": "pcm"}).encode()
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_a_client_that_leaves_stops_the_work(
    served: Served, synthesizer: ScriptedSynthesizer
) -> None:
    connection = raw_request(served, "wait second")
    assert synthesizer.waiting.acquire(timeout=TIMEOUT)
    raw_request(served, "never spoken").close()
    connection.close()
    until(lambda: all(job.why_cancelled for job in served.service._speeches))
    synthesizer.go.set()
    assert post(served).status_code == 200
    assert not {"second", "never"} & set(synthesizer.words)
    until(lambda: [record["status"] for record in served.records()].count(499) == 2)
    ends = {record["ended"] for record in served.records() if "ended" in record}
    assert ends == {"the client left"}


def test_the_line_has_an_end_and_says_when_to_come_again(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], queue=1) as served:
        running = raw_request(served, "wait")
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        queued = raw_request(served, "queued")
        answer = post(served)
        while answer.status_code == 200:  # the queued one was not read yet
            answer = post(served)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert error(answer)["code"] == "queue_full"
        synthesizer.go.set()
        for connection in (running, queued):
            assert connection.recv(15).startswith(b"HTTP/1.1 200")
            connection.close()


def test_a_request_that_would_wait_for_too_long_is_refused_at_once(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], max_wait=1.0) as served:
        served.service.cost.learn("x", 1.0, Spent(2.0, 2000.0), Spent(1.0, 1000.0))
        connection = raw_request(served, "wait " + "word " * 200)
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        answer = post(served)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 1
        assert error(answer)["code"] == "unavailable"
        connection.close()


def test_a_long_text_that_is_ahead_of_its_listener_keeps_nobody_out(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], max_wait=1.0) as served:
        served.service.cost.learn("x", 1.0, Spent(2.0, 1.0), Spent(1.0, 0.5))
        long = raw_request(served, "word " * 40 + "wait " + "word " * 400)  # 10 s, then 100 s
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        assert served.service.room.backlog() > 20.0
        other = raw_request(served, "Hello.")
        until(lambda: served.service.room.counts()[State.WAITING] == 1)
        synthesizer.go.set()
        assert other.recv(15).startswith(b"HTTP/1.1 200")
        for connection in (long, other):
            connection.close()


def test_a_request_that_takes_too_long_is_ended(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], request_seconds=0.2) as served:
        connection = raw_request(served, "one wait " + "word " * 9)
        assert synthesizer.waiting.acquire(timeout=TIMEOUT)
        synthesizer.go.wait(0.4)
        synthesizer.go.set()
        content = b""
        while part := connection.recv(1 << 16):
            content += part
        assert not content.endswith(b"0\r\n\r\n")
        until(lambda: len(served.records()) == 1)
        assert served.records()[0]["ended"] == "it took more than 0.2 s"
        connection.close()


def test_a_client_that_does_not_read_is_let_go(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    rules = {"stall_seconds": 0.2, "max_characters": 10**6, "max_wait": 1e6}
    with serving(synthesizer, [voices], **rules) as served:
        connection = raw_request(served, "word " * 3000)  # 36 MB: more than all buffers
        assert post(served).status_code == 200  # the worker is free meanwhile
        until(lambda: any("ended" in record for record in served.records()))
        assert len(synthesizer.words) < 3000
        connection.close()


def test_a_slow_body_is_given_up(synthesizer: ScriptedSynthesizer, voices: Path) -> None:
    with serving(synthesizer, [voices], stall_seconds=0.2) as served:
        host, _, port = served.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), TIMEOUT) as connection:
            head = f"POST {SPEECH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")
