"""Random prompts and speech tokens for the flow, the same for the same length."""

from __future__ import annotations

from typing import Any

import numpy as np


def a_voice(tokens: int) -> dict[str, Any]:
    """A prompt of that many tokens, its mel as long."""
    rng = np.random.default_rng(tokens)
    return {
        "prompt_tokens": rng.integers(0, 500, tokens).tolist(),
        "prompt_mel": (rng.standard_normal((2 * tokens, 80)) - 5).astype(np.float32),
        "embedding": rng.standard_normal(192).astype(np.float32),
    }


def speech(tokens: int) -> list[int]:
    """That many speech tokens."""
    return np.random.default_rng(tokens + 1000).integers(0, 500, tokens).tolist()
