"""Voices that clients add and remove, made by the embedded demo's front end."""

from __future__ import annotations

import io
import os
import struct
import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import CLIP, TRANSCRIPT
from support.served import ScriptedSynthesizer, Served, serving, until

from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.serving.voices import Uploads
from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip

PATH = "/v1/audio/voices"
CONSENT = "I am Anna and I agree"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(DEMO_BUNDLE)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def served(
    synthesizer: ScriptedSynthesizer, voices: Path, bundle: Bundle, kept: Path
) -> Iterator[Served]:
    uploads = Uploads(kept, partial(speaker_from_clip, bundle), most=2)
    with serving(synthesizer, [kept, voices], uploads) as server:
        yield server


def upload(served: Served, clip: bytes | None = None, **fields: Any) -> Any:
    data = {"name": "carla", "ref_text": TRANSCRIPT, "consent": CONSENT, **fields}
    content = CLIP.read_bytes() if clip is None else clip
    with served.client() as client:
        return client.post(PATH, data=data, files={"audio_sample": ("../../x.wav", content)})


def names(served: Served) -> list[str]:
    with served.client() as client:
        return [voice["id"] for voice in client.get(PATH).json()["voices"]]


def files(kept: Path) -> list[str]:
    return sorted(path.name for path in kept.rglob("*")) if kept.exists() else []


def test_a_voice_is_added_listed_used_and_removed(
    served: Served, kept: Path, synthesizer: ScriptedSynthesizer
) -> None:
    answer = upload(served)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["id"], made["object"]) == ("carla", "audio.voice")
    assert made["seconds"] == pytest.approx(5.3, abs=0.1)
    assert names(served) == ["anna", "bob", "carla"]
    assert Speaker.load(kept / "carla.safetensors").transcript == TRANSCRIPT
    with served.client() as client:
        speech = {"input": "One.", "voice": "carla"}
        assert client.post("/v1/audio/speech", json=speech).status_code == 200
        assert synthesizer.calls[-1][1] == "carla"
        gone = client.delete(f"{PATH}/carla")
        assert gone.json() == {"id": "carla", "object": "audio.voice", "deleted": True}
        assert names(served) == ["anna", "bob"]
        assert client.delete(PATH, params={"name": "carla"}).status_code == 404


def test_consent_is_kept_in_the_log_and_the_clip_nowhere(
    served: Served, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))  # writing there would fail
    assert upload(served).status_code == 200
    until(lambda: any(record["method"] == "POST" for record in served.records()))
    [record] = [record for record in served.records() if record["method"] == "POST"]
    assert record["consent"] == CONSENT
    assert [name for name in files(kept) if not name.startswith(".")] == ["carla.safetensors"]


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"consent": ""}, 400, "consent", "there is no consent"),
        ({"consent": "False"}, 400, "consent", "there is no consent"),
        ({"name": ""}, 400, "name", "can't name a speaker"),
        ({"name": "../carla"}, 400, "name", "can't name a speaker"),
        ({"name": "/etc/passwd"}, 400, "name", "can't name a speaker"),
        ({"name": "a\\b"}, 400, "name", "can't name a speaker"),
        ({"name": ".hidden"}, 400, "name", "can't name a speaker"),
        ({"name": "con"}, 400, "name", "can't name a speaker"),
        ({"name": "x" * 65}, 400, "name", "can't name a speaker"),
        ({"name": "a\x00b"}, 400, "name", "control character"),
        ({"name": "anna"}, 409, "name", "there is a voice 'anna' already"),
        ({"ref_text": "x" * 60_000}, 400, "ref_text", "transcript"),
        ({"ref_text": "<|endofprompt|>"}, 400, "ref_text", "endofprompt"),
    ],
)
def test_a_field_that_is_wrong_is_named_and_nothing_is_written(
    served: Served, kept: Path, fields: dict[str, str], status: int, param: str, words: str
) -> None:
    answer = upload(served, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert "carla.safetensors" not in files(kept)


def wav(seconds: float, rate: int = 16000, promised: int | None = None) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, 0, "NONE", ""))
        samples = 8000 * np.sin(np.arange(round(seconds * rate)) / 9)
        writer.writeframes(samples.astype("<i2").tobytes())
    content = bytearray(file.getvalue())
    if promised is not None:
        content[40:44] = struct.pack("<I", promised)
    return bytes(content)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (b"", "is empty"),
        (b"no audio at all " * 100, "not an audio file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an audio file"),
        (CLIP.read_bytes()[:3000], "damaged or incomplete"),
        (wav(0.1), "speech"),
        (wav(40), "lasts 40 s"),
        (wav(1, rate=8000), "sample rate of 8000 Hz"),
        (wav(1, promised=300_000), "damaged or incomplete"),
    ],
)
def test_a_clip_that_can_not_serve_is_refused(
    served: Served, kept: Path, clip: bytes, words: str
) -> None:
    answer = upload(served, clip)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "audio_sample"), error
    assert words in error["message"]
    assert str(kept) not in error["message"]
    assert files(kept) == []


def test_a_flac_that_unpacks_to_hours_is_refused_from_its_header(served: Served) -> None:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(16000 * 3600, np.int16), 16000, format="FLAC")
    assert len(file.getvalue()) < 2_000_000
    answer = upload(served, file.getvalue())
    assert answer.status_code == 400
    assert "lasts 3600 s" in answer.json()["error"]["message"]


def test_a_clip_beyond_ten_megabytes_is_refused(served: Served) -> None:
    assert upload(served, bytes((10 << 20) + 1)).status_code == 413
    assert upload(served, bytes(12 << 20)).status_code == 413


def test_no_more_voices_are_kept_than_the_operator_wants(served: Served) -> None:
    assert [upload(served, name=f"v{number}").status_code for number in range(3)] == [
        *(200, 200, 409)
    ]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("anna", 403),
        ("nobody", 404),
        ("..%2Fanna", 404),
        ("..%2F..%2Fetc%2Fpasswd", 404),
        ("%00", 404),
        (".", 404),
    ],
)
def test_only_voices_of_clients_can_be_removed(
    served: Served, voices: Path, name: str, status: int
) -> None:
    before = sorted(os.listdir(voices))
    with served.client() as client:
        assert client.delete(f"{PATH}/{name}").status_code == status
        assert client.delete(f"{PATH}?name={name}").status_code == status
    assert sorted(os.listdir(voices)) == before


def test_a_link_in_the_folder_is_no_voice(served: Served, kept: Path, voices: Path) -> None:
    assert upload(served).status_code == 200
    (kept / "linked.safetensors").symlink_to(voices / "anna.safetensors")
    assert "linked" not in names(served)
    with served.client() as client:
        assert client.delete(f"{PATH}/linked").status_code == 404


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="audio_sample"\r\n\r\ntext\r\n--x--\r\n',
            400,
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="name"; filename="n"\r\n\r\nt\r\n' * 3
            + b"--x--\r\n",
            400,
        ),
    ],
)
def test_a_form_that_is_none_is_refused(
    served: Served, kind: str, content: bytes, status: int
) -> None:
    with served.client() as client:
        answer = client.post(PATH, content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_without_a_folder_for_them_no_voice_is_taken(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices]) as server:
        assert upload(server).status_code == 403
        with server.client() as client:
            answer = client.delete(f"{PATH}/anna")
        assert answer.status_code == 403
        assert "--speakers DIR" in answer.json()["error"]["message"]
