"""How finished audio leaves: its sample rate, its loudness, and no sample beyond full scale.

What reaches the networks is resampled as the original does (`frontend.resampling`); here a general
resampler does better, since nothing has to agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.synthesis.loudness import SILENCE_DB, loudness_lufs

RATE_RANGE = (8_000, 192_000)  # Hz
LOUDNESS_RANGE = (-50.0, -5.0)  # LUFS
PEAK = 10 ** (-1 / 20)  # of full scale; what EBU R 128 leaves for lossy codecs, where levels change
LIMITER_SECONDS = 0.005
_CLOSE_ENOUGH = 0.1  # LU
_MOST_ROUNDS = 6


@dataclass(frozen=True)
class Delivery:
    """`rate` in Hz and `loudness` in LUFS; None leaves the model's."""

    rate: int | None = None
    loudness: float | None = None

    def check(self) -> None:
        """Raises: UsageError for a rate or a loudness that can't be delivered."""
        lowest, highest = RATE_RANGE
        if self.rate is not None and not lowest <= self.rate <= highest:
            raise UsageError(
                f"the rate {self.rate} is outside {lowest} to {highest} Hz",
                "8000 is telephony, 16000, 24000 and 48000 are usual",
            )
        softest, loudest = LOUDNESS_RANGE
        if self.loudness is not None and not softest <= self.loudness <= loudest:
            raise UsageError(
                f"the loudness {self.loudness:g} is outside {softest:g} to {loudest:g} LUFS",
                "-16 is usual for speech in podcasts, -23 in broadcasts",
            )

    def apply(self, samples: Floats, rate: int) -> tuple[Floats, int]:
        """One piece of audio [n] at `rate`, as it is to leave, and its rate.

        A piece is brought to the loudness by itself, so that pieces agree and the first one needs
        not wait for the last. Samples beyond full scale are limited, not clipped.
        """
        if self.rate is not None and self.rate != rate:
            samples, rate = resample(samples, rate, self.rate), self.rate
        if self.loudness is not None:
            return level(samples, rate, self.loudness), rate
        return limit(samples, rate, 1.0), rate


AS_MADE = Delivery()


def resample(samples: Floats, rate: int, wanted: int) -> Floats:
    """`samples` [n] at `rate` Hz to [round(n * wanted / rate)] at `wanted` Hz."""
    import soxr

    resampled: Floats = soxr.resample(samples, rate, wanted, quality="HQ")
    return np.ascontiguousarray(resampled, np.float32)


def level(samples: Floats, rate: int, lufs: float) -> Floats:
    """`samples` [n] with a gated loudness of `lufs`, its peaks limited to -1 dBFS.

    Where limiting takes loudness away, the gain grows until it is there; audio that is silence or
    consists of peaks stays below. Source: ITU-R BS.1770-4.
    """
    measured = loudness_lufs(samples, rate)
    if measured <= SILENCE_DB:
        return samples
    gain = 0.0
    for _ in range(_MOST_ROUNDS):
        gain += lufs - measured
        levelled = limit(samples * np.float32(10 ** (gain / 20)), rate, PEAK)
        measured = loudness_lufs(levelled, rate)
        if abs(lufs - measured) < _CLOSE_ENOUGH:
            break
    return levelled


def limit(samples: Floats, rate: int, ceiling: float) -> Floats:
    """`samples` [n] with no magnitude above `ceiling`.

    Around each peak beyond it the gain goes down and up again within 10 ms. It is the mean over
    5 ms of the least gain that is needed within 5 ms, so at no sample more than what that needs.
    """
    magnitude = np.abs(samples)
    if float(magnitude.max(initial=0.0)) <= ceiling:
        return samples
    reach = max(1, int(LIMITER_SECONDS * rate / 2))
    needed = np.minimum(1.0, ceiling / np.maximum(magnitude, 1e-9))
    padded = np.pad(needed, 2 * reach, constant_values=1.0)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    shape = np.hanning(2 * reach + 3)[1:-1]
    gain = np.convolve(windows.min(axis=1), shape / shape.sum(), "valid")
    limited = (samples * gain).astype(np.float32)
    return np.clip(limited, -ceiling, ceiling)  # the last bit of rounding
