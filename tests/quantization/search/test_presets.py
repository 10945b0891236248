"""The search for a fast solver: listeners decide, what they refuse or can't hear is not written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bundle_examples import SOLVER, edit_manifest

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES
from cosyvoice_cpu.decoding.solver import evaluated_rows
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.estimators import (
    Estimator,
    Intelligibility,
    OpinionScore,
    SpeakerSimilarity,
)
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.quantization import QualityRefusedError, quantize_bundle
from cosyvoice_cpu.quantization.gate import intelligibility
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe, parse_recipe
from cosyvoice_cpu.quantization.search import presets
from cosyvoice_cpu.quantization.search.presets import PresetsNotJudgedError

FEW = sorted(CANDIDATES, key=lambda name: evaluated_rows(CANDIDATES[name].preset(SOLVER)))[:2]
RECIPE = f"""
name = "quick"
description = "two solvers, one sentence"

[presets]
candidates = {FEW}
screened = 1
sentences = 1
draws = 1
"""
(TEXT,) = (sentence.text for sentence in first_sentences(1))


class Parrot:
    """A recogniser that finds the first sentence in any audio."""

    languages = frozenset({"en"})

    def transcribe(self, wave16k: NDArray[np.float32]) -> str:
        return TEXT


class Encoder:
    """Hears the same voice in everything."""

    name = "an encoder"
    independent = True

    def embed(self, wave16k: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ones(2, np.float32)


class Scores:
    """A listener who gives the marks of a list, then the last one for ever."""

    name = "a list"

    def __init__(self, *marks: float) -> None:
        self.marks = list(marks)

    def predict(self, audio: NDArray[np.float32], sample_rate: int) -> float | None:
        return self.marks.pop(0) if len(self.marks) > 1 else self.marks[0]


@pytest.fixture(scope="module")
def voice(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("search") / "voice"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / "speakers").mkdir(exist_ok=True)
    Speaker(
        name="anna",
        generation="cosyvoice3",
        transcript="",
        prompt_text_ids=np.zeros(0, np.int32),
        speech_tokens=np.arange(25, dtype=np.int32),
        mel=np.full((50, 80), -6, np.float32),
        embedding=np.ones(192, np.float32),
    ).save(bundle / "speakers" / "anna.safetensors")
    return bundle


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "quick.toml"
    path.write_text(RECIPE)
    return str(path)


def listen(monkeypatch: pytest.MonkeyPatch, *marks: float) -> None:
    """Let listeners with these marks judge."""
    estimators: list[Estimator] = [
        Intelligibility(Parrot()),
        SpeakerSimilarity(Encoder()),
        OpinionScore(Scores(*marks)),
    ]
    monkeypatch.setattr(intelligibility, "available_estimators", lambda *_: estimators)
    monkeypatch.setattr(presets, "_SAMPLE", 1)


def test_the_cheapest_that_passes_is_written_with_how_it_was_judged(
    voice: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(monkeypatch, 4.0)
    report = quantize_bundle(voice, tmp_path / "out", recipe=recipe)
    manifest = read_manifest(tmp_path / "out")
    default = manifest.synthesis.solver
    assert manifest.synthesis.solver_presets == {
        "default": default,
        "fast": CANDIDATES[FEW[0]].preset(default),
    }
    assert not manifest.quality.forced
    assert not manifest.quality.refuses("fast")
    assert [(r.preset, r.measure, r.value) for r in manifest.quality.results] == [
        ("fast", "sentences_judged", 1.0),
        ("fast", "word_errors_added", 0.0),
        ("fast", "prompt_similarity_lost", 0.0),
        ("fast", "mos_lost", 0.0),
    ]
    taken, other = report.presets
    assert (taken.candidate, taken.refusal) == (FEW[0], None)
    assert (other.candidate, other.refusal) == (FEW[1], "not among the finalists")
    for tried in report.presets:
        assert tried.mel_db_from_default > 0
        assert tried.mel_db_from_exact > 0
    files = read_manifest(voice).components["flow_estimator"].files
    assert manifest.components["flow_estimator"].files == files


def test_a_preset_that_sounds_worse_is_refused_unless_forced_and_then_marked(
    voice: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The float32 voice is heard once before the search, then once as the default.
    listen(monkeypatch, 4.0, 4.0, 3.0)
    with pytest.raises(QualityRefusedError, match=r"the preset fast: mos_lost is 1, at most 0\.1"):
        quantize_bundle(voice, tmp_path / "out", recipe=recipe)
    assert not (tmp_path / "out").exists()
    report = quantize_bundle(voice, tmp_path / "out", recipe=recipe, force=True)
    assert report.forced
    quality = read_manifest(tmp_path / "out").quality
    assert quality.forced
    assert quality.refuses("fast")
    assert not quality.refuses(None)
    assert not quality.refuses("default")


def test_what_nobody_can_judge_is_never_written(
    voice: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intelligibility, "available_estimators", lambda *_: [])
    with pytest.raises(PresetsNotJudgedError, match="can't be judged here: no recogniser"):
        quantize_bundle(voice, tmp_path / "out", recipe=recipe, force=True)
    assert not (tmp_path / "out").exists()


def test_a_later_recipe_keeps_presets_and_how_they_were_judged(
    voice: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(monkeypatch, 4.0)
    quantize_bundle(voice, tmp_path / "fast", recipe=recipe)
    before = read_manifest(tmp_path / "fast")
    quantize_bundle(
        tmp_path / "fast",
        tmp_path / "int8",
        recipe="dynamic-int8",
        components=["flow_estimator"],
        calibration="random",
        force=True,
    )
    after = read_manifest(tmp_path / "int8")
    assert after.synthesis == before.synthesis

    def of_presets(results: list[QualityResult]) -> list[QualityResult]:
        return [result for result in results if result.preset is not None]

    assert of_presets(after.quality.results) == before.quality.results


def test_a_flow_without_other_times_has_nothing_to_search(
    voice: Path, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen(monkeypatch, 4.0)
    bundle = tmp_path / "own"
    shutil.copytree(voice, bundle)
    times = read_manifest(bundle).synthesis.solver_times
    edit_manifest(bundle, "synthesis.solver_times", times[:1])
    with pytest.raises(UsageError, match="made for the times of its own presets only"):
        quantize_bundle(bundle, tmp_path / "out", recipe=recipe)


def test_the_packages_recipe_judges_all_sentences_with_two_seeds() -> None:
    search = load_recipe("fast").presets
    assert search is not None
    assert search.candidates == [*CANDIDATES]
    assert (search.sentences, search.draws, search.mos_lost) == (66, 2, 0.1)


def test_a_solver_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    text = b'name = "x"\ndescription = ""\n[presets]\ncandidates = ["leapfrog"]\n'
    with pytest.raises(UsageError, match="no solver 'leapfrog' to try") as refused:
        parse_recipe(text, "x.toml")
    assert FEW[0] in refused.value.hint
