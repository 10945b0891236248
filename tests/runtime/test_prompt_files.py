"""What is computed of a prompt, on disk: found again, never stale, never trusted blindly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command_line import run

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import OutputError
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.flow_stream import FlowStreamStage
from cosyvoice_cpu.system.cache_folder import CACHE_VARIABLE

SPEAKER = min((DEMO_BUNDLE / "speakers").iterdir())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever a prompt is computed."""
    calls: list[int] = []
    compute = FlowStreamStage.prompt_past

    def counted(*voice: object, **options: object) -> object:
        calls.append(1)
        return compute(*voice, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(FlowStreamStage, "prompt_past", counted)
    return calls


def voice() -> tuple[list[int], np.ndarray, np.ndarray]:
    speaker = Speaker.load(SPEAKER)
    return list(speaker.prompt_tokens), speaker.prompt_mel, speaker.embedding


def windowed_mel(bundle: Path = DEMO_BUNDLE) -> np.ndarray:
    tokens, mel, embedding = voice()
    stream = BundleStages.load(bundle).flow_stream(
        prompt_tokens=tokens, prompt_mel=mel, embedding=embedding, window_seconds=3
    )
    return np.concatenate([stream.push(tokens[:40]), stream.finish()], axis=1)


def test_a_kept_prompt_is_mapped_by_later_processes_and_gives_the_same_mel(
    computed: list[int],
) -> None:
    want = windowed_mel()
    path = BundleStages.load(DEMO_BUNDLE).prefill_prompt(*voice())
    computed.clear()
    assert np.array_equal(windowed_mel(), want)
    assert not computed
    BundleStages.load(DEMO_BUNDLE).forget_prompt(*voice())
    assert not path.exists()
    assert np.array_equal(windowed_mel(), want)
    assert computed


def test_another_bundle_another_solver_and_an_exact_stream_find_nothing(
    computed: list[int], tmp_path: Path
) -> None:
    BundleStages.load(DEMO_BUNDLE).prefill_prompt(*voice())
    other = tmp_path / "other"
    shutil.copytree(DEMO_BUNDLE, other)
    path = other / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["synthesis"]["solver_presets"]["default"]["guidance_rate"] += 0.5
    path.write_text(json.dumps(manifest))
    computed.clear()
    windowed_mel(other)
    assert len(computed) == 1
    tokens, mel, embedding = voice()
    BundleStages.load(DEMO_BUNDLE).flow_stream(
        prompt_tokens=tokens, prompt_mel=mel, embedding=embedding
    )
    assert len(computed) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "shape", "garbage"])
def test_a_file_that_is_not_as_it_was_written_is_computed_anew(
    damage: str, computed: list[int]
) -> None:
    want = windowed_mel()
    path = BundleStages.load(DEMO_BUNDLE).prefill_prompt(*voice())
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:-5],
            "shape": content.replace(b'"attended.0"', b'"attendee.0"'),
            "garbage": b"x" * len(content),
        }[damage]
    )
    computed.clear()
    assert np.array_equal(windowed_mel(), want)
    assert computed


def test_a_file_that_others_may_write_is_not_used(computed: list[int]) -> None:
    path = BundleStages.load(DEMO_BUNDLE).prefill_prompt(*voice())
    path.chmod(0o666)
    computed.clear()
    windowed_mel()
    assert computed


def test_a_cache_that_cant_be_written_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="can't be made"):
        BundleStages.load(DEMO_BUNDLE).prefill_prompt(*voice())


def test_the_command_keeps_and_removes_the_file_of_a_speaker(cache: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEMO_BUNDLE, bundle)
    name = SPEAKER.stem
    outcome = run("cache-speaker", bundle, name, "--prefill")
    assert outcome.code == 0, outcome.stderr
    assert f"MB for {name}, preset default" in outcome.stderr
    assert len(list(cache.glob("prompts/*.safetensors"))) == 1
    assert run("cache-speaker", bundle, name, "--remove").code == 0
    assert not list(cache.glob("prompts/*.safetensors"))
    assert run("cache-speaker", bundle, "--prefill").code == 2
    assert run("cache-speaker", bundle, "--list", "--prefill").code == 2
