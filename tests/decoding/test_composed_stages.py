"""Stages that are loops over other stages, on stages that only note how they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.table_stages import AUDIO, SMALL

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.composed_stages import ComposedStages
from cosyvoice_cpu.stage_api import FlowCondition


class NotingStages(ComposedStages):
    """A condition of zeros, a velocity of ones."""

    def __init__(self) -> None:
        super().__init__(AUDIO, SMALL)
        self.streaming: list[bool] = []

    def speech_lm_session(self) -> Any:
        raise NotImplementedError

    def flow_condition(self, tokens, *, streaming=False, **given) -> FlowCondition:
        self.streaming.append(streaming)
        mel = np.zeros((80, AUDIO.frames_of(len(tokens))), np.float32)
        return {"mu": mel, "cond": mel, "speaker": mel[:, 0]}

    def flow_velocity(self, x, mask, mu, t, speaker, cond, *, streaming=False) -> Floats:
        self.streaming.append(streaming)
        return np.ones_like(x)


@pytest.mark.parametrize("streaming", [False, True])
def test_condition_and_velocity_are_both_told_of_streaming(streaming: bool) -> None:
    stages = NotingStages()
    mel = stages.tokens_to_mel(
        [1, 2, 3],
        prompt_tokens=[],
        prompt_mel=np.zeros((0, 80), np.float32),
        embedding=np.ones(192, np.float32),
        streaming=streaming,
        steps=4,
    )
    assert mel.shape == (80, 6)
    assert stages.streaming == [streaming] * 5  # the condition and four steps
