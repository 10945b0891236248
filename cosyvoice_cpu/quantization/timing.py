"""Is the quantized component faster here? A short call on both sides, taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

_TOKENS = 12  # decoded per round
_ROUNDS, _FEWEST_ROUNDS = 7, 3
_MOST_SECONDS = 10.0  # after which the fewest rounds are enough
_LEAST_SECONDS = 0.002  # of a round: shorter ones measure the clock


def speedup_of(
    name: ComponentName, sides: tuple[BundleStages, BundleStages], item: Utterance
) -> float:
    """Time of the first side / time of the second, on a call that its component does most of.

    Decoded tokens of the speech LM, the flow's condition, a flow step, a waveform.
    """
    first, second = (_CALLS[name](stages, item) for stages in sides)
    return alternating_ratio(first, second)


def _decoding(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    session = stages.speech_lm_session()
    session.prefill(item.text_ids, item.prompt_text_ids, item.prompt_tokens)

    def call() -> None:
        for token in item.tokens[:_TOKENS]:
            session.step(token)

    return call


def _flow_step(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    frames, bins = _frames(stages, item), item.prompt_mel.shape[1]
    rng = np.random.default_rng(0)
    x, mu, cond = (rng.standard_normal((2, bins, frames)).astype(np.float32) for _ in range(3))
    speaker = rng.standard_normal((2, bins)).astype(np.float32)
    mask, t = np.ones((2, 1, frames), np.float32), np.zeros(2, np.float32)

    def call() -> None:
        stages.flow_velocity(x, mask, mu, t, speaker, cond)

    return call


def _condition(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    def call() -> None:
        stages.flow_condition(
            item.tokens,
            prompt_tokens=item.prompt_tokens,
            prompt_mel=item.prompt_mel,
            embedding=item.embedding,
        )

    return call


def _waveform(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    frames, bins = _frames(stages, item), item.prompt_mel.shape[1]
    mel = np.random.default_rng(0).standard_normal((bins, frames)).astype(np.float32)
    source = stages.f0_to_source(np.full(frames, 100, np.float32))

    def call() -> None:
        stages.mel_to_waveform(mel, source=source)

    return call


def _frames(stages: BundleStages, item: Utterance) -> int:
    tokens = len(item.prompt_tokens) + len(item.tokens)
    return round(tokens * stages.manifest.audio.mel_frames_per_token)


_CALLS: dict[ComponentName, Callable[[BundleStages, Utterance], Callable[[], None]]] = {
    "speech_lm": _decoding,
    "flow_encoder": _condition,
    "flow_estimator": _flow_step,
    "vocoder": _waveform,
}


def alternating_ratio(first: Callable[[], None], second: Callable[[], None]) -> float:
    """Time of `first` / time of `second`: the minimum of rounds that alternate.

    What else runs on the machine can only add.
    """
    begin = time.perf_counter()
    first()
    second()  # opens sessions, touches pages
    repeats = max(1, round(_LEAST_SECONDS / max(_seconds(second, 1), 1e-6)))
    times: list[tuple[float, float]] = []
    while len(times) < _ROUNDS and (
        len(times) < _FEWEST_ROUNDS or time.perf_counter() - begin < _MOST_SECONDS
    ):
        times.append((_seconds(first, repeats), _seconds(second, repeats)))
    return min(pair[0] for pair in times) / min(pair[1] for pair in times)


def _seconds(call: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start
