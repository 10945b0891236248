"""Which solver preset this machine can afford: its cost predicted from a few measured steps.

A token of the speech LM, a guided step of the flow and some seconds of the vocoder are timed once
(some seconds at full size); an evaluation without guidance counts as half a step. What was measured
is kept in the user's cache, by bundle, processor, threads and engines, for a day.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import msgspec
import onnxruntime

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, Manifest, SolverPreset, dump_manifest
from cosyvoice_cpu.component_runner import repeatable_call
from cosyvoice_cpu.decoding.solver import evaluated_rows
from cosyvoice_cpu.errors import OutputError
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.system.cache_folder import cache_folder, read_cached
from cosyvoice_cpu.system.machine import describe_machine

_SECONDS, _LEAST_SECONDS = 4.0, 1.0  # of audio that is measured
_TOKENS = 8
_KEPT_SECONDS = 24 * 3600.0
_MOST_BYTES = 4096


class Speed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds of computing for a second of audio."""

    others: float  # speech LM, flow encoder, vocoder
    step: float  # of the flow, guided: two rows
    cached_step: float  # the same behind a prompt that is cached


@dataclass(frozen=True)
class Choice:
    """The preset taken, and RTFs as predicted."""

    preset: str
    rtf: float
    default_rtf: float
    is_affordable: bool  # or the cheapest there is


def choose_preset(
    manifest: Manifest,
    speed: Speed,
    target_rtf: float,
    is_cached: Callable[[SolverPreset], bool] = lambda preset: True,
) -> Choice:
    """The best-sounding preset with at most `target_rtf`; the cheapest if none is so fast.

    The default sounds best, of the others those that compute more; what the gate refused is left
    out. Where `is_cached` says that a preset's prompt is not there, it is solved first, which costs
    what solving it with the target does.
    """
    presets = {
        name: preset
        for name, preset in manifest.synthesis.solver_presets.items()
        if name == DEFAULT_PRESET or not manifest.quality.refuses(name)
    }

    def step(preset: SolverPreset) -> float:
        return speed.cached_step if preset.prompt == "cached" and is_cached(preset) else speed.step

    rtfs = {
        name: speed.others + step(preset) * evaluated_rows(preset) / 2
        for name, preset in presets.items()
    }
    best_first = sorted(
        presets,
        key=lambda name: (
            name != DEFAULT_PRESET,
            -evaluated_rows(presets[name]),
            presets[name].prompt == "cached",
        ),
    )
    taken = next((name for name in best_first if rtfs[name] <= target_rtf), None)
    cheapest = min(presets, key=lambda name: rtfs[name])
    name = taken or cheapest
    return Choice(name, rtfs[name], rtfs[DEFAULT_PRESET], taken is not None)


def measured_speed(stages: BundleStages, prompt_seconds: float) -> tuple[Speed, bool]:
    """The speed of `stages` here, behind a prompt of that length, and whether it was known."""
    folder = cache_folder()
    key = hashlib.sha256(
        repr(
            (
                dump_manifest(stages.manifest),
                describe_machine().summary(),
                onnxruntime.__version__,
                stages.threads,
                stages.low_memory,
                sorted(stages.chosen_engines.items()),
                round(prompt_seconds),
            )
        ).encode()
    ).hexdigest()
    path = folder / "speed" / f"{key}.json" if folder else None
    if path is not None:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if time.time() - path.stat().st_mtime < _KEPT_SECONDS:
                content = read_cached(path, _MOST_BYTES) or b""
                return msgspec.json.decode(content, type=Speed), True
    speed = _measure(stages, prompt_seconds)
    if path is not None:
        with contextlib.suppress(OSError, OutputError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file_atomically(path, msgspec.json.encode(speed))
    return speed, False


def _measure(stages: BundleStages, prompt_seconds: float) -> Speed:
    held = floor(stages.max_frames / stages.audio.frame_rate)
    prompt = min(max(1.0, prompt_seconds), held - _LEAST_SECONDS)
    seconds = min(_SECONDS, held - prompt)
    request = Request(Workload(seconds, prompt), stages.audio, stages.synthesis)
    presets = stages.synthesis.solver_presets
    utterance = request.utterance

    def timed(call: Callable[[], Floats]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    prefill = timed(repeatable_call(stages, "prefill", utterance))  # opens the graph as well
    prefill = min(prefill, timed(repeatable_call(stages, "prefill", utterance)))
    decode = timed(repeatable_call(stages, "decode", utterance, _TOKENS)) / _TOKENS
    found = {}
    for name in ("condition", "solver_step", "waveform"):
        call = repeatable_call(stages, name, utterance)
        timed(call)
        found[name] = timed(call)
    speech_lm = prefill + decode * request.tokens
    others = speech_lm + found["condition"] + found["waveform"]
    cached = [name for name, preset in presets.items() if preset.prompt == "cached"]
    behind = found["solver_step"]
    if cached:
        call = repeatable_call(stages, "solver_step", utterance, preset=cached[0])
        timed(call)
        behind = timed(call)
    return Speed(others / seconds, found["solver_step"] / seconds, behind / seconds)
