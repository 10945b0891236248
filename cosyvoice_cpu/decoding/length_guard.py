"""Telling speech from an utterance that got lost, and the seeds for trying again.

A speech LM sometimes loops, falls silent or never stops. The original takes what comes; here the
pipeline looks at the tokens, tries again with another seed derived from the user's, and says so.
The bounds are far from anything that speech does, so that good audio is never made twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_RETRIES = 2
# In seconds, since the token rate differs between generations.
SHORTEST_TEXT_ID = 0.04  # ordinary speech takes 0.16 to 0.4 for each text id
LONGEST_SILENCE = 4.0
LONGEST_LOOP_PERIOD = 3.0
SHORTEST_LOOP = 2.0  # repeated exactly


@dataclass(frozen=True, order=True)
class Trouble:
    """What is wrong with an attempt; the larger `severity`, the less there is to use."""

    severity: int
    fact: str


def find_trouble(
    tokens: Sequence[int],
    *,
    text_ids: int,
    max_tokens: int,
    token_rate: float,
    silent: Collection[int] = (),
) -> Trouble | None:
    """What is wrong with `tokens`, spoken for `text_ids` ids of text; None for plausible speech.

    `tokens` is what the speech LM made, before silence is shortened; `max_tokens` the limit it was
    given, which only an utterance that did not stop reaches; `token_rate` in tokens per second.
    """
    if not tokens:
        return Trouble(5, "no speech tokens")
    if np.isin(np.asarray(tokens), list(silent)).all():
        return Trouble(4, f"{len(tokens)} speech tokens of silence only")
    if trouble := find_running_trouble(tokens, token_rate=token_rate, silent=silent):
        return trouble
    if len(tokens) >= max_tokens:
        return Trouble(2, f"no end within {max_tokens} speech tokens")
    if len(tokens) < text_ids * SHORTEST_TEXT_ID * token_rate:
        return Trouble(1, f"only {len(tokens)} speech tokens for {text_ids} text ids")
    return None


def find_running_trouble(
    tokens: Sequence[int], *, token_rate: float, silent: Collection[int] = ()
) -> Trouble | None:
    """What is wrong with the beginning of an utterance, whatever follows; None for nothing."""
    is_silent = np.isin(np.asarray(tokens), list(silent))
    if period := _loop_period(np.asarray(tokens), is_silent, token_rate):
        return Trouble(3, f"{period} speech tokens repeated over and over")
    if (silence := _longest_run(is_silent)) > LONGEST_SILENCE * token_rate:
        return Trouble(2, f"a silence of {silence} speech tokens")
    return None


def attempt_seed(seed: int, sentence: int, retry: int) -> int:
    """The seed of one attempt at one sentence: the same in every run, unrelated to the others."""
    sequence = np.random.SeedSequence(seed, spawn_key=(sentence, retry))
    return int(sequence.generate_state(1, np.uint64)[0])


def _loop_period(tokens: np.ndarray, is_silent: np.ndarray, token_rate: float) -> int:
    """The shortest period that repeats exactly for long enough, silence aside; 0 for none."""
    longest, shortest = (int(s * token_rate) for s in (LONGEST_LOOP_PERIOD, SHORTEST_LOOP))
    for period in range(1, min(longest, len(tokens) // 2) + 1):
        repeats = (tokens[period:] == tokens[:-period]) & ~is_silent[period:]
        if _longest_run(repeats) >= max(2 * period, shortest):
            return period
    return 0


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
