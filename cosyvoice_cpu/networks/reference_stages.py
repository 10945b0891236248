"""The stage API on the torch networks: what every exported graph and engine is compared with.

NumPy in and out, float32, one utterance at a time. Token loop, solver and fixed noise are those of
`synthesis`, so that an engine differs from this reference in its networks only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverPreset
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings
from cosyvoice_cpu.decoding.composed_stages import ComposedStages
from cosyvoice_cpu.decoding.ids import flow_token_ids, require_speech_ids, require_text_ids
from cosyvoice_cpu.decoding.noise import harmonic_noise
from cosyvoice_cpu.decoding.recomputed_streams import (
    RecomputedFlowStream,
    RecomputedVocoderStream,
)
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.generations import Generation
from cosyvoice_cpu.networks.reference.flow_encoder import FlowEncoder, prompt_condition
from cosyvoice_cpu.networks.reference.flow_estimator import FlowEstimator
from cosyvoice_cpu.networks.reference.speech_lm import KVCache, SpeechLM
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from cosyvoice_cpu.networks.reference.weights import load_networks
from cosyvoice_cpu.stage_api import FlowCondition, SpeechLMSession


class ReferenceStages(ComposedStages):
    """Implements `cosyvoice_cpu.stage_api.Stages`; the methods' shapes are stated there.

    Extends it by the networks as attributes, for export and training, and `speech_lm_session`.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        generation: Generation,
        *,
        speech_lm: SpeechLM,
        flow_encoder: FlowEncoder,
        flow_estimator: FlowEstimator,
        vocoder: Vocoder,
    ) -> None:
        self.config = config
        self.generation = generation
        self.speech_lm = speech_lm
        self.flow_encoder = flow_encoder
        self.flow_estimator = flow_estimator
        self.vocoder = vocoder
        super().__init__(audio_settings(config), synthesis_settings(generation, config))

    @classmethod
    def load(cls, folder: Path, threads: int = 1, speech_lm: str = "base") -> ReferenceStages:
        """The networks of an official folder; `threads` becomes torch's setting, process-wide.

        Raises: CheckpointError if the folder is incomplete, damaged or of another size.
        """
        torch.set_num_threads(threads)
        checkpoint = open_checkpoint(folder, speech_lm=speech_lm, front_end=False)
        return cls(
            checkpoint.config,
            checkpoint.generation,
            **load_networks(checkpoint, "speech_lm"),
            **load_networks(checkpoint, "flow"),
            **load_networks(checkpoint, "vocoder"),
        )

    # Speech LM

    @torch.inference_mode()
    def speech_lm_logits(
        self,
        text_ids: Sequence[int],
        speech_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        embedding: Floats | None = None,
    ) -> Floats:
        """One pass over prompt and forced tokens; `embedding` is unused in this generation."""
        text = [*prompt_text_ids, *text_ids]
        rows = self.embed_prompt(text, [*prompt_speech_ids, *speech_ids])
        hidden = self.speech_lm(rows)[0, -len(speech_ids) - 1 :]
        return _array(self.speech_lm.logits(hidden))

    def speech_lm_session(self) -> SpeechLMSession:
        """An empty KV cache, for a caller that decodes token by token."""
        return _Session(self)

    def embed_prompt(self, text_ids: Sequence[int], speech_ids: Sequence[int]) -> Tensor:
        """Prefill rows [1, L, H]. Raises: TextError or SynthesisError for ids out of range."""
        config, special = self.config.speech_lm, self.generation.special_ids
        require_text_ids(text_ids, config.text_vocab_size)
        require_speech_ids(speech_ids, config.speech_table_rows)
        return self.speech_lm.embed_prompt(
            _ids(text_ids),
            _ids(speech_ids),
            sos=config.speech_token_size + special.sos,
            task=config.speech_token_size + special.task,
        )

    # Flow

    @torch.inference_mode()
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
        """`streaming` is unused: this encoder has no attention to mask. Negative ids count as 0.

        Raises: SynthesisError if no frame follows the prompt's, or an id is out of range.
        """
        ids = flow_token_ids([*prompt_tokens, *tokens], self.config.flow.vocab_size)
        used = len(ids) - (0 if finalize else self.config.flow.pre_lookahead_len)
        frames = used * self.config.flow.token_mel_ratio
        if frames <= len(prompt_mel):
            raise SynthesisError(
                f"{len(ids)} speech tokens leave no mel frame behind the {len(prompt_mel)} "
                "of the prompt",
                "give a longer text",
            )
        mu = self.flow_encoder(_ids(ids), finalize=finalize)
        cond = prompt_condition(_tensor(prompt_mel)[None], frames)
        speaker = self.flow_encoder.speaker(_tensor(embedding)[None])
        return {"mu": _array(mu[0]), "cond": _array(cond[0]), "speaker": _array(speaker[0])}

    @torch.inference_mode()
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
        """The estimator once, at any t."""
        inputs = [_tensor(array) for array in (x, mask, mu, t, speaker, cond)]
        return _array(self.flow_estimator(*inputs, streaming=streaming))

    def flow_stream(
        self,
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        steps: int = 10,
        window_seconds: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        preset: SolverPreset | None = None,
    ) -> RecomputedFlowStream:
        """It computes everything again for each piece, keeps all of the past, is not cancelled.

        Raises: UsageError for a window.
        """
        if window_seconds is not None:
            raise UsageError("the torch reference streams without a window", "give None")
        return RecomputedFlowStream(
            self,
            prompt_tokens=prompt_tokens,
            prompt_mel=prompt_mel,
            embedding=embedding,
            steps=steps,
            preset=preset,
        )

    # Vocoder

    @torch.inference_mode()
    def mel_to_f0(self, mel: Floats, *, finalize: bool = True) -> Floats:
        """In float64 inside. Raises: SynthesisError if `mel` is too short."""
        self._refuse_short(mel, finalize)
        return _array(self.vocoder.f0_predictor(_tensor(mel)[None], finalize=finalize)[0])

    @torch.inference_mode()
    def f0_to_source(
        self, f0: Floats, *, noise: Floats | None = None, phase: Floats | None = None
    ) -> Floats:
        """`phase` is unused in generation 3. Raises: SynthesisError beyond the fixed noise."""
        drawn = self._noise(len(f0)) if noise is None else _tensor(noise)
        return _array(self.vocoder.m_source(_tensor(f0)[None], drawn)[0])

    @torch.inference_mode()
    def mel_to_waveform(
        self, mel: Floats, *, finalize: bool = True, source: Floats | None = None
    ) -> Floats:
        """480 samples for each frame, eight frames fewer unless `finalize`.

        A `source` has the length that `f0_to_source(mel_to_f0(mel, finalize=finalize))` would have.
        Raises: SynthesisError if `mel` is too short, ValueError if `source` does not fit.
        """
        if source is None:
            source = self.f0_to_source(self.mel_to_f0(mel, finalize=finalize))
        self._refuse_short(mel, finalize)
        frames, rest = divmod(source.shape[1], self.config.vocoder.samples_per_frame)
        if rest or frames > mel.shape[1]:
            raise ValueError(f"source {source.shape} does not fit mel {mel.shape}")
        batch = _tensor(mel[:, :frames])[None], _tensor(source)[None]
        return _array(self.vocoder(*batch, finalize=finalize)[0])

    def vocoder_stream(self) -> RecomputedVocoderStream:
        """It computes everything again for each piece."""
        return RecomputedVocoderStream(self)

    def _noise(self, frames: int) -> Tensor:
        synthesis, hop = self.synthesis, self.audio.samples_per_frame
        return _tensor(
            harmonic_noise(
                frames * hop,
                synthesis.harmonic_noise_skip,
                synthesis.harmonics,
                synthesis.max_frames * hop,
            )
        )

    def _refuse_short(self, mel: Floats, finalize: bool) -> None:
        least = 1 if finalize else self.synthesis.vocoder_lookahead_frames + 1
        if mel.shape[1] < least:
            raise SynthesisError(
                f"a mel of {mel.shape[1]} frames is too short for the vocoder, which needs {least}",
                "give a longer text",
            )


class _Session:
    """One utterance in the speech LM, as `synthesis.decoding.SpeechLMSession` wants it."""

    def __init__(self, stages: ReferenceStages) -> None:
        self._stages = stages
        self._cache = KVCache(stages.config.speech_lm)

    @torch.inference_mode()
    def prefill(
        self,
        text_ids: Sequence[int],
        prompt_text_ids: Sequence[int],
        prompt_speech_ids: Sequence[int],
    ) -> Floats:
        text = [*prompt_text_ids, *text_ids]
        return self._logits(self._stages.embed_prompt(text, prompt_speech_ids))

    @torch.inference_mode()
    def step(self, token_id: int) -> Floats:
        return self._logits(self._stages.speech_lm.speech_embedding(_ids([token_id])))

    def _logits(self, rows: Tensor) -> Floats:
        network = self._stages.speech_lm
        return _array(network.logits(network(rows, self._cache)[0, -1]))


def _ids(ids: Sequence[int]) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.int64)[None]  # [1, N]


def _tensor(array: ArrayLike) -> Tensor:
    return torch.tensor(np.asarray(array, np.float32))  # a copy: the fixed noise is read-only


def _array(tensor: Tensor) -> Floats:
    return tensor.to(torch.float32).numpy()
