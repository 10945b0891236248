"""The stage API on a bundle's engines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Manifest
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.decoding.composed_stages import ComposedStages
from cosyvoice_cpu.errors import BundleError, SynthesisError, UsageError
from cosyvoice_cpu.runtime.flow import FlowEncoderEngine, FlowEstimatorEngine
from cosyvoice_cpu.runtime.speech_lm import LMUtterance, SpeechLMEngine
from cosyvoice_cpu.runtime.vocoder import VocoderEngine
from cosyvoice_cpu.stage_api import FlowCondition
from cosyvoice_cpu.synthesis.rules import decoding_rules

if TYPE_CHECKING:
    from cosyvoice_cpu.frontend.prepare import FrontEndModels
    from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

_ENGINES = {
    "speech_lm": ("_speech_lm",),
    "flow": ("_flow_encoder", "_flow_estimator"),
    "vocoder": ("_vocoder",),
}


class BundleStages(ComposedStages):
    """Implements `cosyvoice_cpu.stage_api.Stages`; engines open when a stage is first used."""

    def __init__(self, bundle: Bundle, threads: int, *, low_memory: bool = False) -> None:
        """With `low_memory` only the engines of the stage in use stay open."""
        self.bundle = bundle
        self.threads = threads
        self.low_memory = low_memory
        super().__init__(decoding_rules(bundle.manifest), bundle.manifest.synthesis.cfg_rate)

    @classmethod
    def load(
        cls, path: Path, threads: int = 1, *, trust: bool = False, low_memory: bool = False
    ) -> BundleStages:
        """Check the bundle at `path` and prepare it; `trust` skips the digests.

        `low_memory` closes the engines of a stage when another one begins.

        Raises: BundleError, ManifestError.
        """
        return cls(open_bundle(path, trust=trust), threads, low_memory=low_memory)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def bundle_path(self) -> Path:
        """The bundle's folder, absolute."""
        return self.bundle.path

    @property
    def max_frames(self) -> int:
        """Mel frames, prompt included, that flow and vocoder take in one piece."""
        tops = [self._flow_estimator.max_frames, self._vocoder.max_frames]
        return min([top for top in tops if top], default=self.manifest.synthesis.max_frames)

    def tokenizer(self) -> TextTokenizer | None:
        """The text tokenizer, None for a bundle without front end."""
        if "text_tokenizer" not in self.manifest.components:
            return None
        from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

        return TextTokenizer.load(
            self.bundle.path / "text_tokenizer", self.manifest.generation, in_bundle=True
        )

    def front_end(self) -> FrontEndModels:
        """Speaker encoder and speech tokenizer. Raises: BundleError for a bundle without them."""
        from cosyvoice_cpu.frontend.prepare import FrontEndModels

        missing = {"speaker_encoder", "speech_tokenizer"} - self.manifest.components.keys()
        if missing:
            raise BundleError(
                f"{self.bundle.path} has no {' and no '.join(sorted(missing))}",
                "export the checkpoint without --no-front-end, or use a ready speaker file",
            )
        return FrontEndModels(
            self.bundle.file("speaker_encoder", "speaker_encoder.onnx"),
            self.bundle.file("speech_tokenizer", "speech_tokenizer.onnx"),
        )

    @cached_property
    def _speech_lm(self) -> SpeechLMEngine:
        return SpeechLMEngine(self.bundle, self.threads)

    @cached_property
    def _flow_encoder(self) -> FlowEncoderEngine:
        return FlowEncoderEngine(self.bundle, self.threads)

    @cached_property
    def _flow_estimator(self) -> FlowEstimatorEngine:
        return FlowEstimatorEngine(self.bundle, self.threads, low_memory=self.low_memory)

    @cached_property
    def _vocoder(self) -> VocoderEngine:
        return VocoderEngine(self.bundle, self.threads)

    def release(self, stage: str) -> None:
        """Close the engines of "speech_lm", "flow" or "vocoder"; their next use opens them again.

        Raises: KeyError for another name.
        """
        for engine in _ENGINES[stage]:
            self.__dict__.pop(engine, None)  # what cached_property keeps

    def _begin(self, stage: str) -> None:
        if self.low_memory:
            for other in _ENGINES.keys() - {stage}:
                self.release(other)

    def speech_lm_session(self) -> LMUtterance:
        """An empty KV cache, for a caller that decodes token by token."""
        self._begin("speech_lm")
        return self._speech_lm.start()

    def speech_lm_logits(
        self,
        text_ids: Sequence[int],
        speech_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        embedding: Floats | None = None,
    ) -> Floats:
        """One pass over prompt and forced tokens; `embedding` is unused in generation 3."""
        session = self.speech_lm_session()
        rows = self._speech_lm.rows(text_ids, prompt_text_ids, [*prompt_speech_ids, *speech_ids])
        return session.append(rows, wanted=len(speech_ids) + 1)

    def flow_condition(
        self,
        tokens: Sequence[int],
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        finalize: bool = True,
        streaming: bool = False,
    ) -> FlowCondition:
        """`streaming` is unused in generation 3: its encoder has no attention to mask.

        Raises: SynthesisError if no frame follows the prompt's, or an id is out of range.
        """
        ids = [*prompt_tokens, *tokens]
        synthesis = self.manifest.synthesis
        used = len(ids) - (0 if finalize else synthesis.pre_lookahead_tokens)
        if used * self.manifest.audio.mel_frames_per_token <= len(prompt_mel):
            raise SynthesisError(
                f"{len(ids)} speech tokens leave no mel frame behind the {len(prompt_mel)} "
                "of the prompt",
                "give a longer text",
            )
        self._begin("flow")
        mu, speaker = self._flow_encoder.encode(ids, embedding, finalize=finalize)
        cond = np.zeros_like(mu)
        cond[:, : len(prompt_mel)] = np.asarray(prompt_mel, np.float32).T
        return {"mu": mu, "cond": cond, "speaker": speaker}

    def flow_velocity(
        self,
        x: Floats,
        mask: Floats,
        mu: Floats,
        t: Floats,
        speaker: Floats,
        cond: Floats,
        *,
        streaming: bool = False,
    ) -> Floats:
        """The estimator once, at one of the solver's times. Raises: UsageError for another t."""
        self._begin("flow")
        return self._flow_estimator.velocity(x, mask, mu, t, speaker, cond, streaming=streaming)

    def tokens_to_mel(
        self,
        tokens: Sequence[int],
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        finalize: bool = True,
        streaming: bool = False,
        steps: int = 10,
        noise: Floats | None = None,
    ) -> Floats:
        """Raises: UsageError unless `steps` is what the graphs were made for."""
        made_for = self.manifest.synthesis.solver_steps
        if steps != made_for:
            raise UsageError(
                f"this bundle's flow takes {made_for} steps, not {steps}",
                "leave the number of steps alone, or use the torch reference",
            )
        return super().tokens_to_mel(
            tokens,
            prompt_tokens=prompt_tokens,
            prompt_mel=prompt_mel,
            embedding=embedding,
            finalize=finalize,
            streaming=streaming,
            steps=steps,
            noise=noise,
        )

    def mel_to_f0(self, mel: Floats, *, finalize: bool = True) -> Floats:
        """Raises: SynthesisError if `mel` is too short."""
        self._begin("vocoder")
        return self._vocoder.f0(mel, finalize=finalize)

    def f0_to_source(self, f0: Floats) -> Floats:
        """Raises: SynthesisError beyond the 300 s of the fixed noise."""
        self._begin("vocoder")
        return self._vocoder.source(f0)

    def mel_to_waveform(
        self, mel: Floats, *, finalize: bool = True, source: Floats | None = None
    ) -> Floats:
        """Raises: SynthesisError if `mel` is too short or too long, ValueError for a source."""
        self._begin("vocoder")
        return self._vocoder.waveform(mel, finalize=finalize, source=source)
