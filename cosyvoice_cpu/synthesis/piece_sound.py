"""One piece's log-mel to its waveform while the mel arrives: speed, vocoder, edges, checks."""

from __future__ import annotations

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.postprocessing import (
    EDGE_FRAMES,
    FADE_SECONDS,
    LOWEST_PEAK,
    SpeedChanger,
    is_clipped,
    require_finite,
)


class PieceSound:
    """What `hold_edges`, the vocoder, `cut_edges` and `fade_edges` do to a whole, in pieces."""

    def __init__(self, stages: Stages, speed: float) -> None:
        self._vocoder = stages.vocoder_stream()
        self._speed = SpeedChanger(speed)
        self._edge = EDGE_FRAMES * stages.audio.samples_per_frame
        self._fade = int(FADE_SECONDS * stages.audio.sample_rate)
        self._last: Floats | None = None  # frame [mel bins, 1]
        self._cut = self._edge  # samples of the held edge that are still to come
        self._held: Floats = np.zeros(0, np.float32)  # samples that may be the last ones
        self._begun = False
        self._peak = 0.0
        self.clipped = False

    def push(self, mel: Floats) -> Floats:
        """Samples [n] that are final now, from further frames of log-mel [mel bins, t].

        Raises: SynthesisError for values that are not finite.
        """
        require_finite(mel, "flow")
        return self._after(self._sound(self._speed.push(mel)), self._fade)

    def finish(self) -> Floats:
        """The rest, faded out. Raises: as `push`."""
        pieces = [self._sound(self._speed.finish())]
        if self._last is not None:
            pieces.append(self._vocoder.push(np.repeat(self._last, EDGE_FRAMES, axis=1)))
        pieces.append(self._vocoder.finish())
        rest = self._after(np.concatenate(pieces), self._edge)
        length = min(self._fade, len(rest))
        if length:
            ramp = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
            rest[-length:] *= ramp[::-1]
        return rest

    @property
    def is_silent(self) -> bool:
        """Whether nothing of what was given could be heard beside speech."""
        return self._peak < LOWEST_PEAK

    def _sound(self, mel: Floats) -> Floats:
        if not mel.shape[1]:
            return np.zeros(0, np.float32)
        if self._last is None:
            mel = np.concatenate([np.repeat(mel[:, :1], EDGE_FRAMES, axis=1), mel], axis=1)
        self._last = mel[:, -1:]
        return self._vocoder.push(mel)

    def _after(self, samples: Floats, held: int) -> Floats:
        """What may leave when the last `held` samples stay; faded in at the beginning."""
        require_finite(samples, "vocoder")
        skipped = min(self._cut, len(samples))
        self._cut -= skipped
        waiting = np.concatenate([self._held, samples[skipped:]])
        count = max(0, len(waiting) - held)
        leaving, self._held = waiting[:count].copy(), waiting[count:]
        if len(leaving):
            self.clipped |= is_clipped(leaving)
            self._peak = max(self._peak, float(np.abs(leaving).max()))
            if not self._begun:
                self._begun = True
                length = min(self._fade, len(leaving))
                ramp = np.arange(length, dtype=np.float32) + np.float32(0.5)
                leaving[:length] *= ramp / np.float32(length)
        return leaving
