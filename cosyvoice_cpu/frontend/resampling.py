"""Sample-rate conversion with the filter that the models' features were computed with.

A better filter would be a worse one here: the networks learnt from a short windowed sinc (6 zero
crossings, roll-off 0.99), whose soft edge and images reach the top mel bins. Against a long filter
the fbank moves by up to 3 and a mel from a 16 kHz source by up to 8.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend.pcm import as_mono

ZERO_CROSSINGS = 6
ROLLOFF = 0.99
HIGHEST_RATE = 768_000  # Hz; beyond any recording, and it bounds the filter table
BLOCK = 1 << 16  # outputs per step: bounds the memory whatever the clip's length


def resample(audio: NDArray[Any], from_rate: int, to_rate: int) -> Floats:
    """Convert `audio` from `from_rate` to `to_rate`, in Hz.

    Shapes: audio [n], float -> [ceil(n * to_rate / from_rate)], float32. Equal rates return the
    samples unchanged.
    Raises: AudioError if the audio is empty or not mono, or a rate is not in 1..768000.
    Source: torchaudio functional/functional.py, `resample` with its defaults (sinc_interp_hann),
    which CosyVoice cosyvoice/utils/file_utils.py (`load_wav`) applies.
    """
    audio = as_mono(audio)
    for rate in (from_rate, to_rate):
        if not 0 < rate <= HIGHEST_RATE:
            raise AudioError(
                f"can't resample from {from_rate} Hz to {to_rate} Hz",
                f"rates from 1 to {HIGHEST_RATE} Hz are known",
            )
    if from_rate == to_rate:
        return audio
    if not audio.size:
        raise AudioError("the clip is empty", "give a clip with speech in it")
    common = math.gcd(from_rate, to_rate)
    step, phases = from_rate // common, to_rate // common
    kernel, reach = _kernel(step, phases)  # [phases, taps]
    outputs = -(-audio.size * phases // step)
    padded = np.pad(audio, (reach, reach + step + 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[1])
    result = np.empty(outputs, dtype=np.float32)
    for start in range(0, outputs, BLOCK):
        index = np.arange(start, min(start + BLOCK, outputs))
        first = index * step // phases  # padding puts the first tap of output m here
        result[index] = np.einsum("nt,nt->n", windows[first], kernel[index % phases])
    return result


@lru_cache(maxsize=16)
def _kernel(step: int, phases: int) -> tuple[Floats, int]:
    """Filter taps [phases, 2 * reach + 2] around floor(m * step / phases), and `reach`.

    The original stores a dense [phases, 2 * reach + step] table, zero but for these taps; with
    rates that share no divisor it would need gigabytes.
    """
    base = min(step, phases) * ROLLOFF
    reach = math.ceil(ZERO_CROSSINGS * step / base)
    phase = np.arange(phases, dtype=np.int64)[:, None]
    tap = phase * step // phases + np.arange(-reach, reach + 2)[None, :]
    t = (tap * phases - phase * step) / (step * phases) * base
    t = np.clip(t, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(t * np.pi / ZERO_CROSSINGS / 2) ** 2
    return (np.sinc(t) * window * (base / step)).astype(np.float32), reach
