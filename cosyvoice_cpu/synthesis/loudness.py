"""How loud a waveform is, after ITU-R BS.1770.

Written here because it is measured in an installation without extras; tests hold it against the
recommendation's values and against pyloudnorm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats

Doubles = NDArray[np.float64]

SILENCE_DB = -120.0  # what digital silence counts as, so that every level is a finite number
_BLOCK_SECONDS, _BLOCK_STEP = 0.4, 0.1
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0  # LUFS, LU
_OFFSET = -0.691  # dB; makes a 997 Hz sine of full scale -3.01 LUFS in one channel


def loudness_lufs(waveform: Floats, sample_rate: int) -> float:
    """Gated loudness of a mono `waveform` [n] in LUFS; -120 for silence.

    Blocks of 400 ms every 100 ms, gated at -70 LUFS and 10 LU below the mean. Audio shorter than a
    block counts as one.
    Source: ITU-R BS.1770-4; the filters for other rates than 48 kHz as B. De Man, "Evaluation of
    implementations of the EBU R128 loudness measurement", AES 145 (2018), derives them.
    """
    if len(waveform) == 0:
        return SILENCE_DB
    power = np.square(_k_weighted(waveform.astype(np.float64), sample_rate))
    size, step = round(_BLOCK_SECONDS * sample_rate), round(_BLOCK_STEP * sample_rate)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    starts = np.arange(0, max(len(power) - size, 0) + 1, step)
    ends = np.minimum(starts + size, len(power))
    blocks = (sums[ends] - sums[starts]) / (ends - starts)
    loud = blocks[blocks > 10 ** ((_ABSOLUTE_GATE - _OFFSET) / 10)]
    if len(loud) == 0:
        return SILENCE_DB
    gate = loud.mean() * 10 ** (_RELATIVE_GATE / 10)
    return _OFFSET + _decibels(float(loud[loud > gate].mean()))


def k_weighting(sample_rate: int) -> list[tuple[list[float], list[float]]]:
    """The two second-order filters (b, a) of K-weighting: a high shelf, then a high-pass."""
    shelf_hz, gain_db, shelf_q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    tan = math.tan(math.pi * shelf_hz / sample_rate)
    high = 10 ** (gain_db / 20)
    band = high**0.4996667741545416
    norm = 1 + tan / shelf_q + tan**2
    shelf = (
        [
            (high + band * tan / shelf_q + tan**2) / norm,
            2 * (tan**2 - high) / norm,
            (high - band * tan / shelf_q + tan**2) / norm,
        ],
        [1.0, 2 * (tan**2 - 1) / norm, (1 - tan / shelf_q + tan**2) / norm],
    )
    pass_hz, pass_q = 38.13547087602444, 0.5003270373238773
    tan = math.tan(math.pi * pass_hz / sample_rate)
    norm = 1 + tan / pass_q + tan**2
    high_pass = (
        [1.0, -2.0, 1.0],
        [1.0, 2 * (tan**2 - 1) / norm, (1 - tan / pass_q + tan**2) / norm],
    )
    return [shelf, high_pass]


def _k_weighted(waveform: Doubles, sample_rate: int) -> Doubles:
    """Filtered by multiplication of spectra: a loop over samples would take seconds."""
    size = len(waveform) + sample_rate  # a second of zeros; the high-pass rings for a fraction
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    response = np.ones_like(z)
    for b, a in k_weighting(sample_rate):
        response *= (b[0] + b[1] * z + b[2] * z**2) / (a[0] + a[1] * z + a[2] * z**2)
    filtered: Doubles = np.fft.irfft(np.fft.rfft(waveform, size) * response, size)
    return filtered[: len(waveform)]


def _decibels(power: float) -> float:
    return 10 * math.log10(power) if power > 10 ** (SILENCE_DB / 10) else SILENCE_DB
