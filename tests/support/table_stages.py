"""Stages small enough to see through: a Markov chain as speech LM, tokens drawn as mel and sine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from cosyvoice_cpu.bundle.manifest import Audio, SpeechIds
from cosyvoice_cpu.decoding.recomputed_streams import (
    RecomputedFlowStream,
    RecomputedVocoderStream,
)
from cosyvoice_cpu.decoding.token_loop import stream_tokens
from cosyvoice_cpu.generations import generation_named
from support.bundle_examples import SYNTHESIS

VOCABULARY = 40
GENERATION = generation_named("cosyvoice3")


@dataclass
class TableLM:
    """A speech LM whose logits depend on the last token only."""

    table: np.ndarray  # [rows + 1, rows]; the last row starts the utterance
    read: list[int] = field(default_factory=list)
    prompt: tuple[Sequence[int], Sequence[int], Sequence[int]] | None = None

    def prefill(self, text_ids, prompt_text_ids, prompt_speech_ids):
        self.prompt = (text_ids, prompt_text_ids, prompt_speech_ids)
        return self.table[-1]

    def step(self, token_id):
        self.read.append(token_id)
        return self.table[token_id]


def random_lm(seed: int, stop_bias: float = 0.0) -> TableLM:
    """A chain with random transitions; `stop_bias` is added to the logits of all stop ids."""
    rows = VOCABULARY + 200
    table = np.random.default_rng(seed).normal(0, 2, (rows + 1, rows)).astype(np.float32)
    table[:, VOCABULARY:] += np.float32(stop_bias)
    return TableLM(table)


AUDIO = Audio(sample_rate=24000, token_rate=25.0, mel_frames_per_token=2.0)
# Generation 3 with a small vocabulary.
SMALL = msgspec.structs.replace(
    SYNTHESIS,
    speech_vocabulary=VOCABULARY,
    special_ids=SpeechIds(
        sos=VOCABULARY,
        task=VOCABULARY + 2,
        stop_first=VOCABULARY,
        stop_count=200,
        original_banned=VOCABULARY,
    ),
    silent_tokens=[1, 2],
)


class TableStages:
    """Implements the part of the stage API that the pipeline calls, and records the calls.

    `script(call number, arguments)` may return tokens in place of the chain's.
    """

    def __init__(
        self,
        max_frames: int = 1500,
        stop_bias: float = 0.0,
        script: Callable[[int, dict[str, Any]], list[int] | None] | None = None,
    ) -> None:
        self.audio, self.synthesis, self.max_frames = AUDIO, SMALL, max_frames
        self._stop_bias = stop_bias
        self._script = script
        self.lm_calls: list[dict[str, Any]] = []
        self.flow_calls: list[dict[str, Any]] = []
        self.vocoder_frames: list[int] = []

    def stream_speech_tokens(self, text_ids, *, embedding=None, **arguments):
        self.lm_calls.append({"text_ids": list(text_ids), **arguments})
        if self._script:
            tokens = self._script(len(self.lm_calls) - 1, self.lm_calls[-1])
            if tokens is not None:
                return iter(tokens[: arguments["max_tokens"]])
        lm = random_lm(sum(text_ids) % 1000, self._stop_bias)
        return stream_tokens(lm, text_ids, self.synthesis, **arguments)

    def tokens_to_mel(
        self,
        tokens,
        *,
        prompt_tokens,
        prompt_mel,
        embedding,
        steps=10,
        finalize=True,
        streaming=False,
        preset=None,
    ):
        call = {"tokens": list(tokens), "prompt_tokens": list(prompt_tokens), "mel": prompt_mel}
        self.flow_calls.append(call)
        frames = 2 * (len(prompt_tokens) + len(tokens))
        assert frames <= self.max_frames
        return np.tile(np.repeat(np.float32(tokens), 2), (80, 1))

    def flow_stream(self, *, window_seconds=None, cancelled=None, **arguments):
        return RecomputedFlowStream(self, **arguments)

    def vocoder_stream(self):
        return RecomputedVocoderStream(self)

    def mel_to_waveform(self, mel, *, finalize=True):
        mel = mel if finalize else mel[:, : -self.synthesis.vocoder_lookahead_frames]
        frames = mel.shape[1]
        assert frames <= self.max_frames
        self.vocoder_frames.append(frames)
        pitch = np.repeat(100 + 5 * mel.mean(axis=0), 480)
        return (0.5 * np.cos(np.cumsum(2 * np.pi * pitch / 24000))).astype(np.float32)


@dataclass(frozen=True)
class Anna:
    """A speaker with everything that a clip and its transcript give."""

    name: str = "anna"
    prompt_text_ids: tuple[int, ...] = (21, 22)
    prompt_tokens: tuple[int, ...] = (4, 5, 6)
    prompt_mel: np.ndarray = field(default_factory=lambda: np.zeros((6, 80), np.float32))
    embedding: np.ndarray = field(default_factory=lambda: np.ones(192, np.float32))
