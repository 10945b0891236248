"""The embedded demo: a finished bundle that speaks where torch and onnx never were."""

from __future__ import annotations

import json
import wave
from pathlib import Path

from support.command_line import WITHOUT_TORCH, run

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.decoding.solver import evaluated_rows
from cosyvoice_cpu.demo import DEMO_BUNDLE

SPEAKERS = [
    "hibari-heart-1",
    "hibari-heart-2",
    "hibari-heart-3",
    "hibari-high-1",
    "hibari-low-1",
]


def test_the_first_command_speaks_without_torch_and_onnx(tmp_path: Path) -> None:
    outcome = run("synth", "Hello", "--output", tmp_path / "hello.wav", program=WITHOUT_TORCH)
    assert outcome.code == 0
    with wave.open(str(tmp_path / "hello.wav")) as file:
        assert file.getframerate() == 24000
        assert file.getnframes() > 2400


def test_the_demo_has_speakers() -> None:
    folder = open_bundle(DEMO_BUNDLE).speakers_folder
    assert sorted(path.stem for path in folder.iterdir()) == SPEAKERS


def test_its_presets_are_cheaper_and_were_judged_on_every_sentence_twice() -> None:
    manifest = open_bundle(DEMO_BUNDLE).manifest
    presets = manifest.synthesis.solver_presets
    assert sorted(presets) == ["cached", "default", "fast"]
    assert evaluated_rows(presets["fast"]) <= evaluated_rows(presets["default"]) / 2
    for name in ("cached", "fast"):
        assert presets[name].prompt == "cached"
        judged = [result for result in manifest.quality.results if result.preset == name]
        results = {result.measure: result for result in judged}
        assert all(result.passed for result in judged)
        assert results["sentences_judged"].value >= 2 * 66
        assert {"word_errors_added", "prompt_similarity_lost", "mos_lost"} < results.keys()


def test_info_without_a_bundle_is_of_the_demo() -> None:
    outcome = run("info", "--json", program=WITHOUT_TORCH)
    assert json.loads(outcome.stdout)["path"] == str(DEMO_BUNDLE)


def test_speaking_writes_nothing_into_the_package(tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in DEMO_BUNDLE.rglob("*")
        }

    before = state()
    assert run("synth", "Hello", "--output", tmp_path / "hello.wav").code == 0
    assert state() == before
