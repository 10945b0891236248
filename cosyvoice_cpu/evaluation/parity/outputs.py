"""Two implementations of the stage API on the same inputs, compared stage by stage.

    tensor    each network by itself, fed with the reference's own inputs
    mel       tokens through the flow's ten steps
    samples   tokens to waveform on the reference's excitation, sample by sample
    spectrum  the log-magnitude spectrogram of that waveform

The quality gate and `verify` take the same arrays and differ only in how they judge them. The
excitation is always the reference's: its phase is the sum of f0 over all the time before, so a
difference that nobody hears would turn samples upside down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.decoding.solver import solver_times, time_grid
from cosyvoice_cpu.evaluation.distances import spectrum_difference_db, sqnr_db
from cosyvoice_cpu.stage_api import FlowCondition, Stages
from cosyvoice_cpu.utterances import Utterance

_PROBED_STEPS = (0, 4, 9)  # first, middle and last of ten: activations change with time


class Outputs:
    """What one side makes of an item; each array is computed when it is first asked for."""

    def __init__(
        self,
        stages: Stages,
        item: Utterance,
        steps: int,
        reference: Outputs | None = None,
        *,
        known: Mapping[str, object] | None = None,
    ) -> None:
        """`steps` of the solver; without `reference` this side is the reference.

        `known` outputs, by attribute, were computed before and are not computed again.
        """
        for name, value in (known or {}).items():
            setattr(self, name, value)
        self._stages, self._item, self._steps = stages, item, steps
        self._given = reference or self
        self._prompt: dict[str, Any] = {
            "prompt_tokens": item.prompt_tokens,
            "prompt_mel": item.prompt_mel,
            "embedding": item.embedding,
        }

    @cached_property
    def logits(self) -> Floats:
        """[N + 1, rows] of the speech LM, teacher-forced."""
        return self._stages.speech_lm_logits(
            self._item.text_ids,
            self._item.tokens,
            prompt_text_ids=self._item.prompt_text_ids,
            prompt_speech_ids=self._item.prompt_tokens,
        )

    @cached_property
    def condition(self) -> FlowCondition:
        """`mu`, `cond` [80, T] and `speaker` [80] of prompt and tokens."""
        return self._stages.flow_condition(self._item.tokens, **self._prompt)

    @property
    def mu(self) -> Floats:
        """[80, T]"""
        return self.condition["mu"]

    @property
    def speaker(self) -> Floats:
        """[80]"""
        return self.condition["speaker"]

    @cached_property
    def velocity(self) -> Floats:
        """[6, 80, T]: the guided pair at three of the solver's times."""
        return self._velocity(streaming=False)

    @cached_property
    def velocity_streaming(self) -> Floats:
        """The same under the streaming mask."""
        return self._velocity(streaming=True)

    def _velocity(self, *, streaming: bool) -> Floats:
        """On the straight line between the noise and the reference's mel."""
        condition = self._given.condition
        pair = {
            name: np.stack([array, np.zeros_like(array)])
            for name, array in (("mu", condition["mu"]), ("cond", condition["cond"]))
        }
        speaker = np.stack([condition["speaker"], np.zeros_like(condition["speaker"])])
        bins, frames = condition["mu"].shape
        noise = flow_noise(frames, bins, self._stages.synthesis.max_frames)
        mel = np.concatenate([self._item.prompt_mel.T, self._given.mel], axis=1)  # [80, T]
        results = []
        for step in sorted({min(step, self._steps - 1) for step in _PROBED_STEPS}):
            t = solver_times(time_grid(self._steps))[step]
            x = ((1 - t) * noise + t * mel).astype(np.float32)
            results.append(
                self._stages.flow_velocity(
                    np.stack([x, x]),
                    np.ones((2, 1, frames), np.float32),
                    pair["mu"],
                    np.full(2, t, np.float32),
                    speaker,
                    pair["cond"],
                    streaming=streaming,
                )
            )
        return np.concatenate(results)

    @cached_property
    def f0(self) -> Floats:
        """[frames] in Hz, of the reference's mel."""
        return self._stages.mel_to_f0(self._given.mel)

    @cached_property
    def source(self) -> Floats:
        """[1, samples], of the reference's f0."""
        return self._stages.f0_to_source(self._given.f0)

    @cached_property
    def vocoded(self) -> Floats:
        """[samples], of the reference's mel and excitation."""
        return self._stages.mel_to_waveform(self._given.mel, source=self._given.source)

    @cached_property
    def mel(self) -> Floats:
        """[80, frames] of the tokens, the prompt's part removed."""
        return self._stages.tokens_to_mel(self._item.tokens, steps=self._steps, **self._prompt)

    @cached_property
    def waveform(self) -> Floats:
        """[samples], of this side's mel and the reference's excitation."""
        return self._stages.mel_to_waveform(self.mel, source=self._given.source)


Bound = Literal["at_least", "at_most"]


@dataclass(frozen=True)
class GateMeasure:
    """What the quality gate looks at."""

    name: str  # with its unit
    component: ComponentName  # to blame: all that stands before is the reference's or float32
    output: str  # attribute of `Outputs`
    bound: Bound
    value: Callable[[Floats, Floats], float]  # (got, want)


GATE_MEASURES = (
    GateMeasure("logits_sqnr_db", "speech_lm", "logits", "at_least", sqnr_db),
    GateMeasure("mu_sqnr_db", "flow_encoder", "mu", "at_least", sqnr_db),
    GateMeasure("speaker_sqnr_db", "flow_encoder", "speaker", "at_least", sqnr_db),
    GateMeasure("velocity_sqnr_db", "flow_estimator", "velocity", "at_least", sqnr_db),
    GateMeasure("mel_sqnr_db", "flow_estimator", "mel", "at_least", sqnr_db),
    GateMeasure("spectrum_db", "flow_estimator", "waveform", "at_most", spectrum_difference_db),
    GateMeasure("waveform_sqnr_db", "flow_estimator", "waveform", "at_least", sqnr_db),
    GateMeasure("vocoded_spectrum_db", "vocoder", "vocoded", "at_most", spectrum_difference_db),
    GateMeasure("vocoded_sqnr_db", "vocoder", "vocoded", "at_least", sqnr_db),
)
