"""Running one component on an utterance, on any implementation of the stage API.

    run_component(stages, "flow_estimator", utterance)["mel"]
    call = repeatable_call(stages, "decode", utterance, count=12)   # prompt read, nothing timed yet

Parity and the gate compare what `run_component` gives; calibration runs it on an engine whose
graphs are observed (`BundleStages(..., engines=...)`); timing, profile and bench repeat the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, ComponentName, SolverPreset
from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.decoding.solver import evaluations
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.stage_api import FlowCondition, Stages
from cosyvoice_cpu.utterances import Utterance

Call = Literal["prefill", "decode", "condition", "solver_step", "waveform"]
CALLS: tuple[Call, ...] = get_args(Call)
# The call that most of a component's time goes into.
MAIN_CALLS: dict[ComponentName, Call] = {
    "speech_lm": "decode",
    "flow_encoder": "condition",
    "flow_estimator": "solver_step",
    "vocoder": "waveform",
}
_GUIDED_ROWS = 2
_PROBED_SHARES = (0.0, 0.4, 0.9)  # of the solver's way: activations change with time


def run_component(
    stages: Stages,
    name: ComponentName,
    utterance: Utterance,
    *,
    mel: Floats | None = None,
    source: Floats | None = None,
    preset: str = DEFAULT_PRESET,
) -> dict[str, Floats]:
    """What a component makes of `utterance`, whose inputs come from `stages` as in synthesis.

        speech_lm        logits [N + 1, rows], teacher-forced in one pass
        flow_encoder     mu, cond [mel bins, T], speaker [mel bins], of prompt and tokens
        flow_estimator   mel [mel bins, frames], all steps of `preset`, the prompt's part removed
        vocoder          f0 [frames] in Hz, source [1, samples], waveform [samples]

    The vocoder takes `mel` in place of the flow's and `source` in place of its own (f0 is then left
    out): a phase is the sum of f0 over all the time before, so that two sources of nearly the same
    f0 can't be compared sample by sample. Raises: UsageError for another component, and whatever
    the stages raise.
    """
    if name == "speech_lm":
        logits = stages.speech_lm_logits(
            utterance.text_ids,
            utterance.tokens,
            prompt_text_ids=utterance.prompt_text_ids,
            prompt_speech_ids=utterance.prompt_tokens,
            embedding=utterance.embedding,
        )
        return {"logits": logits}
    if name == "flow_encoder":
        condition = _condition(stages, utterance)
        return {key: condition[key] for key in ("mu", "cond", "speaker")}
    if name == "flow_estimator":
        return {"mel": _mel(stages, utterance, preset)}
    if name != "vocoder":
        raise UsageError(f"{name} is not run on utterances", f"known: {', '.join(MAIN_CALLS)}")
    mel = _mel(stages, utterance, preset) if mel is None else mel
    results: dict[str, Floats] = {}
    if source is None:
        results["f0"] = stages.mel_to_f0(mel)
        source = stages.f0_to_source(results["f0"])
    return results | {"source": source, "waveform": stages.mel_to_waveform(mel, source=source)}


def probed_velocity(
    stages: Stages,
    condition: FlowCondition,
    mel: Floats,
    *,
    streaming: bool = False,
) -> Floats:
    """[6, mel bins, T]: the guided pair at three of the solver's times.

    On the straight line between the noise and `mel` [mel bins, T], prompt included.
    """
    noise = _noise(stages, mel.shape[1])
    times = [entry.time for entry in evaluations(stages.synthesis.solver)]
    results = []
    for step in sorted({int(share * len(times)) for share in _PROBED_SHARES}):
        t = times[step]
        x = ((1 - t) * noise + t * mel).astype(np.float32)
        results.append(_guided_velocity(stages, x, condition, t, streaming=streaming))
    return np.concatenate(results)


def guidance_share(stages: Stages, utterance: Utterance, preset: str) -> float | None:
    """How much guidance changes the velocity where `preset` first has it, as a share of it (rms).

    0 for stages whose row without condition is as the one with it; None for a preset without
    guidance.
    """
    solver = stages.synthesis.preset(preset)
    times = [entry.time for entry in evaluations(solver) if entry.rows == _GUIDED_ROWS]
    if not times:
        return None
    noise = _noise(stages, utterance_frames(stages, utterance))
    conditioned, free = _guided_velocity(stages, noise, _condition(stages, utterance), times[0])
    change = solver.guidance_rate * (conditioned - free)
    return float(np.sqrt(np.mean(change**2) / np.mean(conditioned**2)))


def repeatable_call(
    stages: Stages,
    name: Call,
    utterance: Utterance,
    count: int = 1,
    preset: str = DEFAULT_PRESET,
) -> Callable[[], Floats]:
    """A call of part of the stages' work, its inputs ready, as often as wanted.

        prefill       the prompt and text of the utterance into an empty cache
        decode        `count` tokens, one by one, behind a prefill that is done already
        condition     the flow's condition of prompt and tokens
        solver_step   `count` guided steps of the flow, two rows each, on noise: the time does not
                      depend on the values. Where `preset` has a cached prompt, of the target
                      alone, its condition included
        waveform      the vocoder at the length of the tokens, its excitation included

    Returns the last array computed, so that what comes out can be looked at.
    """
    solver = stages.synthesis.preset(preset)
    if name == "solver_step" and solver.prompt == "cached":
        return _steps_behind_prompt(stages, utterance, count, solver)
    return _PREPARED[name](stages, utterance, count)


def _prefill(stages: Stages, utterance: Utterance, count: int) -> Callable[[], Floats]:
    def call() -> Floats:
        return stages.speech_lm_session().prefill(
            utterance.text_ids, utterance.prompt_text_ids, utterance.prompt_tokens
        )

    return call


def _decode(stages: Stages, utterance: Utterance, count: int) -> Callable[[], Floats]:
    session = stages.speech_lm_session()
    first = session.prefill(utterance.text_ids, utterance.prompt_text_ids, utterance.prompt_tokens)

    def call() -> Floats:
        logits = first
        for token in utterance.tokens[:count]:
            logits = session.step(token)
        return logits

    return call


def _encode(stages: Stages, utterance: Utterance, count: int) -> Callable[[], Floats]:
    return lambda: _condition(stages, utterance)["mu"]


def _solver_steps(stages: Stages, utterance: Utterance, count: int) -> Callable[[], Floats]:
    noise = _noise(stages, utterance_frames(stages, utterance))
    condition: FlowCondition = {"mu": noise, "cond": noise, "speaker": noise[:, 0]}
    all_times = [entry.time for entry in evaluations(stages.synthesis.solver)]
    times = [all_times[step % len(all_times)] for step in range(count)]

    def call() -> Floats:
        velocity = noise
        for t in times:
            velocity = _guided_velocity(stages, noise, condition, t)
        return velocity

    return call


def _steps_behind_prompt(
    stages: Stages, utterance: Utterance, count: int, solver: SolverPreset
) -> Callable[[], Floats]:
    voice: dict[str, Any] = {
        "prompt_tokens": utterance.prompt_tokens,
        "prompt_mel": utterance.prompt_mel,
        "embedding": utterance.embedding,
    }
    presets = []
    for first in range(0, count, solver.steps):  # a mel takes as many as the preset has
        # Times that the bundle's table has.
        grid = [*solver.grid[: min(count - first, solver.steps)], 1.0]
        presets.append(
            msgspec.structs.replace(
                solver, method="euler", steps=len(grid) - 1, grid=grid, guidance_range=(0.0, 1.0)
            )
        )
        # Computes the prompt, which is kept.
        stages.flow_stream(**voice, preset=presets[-1], window_seconds=1.0)

    def call() -> Floats:
        for preset in presets:
            mel = stages.tokens_to_mel(utterance.tokens, **voice, preset=preset)
        return mel

    return call


def _waveform(stages: Stages, utterance: Utterance, count: int) -> Callable[[], Floats]:
    frames = utterance_frames(stages, utterance) - len(utterance.prompt_mel)
    mel = _noise(stages, frames) * 2 - 6  # a log-mel of speech lies about there
    return lambda: stages.mel_to_waveform(mel)


_PREPARED: Mapping[Call, Callable[[Stages, Utterance, int], Callable[[], Floats]]] = {
    "prefill": _prefill,
    "decode": _decode,
    "condition": _encode,
    "solver_step": _solver_steps,
    "waveform": _waveform,
}


def utterance_frames(stages: Stages, utterance: Utterance) -> int:
    """Mel frames of prompt and tokens together."""
    tokens = len(utterance.prompt_tokens) + len(utterance.tokens)
    return stages.audio.frames_of(tokens)


def _condition(stages: Stages, utterance: Utterance) -> FlowCondition:
    return stages.flow_condition(
        utterance.tokens,
        prompt_tokens=utterance.prompt_tokens,
        prompt_mel=utterance.prompt_mel,
        embedding=utterance.embedding,
    )


def _mel(stages: Stages, utterance: Utterance, preset: str) -> Floats:
    return stages.tokens_to_mel(
        utterance.tokens,
        prompt_tokens=utterance.prompt_tokens,
        prompt_mel=utterance.prompt_mel,
        embedding=utterance.embedding,
        preset=stages.synthesis.preset(preset),
    )


def _guided_velocity(
    stages: Stages,
    x: Floats,
    condition: FlowCondition,
    t: np.float32,
    *,
    streaming: bool = False,
) -> Floats:
    """[2, mel bins, T]: row 0 with the condition, row 1 without."""
    mu, cond, speaker = (
        np.stack([condition[key], np.zeros_like(condition[key])])
        for key in ("mu", "cond", "speaker")
    )
    mask = np.ones((2, 1, x.shape[1]), np.float32)
    return stages.flow_velocity(
        np.stack([x, x]), mask, mu, np.full(2, t, np.float32), speaker, cond, streaming=streaming
    )


def _noise(stages: Stages, frames: int) -> Floats:
    return flow_noise(frames, stages.synthesis.mel.num_mels, stages.synthesis.max_frames)
