"""Words and voices in the gate: what is measured decides, and what is skipped is said."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.evaluation.quality.estimators import Intelligibility, SpeakerSimilarity
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.quantization.gate.intelligibility import (
    SpeechCheck,
    check_speech,
    judge_cells,
)
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache
from cosyvoice_cpu.quantization.recipes.recipe import SpeechLimits
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

LIMITS = SpeechLimits(sentences=1)
(TEXT,) = (sentence.text for sentence in first_sentences(1))


class Script:
    """A recogniser that finds what a script says in any audio."""

    languages = frozenset({"en"})

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def transcribe(self, wave16k: NDArray[np.float32]) -> str:
        return self.texts.pop(0)


class Encoder:
    """Hears the same voice in everything."""

    name = "an encoder"
    independent = True

    def embed(self, wave16k: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ones(2, np.float32)


@pytest.fixture(scope="module")
def voice(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a speaker of random tokens."""
    bundle = tmp_path_factory.mktemp("speech") / "voice"
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


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))


def checked(bundle: Path, script: Sequence[str]) -> SpeechCheck:
    stages = BundleStages(open_bundle(bundle), 1)
    cache = MeasurementCache(stages.manifest)
    estimators = [Intelligibility(Script(*script)), SpeakerSimilarity(Encoder())]
    return check_speech(stages, lambda: stages, LIMITS, cache, "key", lambda done: None, estimators)


def test_both_systems_are_measured(voice: Path) -> None:
    """The voice of random networks, with a recogniser that understands it the first two times."""
    found = checked(voice, [TEXT, TEXT, ""])
    assert {result.measure: result.passed for result in found.results} == {
        "mel_correlation": True,
        "loudness_change_db": True,
        "word_errors_added_low": False,
        "prompt_similarity_lost_low": True,
    }
    assert found.remarks[0].endswith("of 1 sentences: 100.0 (100.0 to 100.0) %")


def test_a_voice_that_is_not_understood_is_skipped(voice: Path) -> None:
    found = checked(voice, [""])
    assert found.results == []
    assert found.remarks == [
        "words and voices were left out of the gate: in float32, 100% of the words are wrong"
    ]


def test_without_a_speaker_it_is_skipped(tiny_bundle: Path) -> None:
    assert "has no speaker, see cache-speaker" in checked(tiny_bundle, []).remarks[0]


def cell(errors: float, similarity: float = 0.8) -> dict[str, float]:
    return {
        "words": 10.0,
        "word_errors_added/both": errors,
        "prompt_similarity/reference": 0.8,
        "prompt_similarity/candidate": similarity,
        "mel_correlation/both": 0.995,
        "loudness_change_db/both": 0.1,
    }


def passed(cells: Sequence[dict[str, float]]) -> dict[str, bool]:
    return {r.measure: r.passed for r in judge_cells(cells, SpeechLimits()).results}


def test_words_that_are_lost_in_most_sentences_are_refused() -> None:
    assert not passed([cell(0.1), cell(0.2), cell(0.1), cell(0.1)])["word_errors_added_low"]


def test_words_lost_in_some_sentences_and_won_in_others_are_noise() -> None:
    cells = [cell(0.1), cell(-0.1), cell(0.2), cell(0.0)]
    assert passed(cells)["word_errors_added_low"]
    assert "(-5.0 to" in judge_cells(cells, SpeechLimits()).remarks[0]


def test_a_voice_that_is_lost_is_refused() -> None:
    cells = [cell(0.0, similarity) for similarity in (0.7, 0.72, 0.75)]
    assert not passed(cells)["prompt_similarity_lost_low"]
    assert passed([cell(0.0, 0.795)] * 3)["prompt_similarity_lost_low"]


def test_mos_is_judged_by_its_mean_and_only_where_it_was_predicted() -> None:
    lost = [cell(0.0) | {"mos_lost/both": value} for value in (0.05, 0.25)]
    found = judge_cells(lost, SpeechLimits())
    assert {r.measure: r.passed for r in found.results}["mos_lost"] is False
    assert found.remarks[-1].startswith("MOS lost, as predicted, of 2 sentences: 0.150 (")
    assert passed([cell(0.0) | {"mos_lost/both": 0.05}])["mos_lost"]
    assert "mos_lost" not in passed([cell(0.0)])
