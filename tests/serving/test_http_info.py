"""Models, voices, health, readiness and metrics."""

from __future__ import annotations

from pathlib import Path

from support.served import ScriptedSynthesizer, Served, serving


def test_there_is_one_model(served: Served) -> None:
    with served.client() as client:
        answer = client.get("/v1/models").json()
        assert answer["object"] == "list"
        [model] = answer["data"]
        assert model["id"] == "demo"
        assert client.get("/v1/models/demo").json() == model


def test_voices_have_ids_and_names(served: Served) -> None:
    with served.client() as client:
        answer = client.get("/v1/audio/voices").json()
    assert answer == {
        "voices": [{"id": "anna", "name": "anna"}, {"id": "bob", "name": "bob"}],
    }


def test_readiness_comes_with_the_first_speech_and_goes_with_the_last_signal(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices]) as served, served.client() as client:
        assert client.get("/ready").json() == {"status": "ready"}
        served.service.warmed.clear()
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "starting"})
        assert client.get("/health").json() == {"status": "ok"}
        served.service.is_closing = True
        assert client.get("/ready").json() == {"status": "stopping"}


def test_metrics_count_requests_and_speeches(served: Served) -> None:
    with served.client() as client:
        client.post("/v1/audio/speech", json={"input": "one two"})
        client.post("/v1/audio/speech", json={"input": "fail"})
        client.get("/a/path/of/ten/thousand")
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        'cosyvoice_requests_total{path="/v1/audio/speech",status="200"} 1.0',
        'cosyvoice_requests_total{path="/v1/audio/speech",status="500"} 1.0',
        'cosyvoice_requests_total{path="other",status="404"} 1.0',
        'cosyvoice_speeches_total{outcome="done"} 2.0',  # the warm-up is one
        'cosyvoice_speeches_total{outcome="failed"} 1.0',
        'cosyvoice_speeches_now{state="running"} 0.0',
        "cosyvoice_workers 1.0",
        "cosyvoice_backlog_seconds 0.0",
    ):
        assert line in lines, line
    names = {line.partition(" ")[0].partition("{")[0] for line in lines}
    assert {
        "cosyvoice_first_audio_seconds_count",
        "cosyvoice_rtf_count",
        "cosyvoice_resident_memory_bytes",
    } <= names
