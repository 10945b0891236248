"""Several channels to one: their mean, or the best channel where they cancel each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats

_CANCELS = 0.5  # of the power that the mean of unrelated channels has


class Mixer:
    """Reads blocks [samples, channels] once for their mean; says whether that lost the sound.

    One microphone channel with swapped wires is the other one's negative, and the mean is silence.
    """

    def __init__(self) -> None:
        self.count = 0  # samples read
        self.warning: str | None = None
        self.channel_that_cancels: int | None = None  # the one to take in place of the mean

    def mean(self, blocks: Iterator[Floats]) -> Floats:
        """The channels' mean [n]; one block at a time is in memory beside it."""
        parts: list[Floats] = []
        of_channels: NDArray[np.float64] | None = None
        of_mean = 0.0
        with np.errstate(invalid="ignore", over="ignore"):  # infinities are refused later
            for block in blocks:
                parts.append(block.mean(axis=1))
                self.count += len(block)
                power = np.square(block, dtype=np.float64).sum(axis=0)
                of_channels = power if of_channels is None else of_channels + power
                of_mean += float(np.square(parts[-1], dtype=np.float64).sum())
            if of_channels is not None and len(of_channels) > 1:
                self._judge(of_channels, of_mean)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def only(self, blocks: Iterator[Floats], channel: int) -> Floats:
        """One channel [n] of `blocks`."""
        return np.concatenate([block[:, channel] for block in blocks])

    def _judge(self, of_channels: NDArray[np.float64], of_mean: float) -> None:
        unrelated = float(of_channels.sum()) / len(of_channels) ** 2
        if np.isfinite(unrelated) and of_mean < _CANCELS * unrelated:
            best = int(of_channels.argmax())
            self.channel_that_cancels = best
            self.warning = (
                f"its channels cancel each other, one seems inverted; channel {best + 1} is taken"
            )
