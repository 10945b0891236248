"""Autoregressive decoding of speech tokens, whatever engine computes the logits.

Source: CosyVoice cosyvoice/llm/llm.py, CosyVoice3LM.inference and inference_wrapper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.sampling import SamplingSettings, generator_for, sampler_named
from cosyvoice_cpu.errors import TextError, UsageError
from cosyvoice_cpu.generations import Generation
from cosyvoice_cpu.stage_api import SpeechLMSession


@dataclass(frozen=True)
class DecodingRules:
    """When decoding may and must end. Ids are absolute rows of the speech table."""

    speech_vocabulary: int  # ids below are speech
    stop_first: int
    stop_count: int
    original_banned: int  # the one id that the original bans below the minimum length
    min_token_text_ratio: float  # speech tokens per id of the target text
    max_token_text_ratio: float
    sampling: SamplingSettings = field(default_factory=SamplingSettings)

    @classmethod
    def of(
        cls,
        generation: Generation,
        speech_vocabulary: int,
        sampling: SamplingSettings | None = None,
    ) -> DecodingRules:
        """The rules of a generation, for a checkpoint with `speech_vocabulary` speech ids."""
        special = generation.special_ids
        return cls(
            speech_vocabulary=speech_vocabulary,
            stop_first=speech_vocabulary + special.stop_first,
            stop_count=special.stop_count,
            original_banned=speech_vocabulary + special.original_banned,
            min_token_text_ratio=generation.min_token_text_ratio,
            max_token_text_ratio=generation.max_token_text_ratio,
            sampling=sampling or SamplingSettings(),
        )

    @property
    def stop_ids(self) -> range:
        """Every id that ends decoding."""
        return range(self.stop_first, self.stop_first + self.stop_count)

    def token_limits(self, text_ids: int) -> tuple[int, int]:
        """Least and largest number of speech tokens for `text_ids` ids of target text."""
        return int(text_ids * self.min_token_text_ratio), int(text_ids * self.max_token_text_ratio)


def generate(
    session: SpeechLMSession,
    text_ids: Sequence[int],
    rules: DecodingRules,
    *,
    prompt_text_ids: Sequence[int] = (),
    prompt_speech_ids: Sequence[int] = (),
    sampler: str = "ras",
    seed: int = 0,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    original_stop_rule: bool = False,
) -> list[int]:
    """Speech tokens of `text_ids`, without the stop id that ended them.

    `sampler` is "ras" or "greedy". The limits default to the ratios of `rules` times the target's
    ids. Below `min_tokens` no stop id is drawn, neither first nor in the redraw for a repetition;
    with `original_stop_rule` only the one id that the original bans there, which lets speech end
    early. A result of `max_tokens` tokens was cut off. The silent-token rule is not applied.
    Raises: TextError without text ids, UsageError for contradictory limits or an unknown sampler,
    SynthesisError for logits that are not finite.
    """
    if not text_ids:
        raise TextError("there is no text to speak", "give at least one word")
    least, most = rules.token_limits(len(text_ids))
    most = most if max_tokens is None else max_tokens
    least = min(least, most) if min_tokens is None else min_tokens
    if not 0 <= least <= most:
        raise UsageError(
            f"at least {least} and at most {most} speech tokens can't both hold",
            "choose a minimum that is not above the maximum",
        )
    draw = sampler_named(sampler, rules.sampling)
    rng = generator_for(seed)
    stop = rules.stop_ids
    banned = (
        [rules.original_banned] if original_stop_rule else slice(rules.stop_first, stop[-1] + 1)
    )

    tokens: list[int] = []
    logits: Floats | None = None
    while len(tokens) < most:
        if logits is None:
            logits = session.prefill(text_ids, prompt_text_ids, prompt_speech_ids)
        else:
            logits = session.step(tokens[-1])
        if len(tokens) < least:
            logits = np.array(logits)  # the engine may own the buffer
            logits[banned] = -np.inf
        token = draw(logits, tokens, rng)
        if token in stop:
            break
        tokens.append(token)
    return tokens
