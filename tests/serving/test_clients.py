"""Real clients on the embedded demo: the `openai` package, and requests as other programs send."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import openai
import pytest
import soundfile
from support.served import TIMEOUT, Served, serving

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer

KEY = "sk-of-these-tests"
VOICE = "hibari-heart-1"
TEXT = "Hello."
SPEAKERS = DEMO_BUNDLE / "speakers"


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer.load(DEMO_BUNDLE, threads=1)


@pytest.fixture(scope="module")
def demo(synthesizer: Synthesizer) -> Iterator[Served]:
    with serving(synthesizer, [SPEAKERS], api_key=KEY) as server:
        yield server


@pytest.fixture
def client(demo: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{demo.url}/v1", api_key=KEY, timeout=TIMEOUT, max_retries=0
    ) as found:
        yield found


def test_openai_gets_what_the_library_makes(
    client: openai.OpenAI, synthesizer: Synthesizer
) -> None:
    answer = client.audio.speech.create(
        model="tts-1", voice=VOICE, input=TEXT, response_format="pcm", extra_body={"seed": 3}
    )
    samples = np.frombuffer(answer.content, "<i2") / 32768
    alone = synthesizer.speak(TEXT, VOICE, seed=3, streaming=True).samples
    assert len(samples) == len(alone)
    assert np.abs(samples - alone).max() < 2 / 32768


def test_openai_writes_a_stream_into_a_file(client: openai.OpenAI, tmp_path) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice=VOICE, input=TEXT, response_format="mp3"
    ) as answer:
        answer.stream_to_file(tmp_path / "speech.mp3")
    assert soundfile.info(tmp_path / "speech.mp3").duration > 0.3


def test_openai_reads_events(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice=VOICE,
        input=TEXT,
        response_format="wav",
        stream_format="sse",
    ) as answer:
        import json

        found = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    audio = b"".join(base64.b64decode(event["audio"]) for event in found[:-1])
    assert found[-1]["type"] == "speech.audio.done"
    assert audio[:4] == b"RIFF"


def test_openai_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]


def test_openai_raises_its_own_errors(client: openai.OpenAI, demo: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
    assert refusal.value.code == "voice_not_found"
    assert refusal.value.param == "voice"
    with pytest.raises(openai.BadRequestError):
        client.audio.speech.create(model="tts-1", voice=VOICE, input=TEXT, response_format="aac")
    with (
        openai.OpenAI(base_url=f"{demo.url}/v1", api_key="wrong", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError),
    ):
        other.models.list()


def test_open_webui_gets_an_mp3(demo: Served) -> None:
    """It reads the whole body, and its settings read the lists."""
    with demo.client() as client:
        answer = client.post(
            "/v1/audio/speech",
            json={"model": "tts-1", "input": TEXT, "voice": VOICE},
            headers={"X-OpenWebUI-User-Name": "Anna", "Accept": "*/*"},
        )
        assert answer.status_code == 200
        assert soundfile.info(io.BytesIO(answer.content)).format == "MP3"
        assert {"id": VOICE, "name": VOICE} in client.get("/v1/audio/voices").json()["voices"]
        assert client.get("/v1/models").json()["data"][0]["id"] == "demo"


def test_sillytavern_gets_an_mp3(demo: Served) -> None:
    fields = {
        "model": "tts-1",
        "input": TEXT,
        "voice": VOICE,
        "response_format": "mp3",
        "speed": 1,
        "instructions": None,
    }
    with demo.client() as client:
        answer = client.post("/v1/audio/speech", json=fields)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
