"""Asking the speech LM until what it says is plausible, within reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cosyvoice_cpu.decoding.length_guard import Trouble, attempt_seed, find_trouble
from cosyvoice_cpu.decoding.token_loop import token_limits
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.stage_api import Cancelled, Stages
from cosyvoice_cpu.synthesis.pieces import quote
from cosyvoice_cpu.synthesis.prompts import Prompt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speech:
    """The speech tokens of one piece. `trouble` is what is wrong with them, None for nothing."""

    tokens: list[int]
    retries: int
    trouble: Trouble | None
    warnings: tuple[str, ...]


def make_speech(
    stages: Stages,
    prompt: Prompt,
    prompt_text_ids: Sequence[int],
    text_ids: Sequence[int],
    *,
    seed: int,
    piece: int,
    room: int,
    can_be_cut: bool,
    retries: int,
    first: list[int] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Speech:
    """The first plausible attempt, or the least bad of `retries + 1`; maybe without tokens.

    `piece` numbers the pieces of a text from 0, `room` is the largest number of tokens that the
    flow and the vocoder can take. A piece that fills the room is not tried again if it can be cut.
    `first` is the first attempt, where it is made already.
    Raises: Cancelled before the next token once `cancelled` says so; whatever the speech LM raises.
    """
    _, most = token_limits(stages.synthesis, len(text_ids))
    most = min(most, room)
    attempts: list[tuple[Trouble, list[int]]] = []
    for retry in range(retries + 1):
        if first is not None and retry == 0:
            tokens = first
        else:
            drawn = draw_speech(
                *(stages, prompt, prompt_text_ids, text_ids),
                seed=attempt_seed(seed, piece, retry),
                room=room,
                cancelled=cancelled,
            )
            tokens = list(drawn)
        trouble = find_trouble(
            tokens,
            text_ids=len(text_ids),
            max_tokens=most,
            token_rate=stages.audio.token_rate,
            silent=stages.synthesis.silent_tokens,
        )
        if trouble is None:
            return Speech(tokens, retry, None, _warnings(piece, attempts))
        log.info("piece %d, attempt %d: %s", piece + 1, retry + 1, trouble.fact)
        if can_be_cut and len(tokens) >= room:
            return Speech(tokens, retry, trouble, ())
        attempts.append((trouble, tokens))
    warnings = _warnings(piece, attempts)
    trouble, tokens = min(attempts, key=lambda attempt: attempt[0].severity)
    if tokens and retries:
        warnings += (f"piece {piece + 1}: attempts used up, the least bad one is taken",)
    return Speech(tokens, retries, trouble, warnings)


def draw_speech(
    stages: Stages,
    prompt: Prompt,
    prompt_text_ids: Sequence[int],
    text_ids: Sequence[int],
    *,
    seed: int,
    room: int,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[int]:
    """The tokens of one attempt, each as it is drawn. Raises: as `make_speech`."""
    least, most = token_limits(stages.synthesis, len(text_ids))
    most = min(most, room)
    tokens = stages.stream_speech_tokens(
        text_ids,
        prompt_text_ids=prompt_text_ids,
        prompt_speech_ids=prompt.speech_ids,
        seed=seed,
        min_tokens=min(least, most),
        max_tokens=most,
        embedding=prompt.embedding,
    )
    for token in tokens:
        yield token
        if cancelled and cancelled():
            raise Cancelled


def nothing_spoken(what: str, text: str, retries: int) -> SynthesisError:
    """For a piece of which nothing, or nothing that can be heard, came."""
    attempts = "an attempt" if retries == 0 else f"{retries + 1} attempts"
    return SynthesisError(
        f"{what} came of {quote(text)} in {attempts}",
        "try another --seed or speaker, or reword the text",
    )


def _warnings(piece: int, attempts: Sequence[tuple[Trouble, list[int]]]) -> tuple[str, ...]:
    return tuple(
        f"piece {piece + 1}, attempt {number}: {trouble.fact}"
        for number, (trouble, _) in enumerate(attempts, start=1)
    )
