"""Predictions from the text's length, corrected by what happened."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.serving.cost import Cost, CostModel, Spent

SENTENCE = "The baker opened his shop before the sun came up."


def test_a_sentence_takes_about_as_long_as_it_is_spoken() -> None:
    assert CostModel().seconds_audio(SENTENCE) == pytest.approx(3.4, abs=0.5)
    assert CostModel().seconds_audio("面包师在太阳升起之前就开了店。") == pytest.approx(
        3.6, abs=0.5
    )


def test_twice_the_speed_takes_half_the_time() -> None:
    cost = CostModel()
    assert cost.seconds_audio(SENTENCE, 2.0) == cost.seconds_audio(SENTENCE) / 2


def test_the_speech_behind_the_warm_up_sets_the_rtf_and_later_ones_move_it() -> None:
    cost = CostModel()
    cost.learn("x", 1.0, Spent(2.0, 9.0))  # graphs were opened
    assert cost.rtf == 4.5
    cost.learn("x", 1.0, Spent(2.0, 1.0))
    assert cost.rtf == 0.5
    cost.learn(SENTENCE, 1.0, Spent(4.0, 4.0))
    assert cost.rtf == pytest.approx(0.6)


def test_predictions_reach_what_happens() -> None:
    cost = CostModel()
    for _ in range(40):
        cost.learn(SENTENCE, 1.0, Spent(6.0, 3.0), Spent(1.0, 1.0))
    assert cost.seconds_audio(SENTENCE) == pytest.approx(6.0, rel=0.01)
    expected = cost.expected(SENTENCE)
    assert expected.seconds == pytest.approx(3.0, rel=0.01)
    assert expected.first_seconds == pytest.approx(1.0, rel=0.01)
    assert expected.rtf_after == pytest.approx(0.4, rel=0.01)


def test_the_first_sound_of_a_few_words_costs_no_more_than_all_of_it() -> None:
    cost = CostModel()
    for _ in range(3):
        cost.learn(SENTENCE, 1.0, Spent(4.0, 2.0), Spent(1.0, 1.0))
    assert cost.expected("Yes.").first_seconds == cost.expected("Yes.").seconds < 1.0


def test_before_anything_was_spoken_all_of_a_speech_may_be_its_first_sound() -> None:
    assert CostModel().expected("x" * 100) == Cost(pytest.approx(7.0), pytest.approx(7.0), 1.0)


def test_a_speech_without_audio_teaches_nothing() -> None:
    cost = CostModel()
    cost.learn(SENTENCE, 1.0, Spent(0.0, 9.0))
    assert cost.rtf == 1.0
