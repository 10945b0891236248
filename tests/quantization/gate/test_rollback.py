"""What words and voices refuse is restored to float32, one component at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.quantization_examples import float_bundle, quantize_on_random_ids

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.quantization import quantize
from cosyvoice_cpu.quantization.gate.accuracy import QualityRefusedError, quality_result
from cosyvoice_cpu.quantization.gate.intelligibility import SpeechCheck, rollback

RECIPE = """
name = "mine"
description = "a test"

[search.speech_lm]
candidates = ["int8"]
min_speedup = 0.0

[search.speech_lm.limits]
logits_sqnr_db = 5.0

[search.flow_estimator]
candidates = ["int8"]
min_speedup = 0.0

[search.flow_estimator.limits]
velocity_sqnr_db = 5.0
mel_sqnr_db = 5.0
spectrum_db = 9.0
waveform_sqnr_db = 5.0
"""
WORDS = quality_result(None, "word_errors_added_low", 0.2, "at_most", 0.01)
MEL = quality_result(None, "mel_correlation", 0.9, "at_least", 0.99)
FINE = quality_result(None, "mel_correlation", 0.995, "at_least", 0.99)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return str(path)


def report_in_turn(monkeypatch: pytest.MonkeyPatch, *results: QualityResult) -> list[str]:
    """Checks that give one result after the other; the keys of what they were given."""
    waiting, keys = list(results), []

    def check_speech(reference: object, quantized: object, limits: object, cache: object, key: str,
                     progress: object) -> SpeechCheck:  # fmt: skip
        keys.append(key)
        return SpeechCheck([waiting.pop(0)], [])

    monkeypatch.setattr(quantize, "check_speech", check_speech)
    return keys


def precisions(bundle: Path) -> tuple[str, str]:
    parts = open_bundle(bundle).manifest.components
    return parts["speech_lm"].precision, parts["flow_estimator"].precision


def test_words_that_are_lost_send_the_speech_lm_back(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = report_in_turn(monkeypatch, WORDS, FINE)
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=recipe)
    speech_lm, flow = report.components
    assert precisions(tmp_path / "out") == ("float32", "int8-dynamic")
    assert speech_lm.restored == "speech: word_errors_added_low is 0.2, the limit is 0.01"
    assert speech_lm.precision == "float32" and speech_lm.bytes_after == speech_lm.bytes_before
    assert flow.restored is None
    assert len(set(keys)) == 2  # the second time another bundle is measured
    assert [result.measure for result in report.results if result.component == "speech_lm"] == []


def test_a_mel_that_is_another_sends_the_flow_back(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_in_turn(monkeypatch, MEL, FINE)
    quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=recipe)
    assert precisions(tmp_path / "out") == ("int8-weights", "float32")


def test_what_is_refused_to_the_end_is_all_float32(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_in_turn(monkeypatch, WORDS, WORDS)
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=recipe)
    assert precisions(tmp_path / "out") == ("float32", "float32")
    assert report.results == []


def test_a_part_that_the_recipe_gives_is_refused_and_not_restored(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_in_turn(monkeypatch, WORDS)
    with pytest.raises(QualityRefusedError):
        quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe="int8")
    assert not (tmp_path / "out").exists()


def chosen(results: list[QualityResult], searched: set[ComponentName]) -> str | None:
    found = rollback(results, searched)
    return found[0] if found else None


def test_suspects_stand_in_the_order_of_what_they_can_have_done() -> None:
    both: set[ComponentName] = {"speech_lm", "flow_estimator"}
    assert chosen([FINE, WORDS], both) == "speech_lm"
    assert chosen([FINE, WORDS], {"flow_estimator"}) == "flow_estimator"
    assert chosen([MEL, WORDS], both) == "flow_estimator"
    assert chosen([MEL], {"speech_lm"}) is None
    assert chosen([FINE], both) is None
