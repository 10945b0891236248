"""Speed on the mel, and edges of a waveform that neither tick nor click."""

from __future__ import annotations

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import SynthesisError, UsageError

SPEED_RANGE = (0.5, 2.0)
FADE_SECONDS = 0.005
EDGE_FRAMES = 10  # with 4, what lies before the first word is at -97 dBFS too; without, at -36
VOCODER_LIMIT = np.float32(0.99) - np.float32(1e-6)  # of full scale; its last step clips there
CLIPPED_RUN = 3  # samples
LOWEST_PEAK = 10 ** (-70 / 20)  # of full scale; audio that stays below is silence


def check_speed(speed: float) -> None:
    """Raises: UsageError outside 0.5..2, where interpolated mel frames no longer sound right."""
    slowest, fastest = SPEED_RANGE
    if not slowest <= speed <= fastest:
        raise UsageError(
            f"the speed {speed:g} is outside {slowest:g} to {fastest:g}", "1 is the normal speed"
        )


def change_speed(mel: Floats, speed: float) -> Floats:
    """Log-mel [80, T] -> [80, int(T / speed)], at least one frame, linearly interpolated.

    Frame centres map onto frame centres (align_corners False), the ends are held.
    Source: CosyVoice cosyvoice/cli/model.py, CosyVoice3Model.token2wav.
    """
    if speed == 1.0:
        return mel
    frames = mel.shape[1]
    wanted = max(1, int(frames / speed))
    # Rounded like torch's, which multiplies and subtracts at once in float32: with positions in
    # double the mel differs by 5e-5.
    scale = np.float64(np.float32(frames) / np.float32(wanted))
    position = (scale * (np.arange(wanted) + 0.5) - 0.5).astype(np.float32)
    position = np.maximum(position, np.float32(0))
    left = np.minimum(position.astype(np.int64), frames - 1)
    right = np.minimum(left + 1, frames - 1)
    weight = position - left.astype(np.float32)
    stretched: Floats = mel[:, left] * (1 - weight) + mel[:, right] * weight
    return stretched


class SpeedChanger:
    """`change_speed` on a mel that arrives piece by piece, each frame as soon as it is decided.

    The step between frames is `speed` itself, where the whole's is rounded to fit its length.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._received = self._given = 0  # frames in and out
        self._start = 0  # frame that is kept first
        self._mel: Floats | None = None  # from there on

    def push(self, mel: Floats) -> Floats:
        """Frames [80, t] that are decided now, from further ones."""
        if self._speed == 1.0:
            return mel
        self._received += mel.shape[1]
        self._mel = mel if self._mel is None else np.concatenate([self._mel, mel], axis=1)
        # Frame i lies between two known ones while i's place is not behind the last known.
        last = int(np.floor((self._received - 1 + 0.5) / self._speed - 0.5))
        return self._between(last + 1)

    def finish(self) -> Floats:
        """The rest, where the last frame is held."""
        if self._speed == 1.0 or self._mel is None:
            return np.zeros((0 if self._mel is None else len(self._mel), 0), np.float32)
        return self._between(max(1, int(self._received / self._speed)))

    def _between(self, end: int) -> Floats:
        assert self._mel is not None
        place = np.maximum((np.arange(self._given, end) + 0.5) * self._speed - 0.5, 0.0)
        left = np.minimum(place.astype(np.int64), self._received - 1)
        right = np.minimum(left + 1, self._received - 1)
        weight = (place - left).astype(np.float32)
        frames: Floats = self._mel[:, left - self._start] * (1 - weight)
        frames += self._mel[:, right - self._start] * weight
        self._given = max(self._given, end)
        kept = max(0, int((self._given + 0.5) * self._speed - 0.5) - self._start)
        kept = min(kept, self._mel.shape[1] - 1)
        self._mel, self._start = self._mel[:, kept:], self._start + kept
        return frames


def hold_edges(mel: Floats) -> Floats:
    """Log-mel [80, T] -> [80, T + 2 EDGE_FRAMES]: the first and the last frame go on outwards.

    The vocoder pads its input with zeros, as in the original. In a log-mel that is a loud noise,
    which sounds as a tick of 25 ms in the silence before the first word and, weaker, at the end.
    """
    return np.pad(mel, ((0, 0), (EDGE_FRAMES, EDGE_FRAMES)), mode="edge")


def cut_edges(samples: Floats, samples_per_frame: int) -> Floats:
    """The waveform [n] of a mel from `hold_edges`, without that of the frames added there."""
    edge = EDGE_FRAMES * samples_per_frame
    return samples[edge : len(samples) - edge]


def require_finite(array: Floats, stage: str) -> None:
    """Raises: SynthesisError naming the stage whose output it is."""
    if not np.isfinite(array).all():
        raise SynthesisError(
            f"the {stage} put out values that are not finite",
            "check the bundle with `cosyvoice-cpu verify`; its weights may be damaged",
        )


def is_silent(samples: Floats) -> bool:
    """Whether a waveform [n] holds nothing that could be heard beside speech."""
    return float(np.abs(samples).max(initial=0.0)) < LOWEST_PEAK


def is_clipped(samples: Floats) -> bool:
    """Whether a waveform [n] stays at the vocoder's limit for several samples in a row."""
    beyond = np.abs(samples) >= VOCODER_LIMIT
    run = np.ones(CLIPPED_RUN, np.int32)
    return bool(np.any(np.convolve(beyond.astype(np.int32), run) == CLIPPED_RUN))


def fade_edges(samples: Floats, sample_rate: int) -> Floats:
    """Ramp the first and last 5 ms from and to zero, so that a join or a start can't click."""
    length = min(int(FADE_SECONDS * sample_rate), len(samples) // 2)
    if length == 0:
        return samples
    ramp = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
    faded = samples.copy()
    faded[:length] *= ramp
    faded[-length:] *= ramp[::-1]
    return faded
