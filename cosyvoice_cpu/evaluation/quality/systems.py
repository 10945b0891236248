"""What is compared, and what both sides are given: text ids, a voice and rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.frontend.normalizer import normalize
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.retries import make_speech
from cosyvoice_cpu.synthesis.rules import SynthesisRules


@dataclass(frozen=True)
class Side:
    """A bundle, a checkpoint or an engine, through the stage API."""

    name: str
    stages: Stages


@dataclass(frozen=True, eq=False)
class Setting:
    """The same for both sides, whatever they are."""

    encode: Callable[[str], list[int]]
    prompt: Prompt
    prompt_text_ids: list[int]  # system prefix and transcript, in front of every text
    rules: SynthesisRules

    def text_ids(self, text: str) -> list[int]:
        """Ids of `text`, its numbers written out as `synth` does it."""
        return self.encode(normalize(text))

    @property
    def room(self) -> int:
        """Speech tokens that fit behind the prompt."""
        frames = self.rules.max_frames - len(self.prompt.tokens) * self.rules.frames_per_token
        return frames // self.rules.frames_per_token


@dataclass(frozen=True, eq=False)
class Utterance:
    """One sentence as a side says it; without tokens there is neither mel nor audio."""

    tokens: list[int]  # as the speech LM made them
    lost: bool  # empty, looping, silent or endless
    mel: Floats  # [80, frames]
    audio: Floats  # [samples]


def draw_tokens(
    side: Side, setting: Setting, text_ids: list[int], *, seed: int, item: int
) -> tuple[list[int], bool]:
    """Speech tokens of a text, and whether they are no plausible speech.

    There is one attempt only: what retries repair should be seen. `item` numbers the sentences,
    each of which has draws of its own.
    """
    speech = make_speech(
        side.stages,
        setting.rules,
        setting.prompt,
        setting.prompt_text_ids,
        text_ids,
        seed=seed,
        piece=item,
        room=setting.room,
        can_be_cut=False,
        retries=0,
    )
    return speech.tokens, speech.trouble is not None


def render(side: Side, setting: Setting, tokens: list[int], lost: bool) -> Utterance:
    """Speech tokens to audio. Raises: SynthesisError naming the side if it is not finite."""
    if not tokens:
        return Utterance(tokens, lost, np.zeros((80, 0), np.float32), np.zeros(0, np.float32))
    mel = mel_of(side, setting, tokens)
    audio = require_finite(side, "vocoder", side.stages.mel_to_waveform(mel))
    return Utterance(tokens, lost, mel, audio)


def mel_of(side: Side, setting: Setting, tokens: list[int]) -> Floats:
    """Log-mel [80, frames] of `tokens`, long silences shortened. Raises: SynthesisError."""
    rules, prompt = setting.rules, setting.prompt
    mel = side.stages.tokens_to_mel(
        shorten_silence(tokens, rules.silent_tokens, rules.silent_run_limit),
        prompt_tokens=prompt.tokens,
        prompt_mel=prompt.mel,
        embedding=prompt.embedding,
        steps=rules.solver_steps,
    )
    return require_finite(side, "flow", mel)


def logits_of(side: Side, setting: Setting, text_ids: list[int], tokens: list[int]) -> Floats:
    """Logits [N + 1, rows], teacher-forced with `tokens` [N]. Raises: SynthesisError."""
    logits = side.stages.speech_lm_logits(
        text_ids,
        tokens,
        prompt_text_ids=setting.prompt_text_ids,
        prompt_speech_ids=setting.prompt.speech_ids,
        embedding=setting.prompt.embedding,
    )
    return require_finite(side, "speech LM", logits)


def require_finite(side: Side, stage: str, array: Floats) -> Floats:
    """`array` itself. Raises: SynthesisError if one of its values is not finite."""
    if not np.isfinite(array).all():
        raise SynthesisError(
            f"the {stage} of {side.name} put out values that are not finite",
            "its weights are damaged, or a value was out of range for its precision",
        )
    return array
