"""Streams by their definition: what is final of the whole, computed anew for each piece.

What the torch reference gives, and what the streams of engines with caches are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverPreset
from cosyvoice_cpu.stage_api import Stages


class RecomputedFlowStream:
    """Implements `cosyvoice_cpu.stage_api.FlowStream`."""

    def __init__(
        self,
        stages: Stages,
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        steps: int = 10,
        preset: SolverPreset | None = None,
    ) -> None:
        self._stages = stages
        self._prompt_tokens, self._prompt_mel = prompt_tokens, prompt_mel
        self._embedding, self._steps, self._preset = embedding, steps, preset
        self._tokens: list[int] = []
        self._given = 0  # frames
        self._ended = False

    def push(self, tokens: Sequence[int]) -> Floats:
        """Frames of whole chunks. Raises: ValueError behind the end."""
        if self._ended:
            raise ValueError("the stream has ended")
        self._tokens += tokens
        synthesis, audio = self._stages.synthesis, self._stages.audio
        known = len(self._prompt_tokens) + len(self._tokens) - synthesis.pre_lookahead_tokens
        chunk = synthesis.chunk_frames
        final = audio.frames_of(max(0, known)) // chunk * chunk - len(self._prompt_mel)
        if final <= self._given:
            return np.zeros((synthesis.mel.num_mels, 0), np.float32)
        return self._fresh(final, finalize=False)

    def finish(self) -> Floats:
        """The rest of the mel. Raises: SynthesisError if no frame follows the prompt's."""
        if self._ended:
            return np.zeros((self._stages.synthesis.mel.num_mels, 0), np.float32)
        self._ended = True
        return self._fresh(None, finalize=True)

    def _fresh(self, end: int | None, *, finalize: bool) -> Floats:
        mel = self._stages.tokens_to_mel(
            self._tokens,
            prompt_tokens=self._prompt_tokens,
            prompt_mel=self._prompt_mel,
            embedding=self._embedding,
            finalize=finalize,
            streaming=True,
            steps=self._steps,
            preset=self._preset,
        )[:, :end]
        fresh = mel[:, self._given :]
        self._given = mel.shape[1]
        return fresh


class RecomputedVocoderStream:
    """Implements `cosyvoice_cpu.stage_api.VocoderStream`."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._mel: Floats = np.zeros((stages.synthesis.mel.num_mels, 0), np.float32)
        self._given = 0  # samples

    def push(self, mel: Floats) -> Floats:
        """Samples [n] that are final now, from further frames [80, t]."""
        self._mel = np.concatenate([self._mel, mel], axis=1)
        if self._mel.shape[1] <= self._stages.synthesis.vocoder_lookahead_frames:
            return np.zeros(0, np.float32)
        return self._fresh(finalize=False)

    def finish(self) -> Floats:
        """The rest of the samples."""
        return self._fresh(finalize=True) if self._mel.shape[1] else np.zeros(0, np.float32)

    def _fresh(self, *, finalize: bool) -> Floats:
        waveform = self._stages.mel_to_waveform(self._mel, finalize=finalize)
        fresh = waveform[self._given :]
        self._given = len(waveform)
        return fresh
