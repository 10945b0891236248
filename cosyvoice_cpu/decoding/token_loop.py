"""Autoregressive decoding of speech tokens, whatever engine computes the logits.

Source: CosyVoice cosyvoice/llm/llm.py, CosyVoice3LM.inference and inference_wrapper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cosyvoice_cpu.bundle.manifest import Synthesis
from cosyvoice_cpu.decoding.sampling import generator_for, sampler_named
from cosyvoice_cpu.errors import TextError, UsageError
from cosyvoice_cpu.stage_api import SpeechLMSession


def token_limits(synthesis: Synthesis, text_ids: int) -> tuple[int, int]:
    """Least and largest number of speech tokens for `text_ids` ids of target text."""
    ratios = synthesis.min_token_text_ratio, synthesis.max_token_text_ratio
    return int(text_ids * ratios[0]), int(text_ids * ratios[1])


def stream_tokens(
    session: SpeechLMSession,
    text_ids: Sequence[int],
    synthesis: Synthesis,
    *,
    prompt_text_ids: Sequence[int] = (),
    prompt_speech_ids: Sequence[int] = (),
    sampler: str = "ras",
    seed: int = 0,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    original_stop_rule: bool = False,
) -> Iterator[int]:
    """Speech tokens of `text_ids`, each as it is drawn, without the stop id that ended them.

    `sampler` is "ras" or "greedy". The limits default to the manifest's ratios times the target's
    ids. Below `min_tokens` no stop id is drawn, neither first nor in the redraw for a repetition;
    with `original_stop_rule` only the one id that the original bans there, which lets speech end
    early. A result of `max_tokens` tokens was cut off. The silent-token rule is not applied.

    Wrong arguments are refused at the call. The model runs when a token is asked for, in the
    thread that asks; a caller that has enough closes the iterator or drops it, which frees the
    session.
    Raises: TextError without text ids, UsageError for contradictory limits or an unknown sampler;
    while iterating, SynthesisError for logits that are not finite.
    """
    if not text_ids:
        raise TextError("there is no text to speak", "give at least one word")
    least, most = token_limits(synthesis, len(text_ids))
    most = most if max_tokens is None else max_tokens
    least = min(least, most) if min_tokens is None else min_tokens
    if not 0 <= least <= most:
        raise UsageError(
            f"at least {least} and at most {most} speech tokens can't both hold",
            "choose a minimum that is not above the maximum",
        )
    draw = sampler_named(sampler, synthesis.sampling)
    special = synthesis.special_ids
    stop = range(special.stop_first, special.stop_first + special.stop_count)
    banned = [special.original_banned] if original_stop_rule else slice(stop.start, stop.stop)

    def drawn() -> Iterator[int]:
        rng = generator_for(seed)
        tokens: list[int] = []
        while len(tokens) < most:
            if tokens:
                logits = session.step(tokens[-1])
            else:
                logits = session.prefill(text_ids, prompt_text_ids, prompt_speech_ids)
            if len(tokens) < least:
                logits = np.array(logits)  # the engine may own the buffer
                logits[banned] = -np.inf
            token = draw(logits, tokens, rng)
            if token in stop:
                return
            tokens.append(token)
            yield token

    return drawn()
