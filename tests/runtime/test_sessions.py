"""Open sessions: idle ones cost nothing, released ones open again."""

from __future__ import annotations

import time
from itertools import zip_longest

import numpy as np
import pytest

from cosyvoice_cpu.runtime.bundle_stages import BundleStages


def test_idle_sessions_of_all_stages_use_no_processor_time(tiny_bundle):
    stages = BundleStages.load(tiny_bundle, threads=2)
    stages.generate_speech_tokens([1, 2, 3], min_tokens=3, max_tokens=3)
    mel = np.full((80, 60), -5.0, np.float32)
    stages.mel_to_waveform(mel)
    started = time.process_time()
    time.sleep(0.5)
    # Three sessions with spinning threads would use 1.5 s here.
    assert time.process_time() - started < 0.25


def test_a_released_stage_opens_again_and_computes_the_same(tiny_bundle):
    stages = BundleStages.load(tiny_bundle)
    mel = np.random.default_rng(0).normal(-5, 2, (80, 60)).astype(np.float32)
    before = stages.mel_to_waveform(mel)
    stages.release("vocoder")
    stages.release("speech_lm")  # never opened: nothing to do
    np.testing.assert_array_equal(stages.mel_to_waveform(mel), before)
    with pytest.raises(KeyError):
        stages.release("tokenizer")


def test_utterances_drawn_token_by_token_and_in_turns_are_what_they_are_alone(tiny_bundle):
    stages = BundleStages.load(tiny_bundle)
    texts = [1, 2, 3], [4, 5, 6, 7]
    alone = [stages.generate_speech_tokens(text, seed=3, max_tokens=20) for text in texts]
    turns = [stages.stream_speech_tokens(text, seed=3, max_tokens=20) for text in texts]
    together: list[list[int]] = [[], []]
    for drawn in zip_longest(*turns):
        for tokens, token in zip(together, drawn, strict=True):
            if token is not None:
                tokens.append(token)
        stages.mel_to_waveform(np.full((80, 10), -5.0, np.float32))  # other stages run between
    assert together == alone
    assert all(alone)
