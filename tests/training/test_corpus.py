"""The corpus: shards of utterances with their features."""

from __future__ import annotations

import numpy as np
import pytest
from support.training_examples import TOKENS, write_shard

from training.corpus import Corpus


def test_an_utterance_has_two_mel_frames_and_four_log_mel_frames_per_token(folder):
    corpus = Corpus(folder, "train")
    assert len(corpus) == 2 * len(TOKENS)
    for utterance in corpus:
        n = utterance.tokens
        assert utterance.audio.shape == (960 * n,)
        assert utterance.mel.shape == (2 * n, 80) and utterance.log_mel.shape == (4 * n, 128)
        assert utterance.f0.shape == utterance.phase.shape == (2 * n,)


def test_a_missing_split_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no train shard"):
        Corpus(tmp_path, "train")


def test_a_speaker_with_little_speech_is_drawn_by_the_fourth_root_of_it(tmp_path):
    write_shard(tmp_path / "train-0000", 0)
    corpus = Corpus(tmp_path, "train")
    corpus.tokens = np.array([1600] * (len(corpus) - 1) + [100 * (len(corpus) - 1)])
    corpus.speakers = np.array(["main"] * (len(corpus) - 1) + ["further"])
    chances = corpus.chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[-1] / chances[:-1].sum() == pytest.approx(1 / 2)
