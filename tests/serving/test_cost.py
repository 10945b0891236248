"""Predictions from the text's length, corrected by what happened."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.serving.cost import CostModel

SENTENCE = "The baker opened his shop before the sun came up."


def test_a_sentence_takes_about_as_long_as_it_is_spoken() -> None:
    assert CostModel().seconds_audio(SENTENCE) == pytest.approx(3.4, abs=0.5)
    assert CostModel().seconds_audio("面包师在太阳升起之前就开了店。") == pytest.approx(
        3.6, abs=0.5
    )


def test_twice_the_speed_takes_half_the_time() -> None:
    cost = CostModel()
    assert cost.seconds_audio(SENTENCE, 2.0) == cost.seconds_audio(SENTENCE) / 2


def test_the_first_speech_sets_the_rtf_and_later_ones_move_it() -> None:
    cost = CostModel()
    cost.learn("x", 1.0, 2.0, 1.0)
    assert cost.rtf == 0.5
    cost.learn(SENTENCE, 1.0, 4.0, 4.0)
    assert cost.rtf == pytest.approx(0.6)


def test_predictions_reach_what_happens() -> None:
    cost = CostModel()
    for _ in range(40):
        cost.learn(SENTENCE, 1.0, 6.0, 3.0)
    assert cost.seconds_audio(SENTENCE) == pytest.approx(6.0, rel=0.01)
    assert cost.seconds_computing(SENTENCE) == pytest.approx(3.0, rel=0.01)


def test_a_speech_without_audio_teaches_nothing() -> None:
    cost = CostModel()
    cost.learn(SENTENCE, 1.0, 0.0, 9.0)
    assert cost.rtf == 1.0
