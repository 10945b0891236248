"""The vocoder on a mel that arrives piece by piece, exact: joined, the samples are the whole's.

Every network of it looks back over a fixed number of frames, so a piece is computed together with
that many frames before it, whose samples are dropped again. The phase is carried in float64, the
noise is taken by position. A piece costs its own frames and those looked back on, however long
the speech.
"""

from __future__ import annotations

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.runtime.activation_arena import at_end_of
from cosyvoice_cpu.runtime.vocoder import VocoderStage


class BundleVocoderStream:
    """One utterance's vocoder; see `cosyvoice_cpu.stage_api.VocoderStream`."""

    def __init__(self, stage: VocoderStage, mel_bins: int) -> None:
        self._stage = stage
        self._start = 0  # frame that is kept first
        self._mel: Floats = np.zeros((mel_bins, 0), np.float32)  # from there on
        self._source: Floats = np.zeros((1, 0), np.float32)  # likewise, as far as f0 is known
        self._turns = stage.no_turns
        self._excited = 0  # frames whose source is known
        self._given = 0  # frames whose samples were given
        self._ended = False
        self._give_back = at_end_of(self)

    def push(self, mel: Floats) -> Floats:
        """Samples [n] that are final now, from further frames [mel bins, t].

        Raises: ValueError behind the end, SynthesisError beyond the fixed noise.
        """
        if self._ended:
            raise ValueError("the stream has ended")
        pieces = [np.zeros(0, np.float32)]
        longest = self._longest_piece()
        for first in range(0, mel.shape[1], longest):
            self._mel = np.concatenate([self._mel, mel[:, first : first + longest]], axis=1)
            pieces.append(self._advance(finalize=False))
        return np.concatenate(pieces)

    def finish(self) -> Floats:
        """The rest of the samples."""
        if self._ended or not self._received:
            self._ended = True
            return np.zeros(0, np.float32)
        self._ended = True
        samples = self._advance(finalize=True)
        self._give_back()
        return samples

    @property
    def _received(self) -> int:
        return self._start + int(self._mel.shape[1])

    def _longest_piece(self) -> int:
        """Frames that fit the ladder's top beside those looked back on."""
        stage = self._stage
        top = 1000 if stage.max_frames is None else stage.max_frames
        return max(1, top - stage.past - stage.ahead)

    def _advance(self, *, finalize: bool) -> Floats:
        stage, ahead = self._stage, 0 if finalize else self._stage.ahead
        if self._received - ahead <= self._given:
            return np.zeros(0, np.float32)
        self._excite(finalize)
        begin = max(self._start, self._given - stage.past)
        kept = begin - self._start
        waveform = stage.waveform(
            self._mel[:, kept:],
            finalize=finalize,
            source=self._source[:, kept * stage.samples_per_frame :],
        )
        fresh = waveform[(self._given - begin) * stage.samples_per_frame :]
        self._given = self._received - ahead
        self._forget(min(self._given - stage.past, self._excited - stage.f0_past))
        return fresh

    def _excite(self, finalize: bool) -> None:
        """Carry the source on as far as f0 is final."""
        stage = self._stage
        begin = max(self._start, self._excited - stage.f0_past)
        f0 = stage.f0(self._mel[:, begin - self._start :], finalize=finalize)
        f0 = f0[self._excited - begin :]
        if not len(f0):
            return
        noise = stage.noise(self._excited, len(f0))
        source, self._turns = stage.excite(f0, noise, self._turns)
        self._source = np.concatenate([self._source, source], axis=1)
        self._excited += len(f0)

    def _forget(self, frame: int) -> None:
        """Drop what lies before `frame`."""
        count = max(0, frame - self._start)
        self._mel = self._mel[:, count:].copy()
        self._source = self._source[:, count * self._stage.samples_per_frame :].copy()
        self._start += count
