"""Audio of a mel spectrogram without a vocoder, so that the flow is heard by itself.

Source: Griffin and Lim, 1984.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from cosyvoice_cpu.frontend.mel import slaney_filters
from training.sizes import HOP, MEL_BINS, SAMPLE_RATE

_WINDOW = 1920


def griffin_lim(mel: NDArray[np.float32], rounds: int = 40) -> NDArray[np.float32]:
    """24 kHz audio [480 T] of a log-mel [80, T], phases found by iteration from a fixed start."""
    inverse = np.linalg.pinv(slaney_filters(SAMPLE_RATE, _WINDOW, MEL_BINS, 0.0, None))
    magnitude = torch.from_numpy(np.maximum(inverse @ np.exp(mel), 0).astype(np.float32))
    window = torch.hann_window(_WINDOW)
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.polar(magnitude, 2 * np.pi * torch.rand(magnitude.shape, generator=generator))
    audio = torch.zeros(1)
    for _ in range(rounds):
        audio = torch.istft(spectrum, _WINDOW, HOP, window=window)
        again = torch.stft(audio, _WINDOW, HOP, window=window, return_complex=True)[
            :, : magnitude.shape[1]
        ]
        spectrum = magnitude * again / again.abs().clamp(min=1e-6)
    loudest = max(1.0, float(audio.abs().max()))
    samples: NDArray[np.float32] = (audio * 0.9 / loudest).numpy()
    return np.pad(samples, (0, max(0, HOP * ceil(len(samples) / HOP) - len(samples))))
