"""How streamed audio leaves: `Delivery` on blocks, each as soon as it is final.

The rate is changed by one resampler for the whole stream, so that blocks join without a seam. The
gain to a wanted loudness is not known before the end: it follows what was heard in the last
seconds, slowly, and a limiter keeps the peaks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.synthesis.delivery import LIMITER_SECONDS, PEAK, Delivery, limit
from cosyvoice_cpu.synthesis.loudness import SILENCE_DB, loudness_lufs

_HEARD_SECONDS = 10.0  # what the gain is decided by
_GAIN_DB_PER_SECOND = 1.0  # a change that is not noticed


class StreamDelivery:
    """Applies a `Delivery` to one stream of samples at `rate` Hz."""

    def __init__(self, delivery: Delivery, rate: int) -> None:
        self.rate = delivery.rate or rate
        self._resampler = _resampler(rate, self.rate) if self.rate != rate else None
        self._level = None if delivery.loudness is None else _Level(delivery.loudness, self.rate)
        ceiling = 1.0 if delivery.loudness is None else PEAK
        needed = self._resampler is not None or self._level is not None
        self._limiter = _Limiter(ceiling, self.rate) if needed else None

    def push(self, samples: Floats, *, last: bool = False) -> Floats:
        """What leaves now of `samples` [n] and what was held back; all of it with the `last`."""
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        if self._level is not None:
            samples = self._level.push(samples)
        if self._limiter is not None:
            samples = self._limiter.push(samples, last=last)
        return np.ascontiguousarray(samples, np.float32)


def _resampler(rate: int, wanted: int) -> Any:
    import soxr

    return soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")


class _Level:
    """A gain that brings what was heard lately to a loudness. Source: ITU-R BS.1770-4."""

    def __init__(self, lufs: float, rate: int) -> None:
        self._lufs, self._rate = lufs, rate
        self._heard: Floats = np.zeros(0, np.float32)
        self._gain: float | None = None  # dB at the end of the last block

    def push(self, samples: Floats) -> Floats:
        """`samples` [n] with the gain, which moves linearly in dB over them."""
        if not len(samples):
            return samples
        most = int(_HEARD_SECONDS * self._rate)
        self._heard = np.concatenate([self._heard, samples])[-most:]
        measured = loudness_lufs(self._heard, self._rate)
        if measured <= SILENCE_DB:
            return samples
        wanted = self._lufs - measured
        if self._gain is None:
            self._gain = wanted
        reach = _GAIN_DB_PER_SECOND * len(samples) / self._rate
        end = self._gain + float(np.clip(wanted - self._gain, -reach, reach))
        curve = np.linspace(self._gain, end, len(samples), dtype=np.float32)
        self._gain = end
        levelled: Floats = samples * np.power(np.float32(10), curve / np.float32(20))
        return levelled


class _Limiter:
    """`delivery.limit` on blocks: a sample leaves when all that its gain depends on is there."""

    def __init__(self, ceiling: float, rate: int) -> None:
        self._ceiling, self._rate = ceiling, rate
        self._reach = 2 * max(1, int(LIMITER_SECONDS * rate / 2))  # samples to either side
        self._kept: Floats = np.zeros(0, np.float32)
        self._context = 0  # of what is kept, samples that have left already

    def push(self, samples: Floats, *, last: bool = False) -> Floats:
        known = np.concatenate([self._kept, samples])
        end = len(known) if last else max(self._context, len(known) - self._reach)
        leaving = limit(known, self._rate, self._ceiling)[self._context : end]
        kept = max(0, end - self._reach)
        self._kept, self._context = known[kept:], end - kept
        return leaving
