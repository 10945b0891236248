"""Estimators fill their measures from both systems, and only where they are needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.quality_examples import a_condition

from cosyvoice_cpu.evaluation.quality.comparison import compare
from cosyvoice_cpu.evaluation.quality.estimators import (
    Intelligibility,
    OpinionScore,
    SpeakerSimilarity,
)
from cosyvoice_cpu.evaluation.quality.measures import named
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.evaluation.quality.systems import System
from cosyvoice_cpu.runtime.bundle_stages import BundleStages


class Recogniser:
    """Notes what it is given and writes down the same words each time."""

    languages = frozenset({"en"})

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def transcribe(self, wave16k: np.ndarray) -> str:
        self.lengths.append(len(wave16k))
        return "the baker opened his shop"


def test_another_recogniser_fits_and_gets_both_systems_at_16_khz(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    recogniser = Recogniser()
    system = System("a", stages)
    table = compare(
        system,
        system,
        first_sentences(1),
        condition=a_condition(stages),
        estimators=[Intelligibility(recogniser)],
    )
    cells = table.items[0].cells
    seconds = cells["seconds_audio", "reference"].value
    assert recogniser.lengths == [pytest.approx(seconds * 16000, abs=1)] * 2
    assert cells["word_error_rate", "candidate"].value == pytest.approx(5 / 10)
    assert cells["word_errors_added", "both"].value == 0.0
    assert table.items[0].transcripts["candidate"] == "the baker opened his shop"


def test_no_recogniser_runs_for_measures_that_need_no_words(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    recogniser = Recogniser()
    condition = a_condition(stages)
    measures = named(["seconds_audio"])
    one = first_sentences(1)
    compare(
        None,
        System("a", stages),
        one,
        measures,
        condition=condition,
        estimators=[Intelligibility(recogniser)],
    )
    assert not recogniser.lengths


class Encoder:
    """Gives the two systems and the prompt, in the order of the calls, these embeddings."""

    name = "a script"
    independent = True

    def __init__(self, *embeddings: list[float] | None) -> None:
        self.embeddings = list(embeddings)

    def embed(self, wave16k: np.ndarray) -> np.ndarray | None:
        embedding = self.embeddings.pop(0)
        return None if embedding is None else np.array(embedding, np.float32)


def similarities(bundle: Path, encoder: Encoder) -> dict[tuple[str, str], float]:
    system = System("a", BundleStages.load(bundle))
    table = compare(
        system,
        system,
        first_sentences(1),
        named(SpeakerSimilarity.measures),
        condition=a_condition(system.stages),
        estimators=[SpeakerSimilarity(encoder)],
    )
    return {
        key: cell.value
        for key, cell in table.items[0].cells.items()
        if key[0] in SpeakerSimilarity.measures
    }


def test_voices_are_compared_with_the_prompt_and_with_each_other(bundle: Path) -> None:
    assert similarities(bundle, Encoder([1, 0], [1, 0], [0, 1])) == {
        ("prompt_similarity", "reference"): 1.0,
        ("prompt_similarity", "candidate"): 0.0,
        ("voice_similarity", "both"): 0.0,
    }


def test_a_system_without_a_voice_has_no_similarity(bundle: Path) -> None:
    assert similarities(bundle, Encoder([1, 0], [1, 0], None)) == {
        ("prompt_similarity", "reference"): 1.0
    }


class Falling:
    """Rates every clip lower than the one before."""

    name = "falling"

    def __init__(self) -> None:
        self.mos = 5.0

    def predict(self, audio: np.ndarray, sample_rate: int) -> float:
        self.mos -= 0.25
        return self.mos


def test_mos_is_taken_of_both_systems_and_lost_on_the_same_tokens(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    system = System("a", stages)
    table = compare(
        system,
        system,
        first_sentences(1),
        condition=a_condition(stages),
        estimators=[OpinionScore(Falling()), OpinionScore(Falling(), "dnsmos")],
    )
    cells = table.items[0].cells
    assert cells["mos", "reference"].value == 4.75
    assert cells["mos", "candidate"].value == 4.5
    assert cells["mos_lost", "both"].value == 0.5  # of the reference's tokens the candidate's: 4.25
    assert cells["dnsmos", "reference"].value == 4.75
    assert cells["dnsmos_lost", "both"].value == 0.5
