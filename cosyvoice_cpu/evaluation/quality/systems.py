"""What is compared, and under which condition: text ids, a voice and rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, Audio, Synthesis
from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.frontend.normalizer import normalize
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.retries import make_speech
from cosyvoice_cpu.synthesis.streaming import WINDOW_SECONDS


@dataclass(frozen=True)
class System:
    """A bundle, a checkpoint or an engine, through the stage API."""

    name: str
    stages: Stages
    streaming: bool = False  # its flow speaks chunk by chunk, as in a stream
    preset: str = DEFAULT_PRESET  # of its flow's solver


@dataclass(frozen=True, eq=False)
class Condition:
    """The same for both systems, whatever they are."""

    encode: Callable[[str], list[int]]
    prompt: Prompt
    prompt_text_ids: list[int]  # system prefix and transcript, in front of every text
    audio: Audio
    synthesis: Synthesis
    max_frames: int  # mel frames that all systems take, prompt included

    def text_ids(self, text: str) -> list[int]:
        """Ids of `text`, its numbers written out as `synth` does it."""
        return self.encode(normalize(text))

    @property
    def room(self) -> int:
        """Speech tokens that fit behind the prompt."""
        return self.audio.tokens_within(self.max_frames - len(self.prompt.mel))


@dataclass(frozen=True, eq=False)
class Rendering:
    """One sentence as a system says it; without tokens there is neither mel nor audio."""

    tokens: list[int]  # as the speech LM made them
    lost: bool  # empty, looping, silent or endless
    mel: Floats  # [mel bins, frames]
    audio: Floats  # [samples]


def draw_tokens(
    system: System, condition: Condition, text_ids: list[int], *, seed: int, item: int
) -> tuple[list[int], bool]:
    """Speech tokens of a text, and whether they are no plausible speech.

    There is one attempt only: what retries repair should be seen. `item` numbers the sentences,
    each of which has draws of its own.
    """
    speech = make_speech(
        system.stages,
        condition.prompt,
        condition.prompt_text_ids,
        text_ids,
        seed=seed,
        piece=item,
        room=condition.room,
        can_be_cut=False,
        retries=0,
    )
    return speech.tokens, speech.trouble is not None


def render(system: System, condition: Condition, tokens: list[int], lost: bool) -> Rendering:
    """Speech tokens to audio. Raises: SynthesisError naming the system if it is not finite."""
    if not tokens:
        bins = condition.prompt.mel.shape[1]
        return Rendering(tokens, lost, np.zeros((bins, 0), np.float32), np.zeros(0, np.float32))
    mel = mel_of(system, condition, tokens)
    audio = require_finite(system, "vocoder", system.stages.mel_to_waveform(mel))
    return Rendering(tokens, lost, mel, audio)


def mel_of(system: System, condition: Condition, tokens: list[int]) -> Floats:
    """Log-mel [80, frames] of `tokens`, long silences shortened. Raises: SynthesisError."""
    synthesis, prompt = condition.synthesis, condition.prompt
    kept = shorten_silence(tokens, synthesis.silent_tokens, synthesis.silent_run_limit)
    voice: dict[str, Any] = {
        "prompt_tokens": prompt.tokens,
        "prompt_mel": prompt.mel,
        "embedding": prompt.embedding,
        "preset": system.stages.synthesis.preset(system.preset),
    }
    if system.streaming:
        stream = system.stages.flow_stream(**voice, window_seconds=WINDOW_SECONDS)
        mel = np.concatenate([stream.push(kept), stream.finish()], axis=1)
    else:
        mel = system.stages.tokens_to_mel(kept, **voice)
    return require_finite(system, "flow", mel)


def logits_of(
    system: System, condition: Condition, text_ids: list[int], tokens: list[int]
) -> Floats:
    """Logits [N + 1, rows], teacher-forced with `tokens` [N]. Raises: SynthesisError."""
    logits = system.stages.speech_lm_logits(
        text_ids,
        tokens,
        prompt_text_ids=condition.prompt_text_ids,
        prompt_speech_ids=condition.prompt.speech_ids,
        embedding=condition.prompt.embedding,
    )
    return require_finite(system, "speech LM", logits)


def require_finite(system: System, stage: str, array: Floats) -> Floats:
    """`array` itself. Raises: SynthesisError if one of its values is not finite."""
    if not np.isfinite(array).all():
        raise SynthesisError(
            f"the {stage} of {system.name} put out values that are not finite",
            "its weights are damaged, or a value was out of range for its precision",
        )
    return array
