"""The gate listens: what listeners report decides, and without listeners it says so."""

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
from cosyvoice_cpu.quantization.findings import Findings
from cosyvoice_cpu.quantization.heard import Heard, judge_cells, listen
from cosyvoice_cpu.quantization.recipe import SpeechLimits
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

LIMITS = SpeechLimits(sentences=1)
(TEXT,) = (sentence.text for sentence in first_sentences(1))


class Script:
    """A recogniser that hears what a script says, whatever is played to it."""

    languages = frozenset({"en"})

    def __init__(self, *heard: str) -> None:
        self.heard = list(heard)

    def transcribe(self, wave16k: NDArray[np.float32]) -> str:
        return self.heard.pop(0)


class Encoder:
    """Hears the same voice in everything."""

    name = "an encoder"
    independent = True

    def embed(self, wave16k: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.ones(2, np.float32)


@pytest.fixture(scope="module")
def voice(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with a speaker of random tokens."""
    bundle = tmp_path_factory.mktemp("heard") / "voice"
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


def heard(bundle: Path, script: Sequence[str]) -> Heard:
    stages = BundleStages(open_bundle(bundle), 1)
    findings = Findings(stages.manifest)
    estimators = [Intelligibility(Script(*script)), SpeakerSimilarity(Encoder())]
    return listen(stages, lambda: stages, LIMITS, findings, "key", lambda done: None, estimators)


def test_both_sides_are_listened_to(voice: Path) -> None:
    """The voice of random networks, with a listener who understands it the first two times."""
    found = heard(voice, [TEXT, TEXT, ""])
    assert {result.measure: result.passed for result in found.results} == {
        "mel_correlation": True,
        "loudness_change_db": True,
        "word_errors_added_low": False,
        "prompt_similarity_lost_low": True,
    }
    assert found.remarks[0].endswith("of 1 sentences: 100.0 (100.0 to 100.0) %")


def test_a_voice_that_nobody_understands_is_left_out(voice: Path) -> None:
    found = heard(voice, [""])
    assert found.results == []
    assert found.remarks == [
        "words and voices were left out of the gate: in float32, 100% of the words are wrong"
    ]


def test_without_a_speaker_it_is_left_out(tiny_bundle: Path) -> None:
    assert "has no speaker, see cache-speaker" in heard(tiny_bundle, []).remarks[0]


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
