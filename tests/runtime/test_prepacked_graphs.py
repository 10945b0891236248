"""Prepacked weights in the user's cache: made once, shared, checked, and never needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.quantization_examples import int8_bundle

from cosyvoice_cpu.bundle.atomic import hold
from cosyvoice_cpu.bundle.stale_files import partial_folder
from cosyvoice_cpu.cli.engines import load_stages
from cosyvoice_cpu.runtime import onnxruntime_engine, prepacked_graphs
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.prepacked_graphs import MOST_VARIABLE

VOICE: dict[str, Any] = {
    "prompt_tokens": [1] * 25,
    "prompt_mel": np.full((50, 80), -5.0, np.float32),
    "embedding": np.ones(192, np.float32),
}


@pytest.fixture(scope="module")
def bundle() -> Path:
    return int8_bundle()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of its own for each test, and with room however full the disk."""
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the graphs that were packed."""
    names: list[str] = []
    save = onnxruntime_engine._save_prepacked

    def noting(graph: Path, path: Path, weights_name: str) -> None:
        names.append(graph.name)
        save(graph, path, weights_name)

    monkeypatch.setattr(onnxruntime_engine, "_save_prepacked", noting)
    return names


def speech(bundle: Path, tokens: int = 20, **options: Any) -> tuple[list[int], bytes, bytes]:
    """Tokens, the mel of a whole and of a stream, by stages that are loaded for it."""
    stages = BundleStages.load(bundle, **options)
    drawn = stages.generate_speech_tokens([1, 2, 3], seed=1, min_tokens=tokens, max_tokens=tokens)
    mel = stages.tokens_to_mel(drawn, **VOICE)
    stream = stages.flow_stream(**VOICE)
    chunks = [stream.push(drawn), stream.finish()]
    return drawn, mel.tobytes(), np.concatenate(chunks, axis=1).tobytes()


@pytest.fixture
def without(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], bytes, bytes]:
    with monkeypatch.context() as patched:
        patched.setenv(MOST_VARIABLE, "0")
        return speech(bundle)


def kept(cache: Path, pattern: str) -> list[Path]:
    return sorted((cache / "prepacked").glob(f"*/{pattern}"))


def test_speech_is_the_same_without_the_cache_and_when_it_is_made_and_when_it_is_there(
    bundle: Path, packed: list[str], without: object
) -> None:
    assert packed == []
    assert speech(bundle) == without
    assert sorted(packed) == ["full-00100.onnx", "speech_lm.onnx", "stream.onnx"]
    assert speech(bundle) == without
    assert speech(bundle, low_memory=True) == without
    assert len(packed) == 3


def test_commands_that_speak_keep_the_weights(bundle: Path, packed: list[str]) -> None:
    stages = load_stages(bundle, 1, None)
    stages.generate_speech_tokens([1, 2, 3], seed=1, min_tokens=2, max_tokens=2)
    assert packed == ["speech_lm.onnx"]


def test_all_graphs_of_a_component_share_one_file_of_weights(
    bundle: Path, cache: Path, packed: list[str]
) -> None:
    for tokens in (20, 40):
        speech(bundle, tokens)
    assert len([name for name in packed if name.startswith("full-")]) == 2
    largest = [path for path in kept(cache, "*.bin") if path.stat().st_size > 1_000_000]
    assert len(largest) == 1


def test_a_graph_of_prepacked_weights_has_no_copy_of_its_own(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    assert not stages._speech_lm().graph.private_weights


@pytest.mark.parametrize("pattern", ["*.bin", "*.onnx", "*.json"])
def test_damaged_files_are_not_used_but_made_again(
    bundle: Path, cache: Path, packed: list[str], without: object, pattern: str
) -> None:
    speech(bundle)
    for path in kept(cache, pattern):
        content = np.fromfile(path, np.uint8)
        content[::97] ^= 0xFF
        content.tofile(path)
    assert speech(bundle) == without
    made = len(packed)  # the stream's weights come back with those of the whole
    assert made == (5 if pattern == "*.bin" else 6)
    assert speech(bundle) == without
    assert len(packed) == made


def test_files_that_are_gone_are_made_again(
    bundle: Path, cache: Path, packed: list[str], without: object
) -> None:
    speech(bundle)
    for path in kept(cache, "*.bin"):
        path.unlink()
    assert speech(bundle) == without
    assert len(packed) == 5  # the stream's weights come back with those of the whole


def test_touched_files_are_read_once_and_used(
    bundle: Path, cache: Path, packed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(bundle)
    for path in kept(cache, "*.bin"):
        os.utime(path, (1, 1))
    speech(bundle)
    assert len(packed) == 3

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(prepacked_graphs, "sha256_of", refuse)
    speech(bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="user folders are private by their lists")
@pytest.mark.parametrize("place", ["cache", "folder", "weights"])
def test_what_others_may_write_is_not_used(
    bundle: Path, cache: Path, without: object, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    speech(bundle)
    for path in {
        "cache": [cache],
        "folder": kept(cache, ""),
        "weights": kept(cache, "*.bin"),
    }[place]:
        path.chmod(0o777)
    opened: list[Path] = []
    open_session = onnxruntime_engine.open_session

    def noting(model: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(model)
        return open_session(model, *arguments, **options)

    monkeypatch.setattr(onnxruntime_engine, "open_session", noting)
    if place == "weights":  # made again, with the same content under the same name
        monkeypatch.setattr(onnxruntime_engine, "_save_prepacked", lambda *_: None)
    assert speech(bundle) == without
    assert not [path for path in opened if cache in path.parents]


def test_what_another_engine_version_packed_is_not_used(
    bundle: Path, packed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(bundle)
    monkeypatch.setattr(onnxruntime_engine, "_NAME_AND_VERSION", "onnxruntime 99.0")
    speech(bundle)
    assert len(packed) == 6


def test_what_was_packed_on_another_processor_is_not_used(
    bundle: Path, packed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(bundle)
    monkeypatch.setattr(prepacked_graphs, "processor_identity", lambda: "x86_64 without AVX2")
    speech(bundle)
    assert len(packed) == 6


def test_a_bundle_whose_digests_were_not_checked_leaves_nothing_in_the_cache(
    bundle: Path, cache: Path, without: object
) -> None:
    assert speech(bundle, trust=True) == without
    assert not (cache / "prepacked").exists()


def test_a_cache_that_cannot_be_written_changes_nothing(
    bundle: Path, without: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "file"))
    assert speech(bundle) == without


def test_a_disk_without_room_changes_nothing(
    bundle: Path, cache: Path, without: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("usage", (), {"free": 1000})
    monkeypatch.setattr(prepacked_graphs.shutil, "disk_usage", lambda _: full)
    assert speech(bundle) == without
    assert not (cache / "prepacked").exists()


def test_a_write_that_fails_leaves_nothing_and_changes_nothing(
    bundle: Path, cache: Path, without: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: Path, path: Path, weights_name: str) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnxruntime_engine, "_save_prepacked", fail)
    assert speech(bundle) == without
    assert not [path for path in (cache / "prepacked").rglob("*") if path.is_file()]


def test_what_was_used_longest_ago_is_dropped_when_room_is_needed(
    bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech(bundle)
    old = cache / "prepacked" / "old"
    old.mkdir()
    (old / "big.bin").write_bytes(bytes(6_000_000))
    os.utime(old, (1, 1))
    monkeypatch.setenv(MOST_VARIABLE, "0.008")
    monkeypatch.setattr(onnxruntime_engine, "_NAME_AND_VERSION", "onnxruntime 99.0")
    speech(bundle)
    assert not old.exists()
    assert len(kept(cache, "")) == 4


def test_while_another_makes_it_a_graph_opens_without_waiting(
    bundle: Path, cache: Path, packed: list[str], without: object
) -> None:
    speech(bundle)
    folders = kept(cache, "")
    for path in kept(cache, "*.json"):
        path.unlink()
    handles = [hold(folder) for folder in folders]
    try:
        assert speech(bundle) == without
        assert len(packed) == 3
    finally:
        for handle in handles:
            assert handle is not None
            os.close(handle)
    speech(bundle)
    assert len(packed) == 6


def test_what_a_killed_writer_left_is_removed(bundle: Path, cache: Path) -> None:
    speech(bundle)
    (folder,) = {path.parent for path in kept(cache, "speech_lm.json")}
    (folder / "speech_lm.json").unlink()
    program = (
        "import os, sys; from pathlib import Path;"
        "from cosyvoice_cpu.bundle.stale_files import partial_folder;"
        "writer = partial_folder(Path(sys.argv[1])); writer.__enter__(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    assert list(folder.parent.glob(".*"))
    speech(bundle)
    assert not list(folder.parent.glob(".*"))


def test_several_processes_at_once_all_speak(bundle: Path, without: object) -> None:
    program = (
        "import sys; from pathlib import Path;"
        "from cosyvoice_cpu.runtime.bundle_stages import BundleStages;"
        "stages = BundleStages.load(Path(sys.argv[1]));"
        "print(stages.generate_speech_tokens([1, 2, 3], seed=1, min_tokens=20, max_tokens=20))"
    )
    command = [sys.executable, "-c", program, str(bundle)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {json.dumps(json.loads(process.communicate()[0])) for process in running}
    assert printed == {json.dumps(without[0])}  # type: ignore[index]


def test_an_open_graph_outlives_its_file(bundle: Path, cache: Path, without: object) -> None:
    stages = BundleStages.load(bundle)
    stages.generate_speech_tokens([1, 2, 3], seed=1, max_tokens=1)
    for path in kept(cache, "*.*"):
        path.unlink()
    drawn = stages.generate_speech_tokens([1, 2, 3], seed=1, min_tokens=20, max_tokens=20)
    assert drawn == without[0]  # type: ignore[index]


def test_scratch_folders_are_hidden_from_the_bound(cache: Path, bundle: Path) -> None:
    speech(bundle)
    with partial_folder(cache / "prepacked" / "x") as scratch:
        (scratch / "w").write_bytes(bytes(100))
        speech(bundle)
        assert scratch.exists()
