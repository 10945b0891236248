"""Is the quantized component faster here? A short call on both sides, taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.evaluation.parity_items import Item
from cosyvoice_cpu.runtime.stages import BundleStages

_ROUNDS = 5
_TOKENS = 12  # decoded per round


def speedup_of(name: ComponentName, sides: tuple[BundleStages, BundleStages], item: Item) -> float:
    """Time of the first side / time of the second: decoded tokens of the speech LM, a flow step.

    The minimum of rounds that alternate: what else runs on the machine can only add.
    """
    prepare = _decoding if name == "speech_lm" else _flow_step
    calls = [prepare(stages, item) for stages in sides]
    for call in calls:
        call()  # opens sessions, touches pages
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for call, spent in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
    return min(times[0]) / min(times[1])


def _decoding(stages: BundleStages, item: Item) -> Callable[[], None]:
    session = stages.speech_lm_session()
    session.prefill(item.text_ids, item.prompt_text_ids, item.prompt_tokens)

    def call() -> None:
        for token in item.tokens[:_TOKENS]:
            session.step(token)

    return call


def _flow_step(stages: BundleStages, item: Item) -> Callable[[], None]:
    frames = (
        len(item.prompt_mel) // len(item.prompt_tokens) * len([*item.prompt_tokens, *item.tokens])
    )
    bins = item.prompt_mel.shape[1]
    rng = np.random.default_rng(0)
    x, mu, cond = (rng.standard_normal((2, bins, frames)).astype(np.float32) for _ in range(3))
    speaker = rng.standard_normal((2, bins)).astype(np.float32)
    mask, t = np.ones((2, 1, frames), np.float32), np.zeros(2, np.float32)

    def call() -> None:
        stages.flow_velocity(x, mask, mu, t, speaker, cond)

    return call
