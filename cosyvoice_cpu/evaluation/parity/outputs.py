"""Two implementations of the stage API on the same inputs, compared stage by stage.

    tensor    each network by itself, fed with the reference's own inputs
    mel       tokens through all of the flow's steps
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
from typing import Literal

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.component_runner import probed_velocity, run_component
from cosyvoice_cpu.evaluation.distances import spectrum_difference_db, sqnr_db
from cosyvoice_cpu.stage_api import FlowCondition, Stages
from cosyvoice_cpu.utterances import Utterance


class Outputs:
    """What one system makes of an utterance; each array is computed when it is first asked for."""

    def __init__(
        self,
        stages: Stages,
        utterance: Utterance,
        reference: Outputs | None = None,
        *,
        known: Mapping[str, object] | None = None,
    ) -> None:
        """Without `reference` this system is the reference.

        `known` outputs, by attribute, were computed before and are not computed again.
        """
        for name, value in (known or {}).items():
            setattr(self, name, value)
        self._stages, self._utterance = stages, utterance
        self._given = reference or self

    @cached_property
    def logits(self) -> Floats:
        """[N + 1, rows] of the speech LM, teacher-forced."""
        return run_component(self._stages, "speech_lm", self._utterance)["logits"]

    @cached_property
    def condition(self) -> FlowCondition:
        """`mu`, `cond` [mel bins, T] and `speaker` [mel bins] of prompt and tokens."""
        made = run_component(self._stages, "flow_encoder", self._utterance)
        return FlowCondition(mu=made["mu"], cond=made["cond"], speaker=made["speaker"])

    @property
    def mu(self) -> Floats:
        """[mel bins, T]"""
        return self.condition["mu"]

    @property
    def speaker(self) -> Floats:
        """[mel bins]"""
        return self.condition["speaker"]

    @cached_property
    def velocity(self) -> Floats:
        """[6, mel bins, T]: the guided pair at three of the solver's times."""
        return self._velocity(streaming=False)

    @cached_property
    def velocity_streaming(self) -> Floats:
        """The same under the streaming mask."""
        return self._velocity(streaming=True)

    def _velocity(self, *, streaming: bool) -> Floats:
        """On the straight line between the noise and the reference's mel."""
        mel = np.concatenate([self._utterance.prompt_mel.T, self._given.mel], axis=1)
        return probed_velocity(self._stages, self._given.condition, mel, streaming=streaming)

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
        return self._waveform_of(self._given.mel)

    @cached_property
    def mel(self) -> Floats:
        """[mel bins, frames] of the tokens, the prompt's part removed."""
        return run_component(self._stages, "flow_estimator", self._utterance)["mel"]

    @cached_property
    def waveform(self) -> Floats:
        """[samples], of this system's mel and the reference's excitation."""
        return self._waveform_of(self.mel)

    def _waveform_of(self, mel: Floats) -> Floats:
        source = self._given.source
        made = run_component(self._stages, "vocoder", self._utterance, mel=mel, source=source)
        return made["waveform"]


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
