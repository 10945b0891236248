"""How well a signal's complex spectra agree with a recording's, every band counting alike."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.sizes import HOP, SAMPLE_RATE

WINDOW = 1024  # samples
LOWEST, HIGHEST = 70.0, 4000.0  # Hz
_SMOOTHED = 13  # bins, 300 Hz: more than lies between two harmonics
_FLOOR = 0.1  # of the frame's mean magnitude; what is softer counts less


def whitened_spectra(
    made: Tensor, recorded: Tensor, lowest: float = LOWEST, highest: float = HIGHEST
) -> tuple[Tensor, Tensor]:
    """Complex spectra [B, bins, frames] of two signals [B, n] between `lowest` and `highest` Hz,
    both divided by the recording's smoothed magnitude.
    """
    hann = torch.hann_window(WINDOW)
    bins = slice(*(round(edge / SAMPLE_RATE * WINDOW) for edge in (lowest, highest)))
    spectra = [
        torch.stft(wave, WINDOW, WINDOW // 4, window=hann, center=False, return_complex=True)
        for wave in (made, recorded)
    ]
    mine, real = (spectrum[:, bins] for spectrum in spectra)
    level = real.abs()
    smooth = F.avg_pool1d(
        level.transpose(1, 2), _SMOOTHED, 1, _SMOOTHED // 2, count_include_pad=False
    ).transpose(1, 2)
    scale = 1 / (smooth + _FLOOR * level.mean(1, keepdim=True) + 1e-2)
    return mine * scale, real * scale


def voiced_frames(f0: Tensor, count: int) -> Tensor:
    """1.0 for each of `count` spectra [B, 1, count] whose middle lies in a voiced frame of f0
    [B, T], else 0.0.
    """
    middle = torch.arange(count) * (WINDOW // 4) + WINDOW // 2
    return (f0[:, (middle // HOP).clamp(max=f0.shape[1] - 1)] > 0).float()[:, None]


def whitened_loss(made: Tensor, recorded: Tensor, f0: Tensor) -> Tensor:
    """Mean distance of the whitened spectra of two signals [B, 480 T] in voiced frames (f0 [B, T]
    in Hz); about 1 where nothing is known of the phase.
    """
    mine, real = whitened_spectra(made, recorded)
    return ((mine - real).abs() * voiced_frames(f0, real.shape[2])).mean()


def agreement(
    signals: Iterable[tuple[Tensor, Tensor, Tensor]], lowest: float, highest: float
) -> float:
    """Correlation of the whitened spectra between `lowest` and `highest` Hz, over made and recorded
    signals [480 T] with their f0 [T].
    """
    shared = mine = theirs = 0.0
    for made, recorded, f0 in signals:
        spectra = whitened_spectra(made[None], recorded[None], lowest, highest)
        voiced = voiced_frames(f0[None], spectra[0].shape[2])
        a, b = (spectrum * voiced for spectrum in spectra)
        shared += float((a * b.conj()).real.sum())
        mine, theirs = mine + float(a.abs().square().sum()), theirs + float(b.abs().square().sum())
    return shared / math.sqrt(mine * theirs + 1e-9)
