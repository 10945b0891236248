"""Who may ask, from where, and what is written down of it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from support.served import ScriptedSynthesizer, Served, serving, until

KEY = "a-key-of-this-test"
PASSWORD = base64.b64encode(f"me:{KEY}".encode()).decode()
PATHS = ["/", "/ready", "/metrics", "/v1/models", "/v1/audio/voices", "/nothing"]


@pytest.fixture
def locked(synthesizer: ScriptedSynthesizer, voices: Path):
    with serving(synthesizer, [voices], api_key=KEY) as server:
        yield server


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer wrong", f"Bearer {KEY}x", KEY, "Basic !", "Basic eA=="]
)
def test_without_the_key_nothing_but_health_answers(
    locked: Served, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"Authorization": given}
    locked.key = None
    with locked.client() as client:
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert "Basic" in answer.headers["www-authenticate"]
        assert client.post("/v1/audio/speech", json={"input": "x"}).status_code == 401
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("given", [f"Bearer {KEY}", f"bearer {KEY}", f"Basic {PASSWORD}"])
def test_the_key_opens_as_a_token_and_as_a_password(locked: Served, given: str) -> None:
    locked.key = None
    with locked.client() as client:
        assert client.get("/v1/models", headers={"Authorization": given}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.1.2.3", "", "[::1"])
def test_a_foreign_name_that_points_here_is_refused(served: Served, host: str) -> None:
    with served.client() as client:
        answer = client.get("/v1/models", headers={"Host": host})
        assert answer.status_code == 403
        assert client.get("/v1/models", headers={"Host": "localhost:1234"}).status_code == 200


def test_pages_of_other_sites_are_refused(served: Served) -> None:
    with served.client() as client:
        for origin, status in (
            ("http://evil.example", 403),
            ("null", 403),
            (served.url.replace("127.0.0.1", "localhost"), 403),
            (served.url, 200),
        ):
            answer = client.get("/v1/models", headers={"Origin": origin})
            assert answer.status_code == status, origin


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1.2_3", True), ("a" * 65, False), ("x y", False), ("", False)]
)
def test_a_request_has_an_id(served: Served, given: str, kept: bool) -> None:
    with served.client() as client:
        answer = client.get("/health", headers={"X-Request-Id": given})
    found = answer.headers["x-request-id"]
    assert (found == given) is kept
    until(lambda: len(served.records()) == 1)
    assert served.records()[0]["id"] == found


def test_a_line_tells_of_a_speech_but_not_its_words(served: Served) -> None:
    with served.client() as client:
        client.post("/v1/audio/speech", json={"input": "sesame opens", "voice": "bob"})
    until(lambda: len(served.records()) == 1)
    [record] = served.records()
    wanted = {
        "method": "POST",
        "path": "/v1/audio/speech",
        "status": 200,
        "client": "127.0.0.1",
        "voice": "bob",
        "format": "mp3",
        "characters": 12,
        "seconds_audio": 0.5,
    }
    assert wanted.items() <= record.items()
    assert 0 < record["first_audio_s"] <= record["seconds"]
    assert "sesame" not in served.log.getvalue()


def test_the_words_are_there_when_asked_for(synthesizer: ScriptedSynthesizer, voices: Path) -> None:
    with serving(synthesizer, [voices], log_text=True) as served:
        with served.client() as client:
            client.post("/v1/audio/speech", json={"input": "sesame"})
        until(lambda: len(served.records()) == 1)
        assert served.records()[0]["text"] == "sesame"


def test_a_path_that_is_not_there_is_an_error_object(served: Served) -> None:
    with served.client() as client:
        answer = client.get("/v1/audio/nothing")
        assert (answer.status_code, answer.json()["error"]["message"]) == (
            404,
            "there is no GET /v1/audio/nothing",
        )
        answer = client.delete("/v1/models")
        assert answer.status_code == 405
        assert "GET" in answer.headers["allow"]
