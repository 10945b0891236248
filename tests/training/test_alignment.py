"""Word times of generated speech, the prose beside the made sentences, and the guided heads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM, rotary_table, rotate
from training.alignment import character_of_tokens, word_places, word_times
from training.guided_attention import (
    HEADS,
    LAYERS,
    AttentionGuide,
    allowed_pieces,
)
from training.phonemes import BLANK
from training.prose import example_sentences, speech_sentences
from training.sizes import speech_lm_config

EDGE, COMMA, SOUND = 0, 3, 50
CONFIG = speech_lm_config(40)


def _units(*runs):
    return np.concatenate([np.full(length, unit, np.uint8) for unit, length in runs])


def test_words_begin_and_end_with_their_stretch_of_phonemes():
    units = _units((EDGE, 8), (SOUND, 8), (BLANK, 1), (SOUND, 15), (COMMA, 8), (SOUND, 8))
    times = word_times("One two, three.", units)
    assert times.tolist() == [[5, 10], [11, 20], [25, 30]]


def test_a_text_that_is_read_in_more_words_than_it_shows_has_no_times():
    units = _units((SOUND, 4), (BLANK, 1), (SOUND, 4))
    assert word_times("1984", units).shape == (0, 2)
    assert word_times("one", units).shape == (0, 2)


def test_tokens_of_a_text_without_times_say_no_character():
    assert np.isnan(character_of_tokens("one", np.zeros((0, 2), np.int16), 4)).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 5))
def test_characters_never_run_backwards_and_every_token_lies_in_its_word(lengths, pause):
    text = " ".join("a" * length for length in lengths)
    ends = np.cumsum([length + pause for length in lengths])
    times = np.stack([ends - lengths, ends], 1).astype(np.int16)
    characters = character_of_tokens(text, times, int(ends[-1]) + 3)
    assert (np.diff(characters) >= 0).all()
    for (first, end), (start, stop) in zip(times.tolist(), word_places(text), strict=True):
        assert ((characters[first:end] >= start) & (characters[first:end] <= stop)).all()


def test_every_token_may_look_at_some_piece_for_every_head():
    characters = np.linspace(0, 20, 41, dtype=np.float32)
    starts = np.array([0, 3, 9, 15], np.float32)
    ends = np.array([3, 9, 15, 20], np.float32)
    now, ahead = allowed_pieces(starts, ends, characters)
    assert now.any(1).all() and ahead.any(1).all()
    assert now[0].tolist() == [True, False, False, False]
    assert ahead[0].tolist() == [True, True, False, False]
    assert now[-1].tolist() == ahead[-1].tolist() == [False, False, False, True]


def test_tokens_without_a_character_may_look_nowhere():
    unknown = np.full(3, np.nan, np.float32)
    for mask in allowed_pieces(np.zeros(1, np.float32), np.ones(1, np.float32), unknown):
        assert not mask.any()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SpeechLM(CONFIG)


def _attention(layer, x, head):
    """Causal attention [B, L, L] of a query head, by the definition."""
    size, length = layer.head_dim, x.shape[1]
    rotary = rotary_table(CONFIG, 0, length, x.device)
    queries = layer.q_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
    keys = layer.k_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
    scores = rotate(queries, rotary) @ rotate(keys, rotary).transpose(2, 3) / size**0.5
    return torch.softmax(scores + torch.full((length, length), -torch.inf).triu(1), -1)[:, head]


def test_the_guide_scores_the_very_attention_of_the_network(network):
    length = 7
    allowed = torch.rand(len(HEADS), 2, length, length) < 0.5
    allowed &= torch.ones(length, length, dtype=torch.bool).tril()
    inputs = {}
    layers = [network.layers[index].self_attn for index in LAYERS]
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, given: inputs.update({layer: given[0]}))
    guide = AttentionGuide(network)
    with guide.watching():
        network(torch.randn(2, length, CONFIG.hidden_size))
    expected = []
    for layer in layers:
        for (head, _, _), mask in zip(HEADS, allowed, strict=True):
            resting = (_attention(layer, inputs[layer], head) * mask).sum(-1)
            expected.append(-resting[mask.any(-1)].log().mean())
        layer._forward_pre_hooks.clear()
    assert torch.allclose(guide.loss(list(allowed)), torch.stack(expected).mean(), atol=1e-5)


def test_queries_without_an_allowed_key_do_not_count(network):
    nothing = torch.zeros(1, 3, 3, dtype=torch.bool)
    guide = AttentionGuide(network)
    with guide.watching():
        network(torch.randn(1, 3, CONFIG.hidden_size))
    assert guide.loss([nothing] * len(HEADS)) == 0


def test_watching_leaves_no_hook_behind(network):
    guide = AttentionGuide(network)
    with pytest.raises(ZeroDivisionError), guide.watching():
        raise ZeroDivisionError
    assert not any(layer.self_attn._forward_pre_hooks for layer in network.layers)


def test_prose_is_whole_sentences_that_need_no_guess_at_how_they_are_read(tmp_path):
    head = "  1 a licence line\n"
    gloss = '1 n | a stop; "the goalie made a brilliant save"; "1984 was cold"; "NATO came home"'
    (tmp_path / "data.noun").write_text(f"{head}{gloss}\n")
    (tmp_path / "data.verb").write_text('2 | be; "is it late?"; "too short"\n')
    for name in ("data.adj", "data.adv"):
        (tmp_path / name).write_text('3 | very; "the goalie made a brilliant save"\n')
    assert example_sentences(tmp_path) == ("Is it late?", "The goalie made a brilliant save.")


def test_prose_names_the_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.noun"):
        example_sentences(tmp_path)


def test_speeches_give_the_sentences_that_are_plain_and_long_enough(tmp_path):
    text = (
        "Thank you. Let us\u2019s all look to the future now. In 1999 we did not go there at all."
    )
    (tmp_path / "1999.json").write_text(json.dumps({"year": 1999, "text": text}))
    (tmp_path / "1899.json").write_text(json.dumps({"year": 1899, "text": text * 2}))
    assert speech_sentences(tmp_path) == ("Let us's all look to the future now.",)
    with pytest.raises(FileNotFoundError, match="no speech"):
        speech_sentences(tmp_path / "none")
