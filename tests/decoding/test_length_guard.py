"""The bounds are seconds, whatever the token rate."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_cpu.decoding.length_guard import find_trouble


def trouble(tokens: list[int], token_rate: float, text_ids: int = 10) -> str | None:
    found = find_trouble(
        tokens, text_ids=text_ids, max_tokens=10_000, token_rate=token_rate, silent={0}
    )
    return found.fact if found else None


def speech(seconds: float, token_rate: float) -> list[int]:
    rng = np.random.default_rng(0)
    return [int(token) for token in rng.integers(1, 4000, int(seconds * token_rate))]


@pytest.mark.parametrize("token_rate", [12.5, 25, 50])
def test_four_seconds_of_silence_pass_and_a_little_more_does_not(token_rate: float) -> None:
    around = speech(2, token_rate)
    most = int(4 * token_rate)
    assert trouble([*around, *[0] * most, *around], token_rate) is None
    fact = trouble([*around, *[0] * (most + 1), *around], token_rate)
    assert fact == f"a silence of {most + 1} speech tokens"


@pytest.mark.parametrize("token_rate", [12.5, 25, 50])
def test_a_second_that_is_repeated_twice_more_is_a_loop(token_rate: float) -> None:
    once = speech(1, token_rate)
    assert trouble(once * 2, token_rate) is None
    assert trouble(once * 4, token_rate) == f"{len(once)} speech tokens repeated over and over"


@pytest.mark.parametrize("token_rate", [25, 50])
def test_a_text_id_takes_40_ms_at_least(token_rate: float) -> None:
    tokens = speech(1, token_rate)
    assert trouble(tokens, token_rate, text_ids=25) is None
    fact = trouble(tokens, token_rate, text_ids=26)
    assert fact == f"only {len(tokens)} speech tokens for 26 text ids"
