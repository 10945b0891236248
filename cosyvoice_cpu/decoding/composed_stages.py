"""Stages that are loops over other stages: the same code for the torch reference and all engines.

An engine that inherits from here differs from the reference in its networks only.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Audio, SolverPreset, Synthesis
from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.decoding.solver import Velocity, cosine_preset, solve
from cosyvoice_cpu.decoding.token_loop import stream_tokens
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.stage_api import FlowCondition, SpeechLMSession


class ComposedStages(ABC):
    """The loops of `cosyvoice_cpu.stage_api.Stages`: over speech tokens, and over solver steps."""

    def __init__(self, audio: Audio, synthesis: Synthesis) -> None:
        self.audio = audio
        self.synthesis = synthesis

    @property
    def max_frames(self) -> int:
        """Mel frames, prompt included, that flow and vocoder take in one piece."""
        return self.synthesis.max_frames

    @abstractmethod
    def speech_lm_session(self) -> SpeechLMSession:
        """An empty KV cache, for a caller that decodes token by token."""

    @abstractmethod
    def flow_condition(
        self,
        tokens: Sequence[int],
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        finalize: bool = True,
        streaming: bool = False,
    ) -> FlowCondition:
        """Raises: SynthesisError if no frame follows the prompt's, or an id is out of range."""

    @abstractmethod
    def flow_velocity(
        self,
        x: Floats,
        mask: Floats,
        mu: Floats,
        t: Floats,
        speaker: Floats,
        cond: Floats,
        *,
        streaming: bool = False,
    ) -> Floats:
        """The estimator once."""

    @contextlib.contextmanager
    def solving(self, frames: int, *, streaming: bool) -> Iterator[Velocity]:
        """`flow_velocity` for all steps of one mel; an engine may keep something for the block."""

        def velocity(
            x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
        ) -> Floats:
            return self.flow_velocity(x, mask, mu, t, speaker, cond, streaming=streaming)

        yield velocity

    def generate_speech_tokens(
        self,
        text_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        sampler: str = "ras",
        seed: int = 0,
        min_tokens: int | None = None,
        max_tokens: int | None = None,
        original_stop_rule: bool = False,
        embedding: Floats | None = None,
    ) -> list[int]:
        """All of `stream_speech_tokens`."""
        tokens = self.stream_speech_tokens(
            text_ids,
            prompt_text_ids=prompt_text_ids,
            prompt_speech_ids=prompt_speech_ids,
            sampler=sampler,
            seed=seed,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            original_stop_rule=original_stop_rule,
            embedding=embedding,
        )
        return list(tokens)

    def stream_speech_tokens(
        self,
        text_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        sampler: str = "ras",
        seed: int = 0,
        min_tokens: int | None = None,
        max_tokens: int | None = None,
        original_stop_rule: bool = False,
        embedding: Floats | None = None,
    ) -> Iterator[int]:
        """The loop of `decoding.token_loop`; `embedding` is unused in generation 3."""
        return stream_tokens(
            self.speech_lm_session(),
            text_ids,
            self.synthesis,
            prompt_text_ids=prompt_text_ids,
            prompt_speech_ids=prompt_speech_ids,
            sampler=sampler,
            seed=seed,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            original_stop_rule=original_stop_rule,
        )

    def tokens_to_mel(
        self,
        tokens: Sequence[int],
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        finalize: bool = True,
        streaming: bool = False,
        steps: int = 10,
        noise: Floats | None = None,
        preset: SolverPreset | None = None,
    ) -> Floats:
        """Condition, then the solver's steps from the fixed noise or `noise` [80, T].

        Raises: UsageError for a preset whose prompt is cached: here the prompt is always solved.
        """
        preset = preset or cosine_preset(self.synthesis.solver, steps)
        if preset.prompt == "cached" and not streaming:
            raise UsageError(
                "only bundles keep what they computed of a prompt", "take another preset"
            )
        condition = self.flow_condition(
            tokens,
            prompt_tokens=prompt_tokens,
            prompt_mel=prompt_mel,
            embedding=embedding,
            finalize=finalize,
            streaming=streaming,
        )
        bins, frames = condition["mu"].shape
        with self.solving(frames, streaming=streaming) as velocity:
            mel = solve(
                velocity,
                flow_noise(frames, bins, self.synthesis.max_frames) if noise is None else noise,
                **condition,
                preset=preset,
            )
        return mel[:, len(prompt_mel) :]
