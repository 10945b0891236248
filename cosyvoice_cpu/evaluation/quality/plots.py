"""Spectrograms side by side, to see where two renderings part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import output_error, write_file_atomically
from cosyvoice_cpu.evaluation.quality.png import png_bytes
from cosyvoice_cpu.evaluation.quality.spectra import DB_PER_NEPER, log_mel
from cosyvoice_cpu.frontend.mel import FLOW_RATE

_RANGE_DB = 70.0  # from the loudest bin of all panels down to black
_PIXELS_PER_BIN, _PIXELS_PER_FRAME = 3, 2  # 240 pixels high, 100 to the second
_GAP = 8  # pixels between panels
_SHORTEST = 0.05  # seconds; less gets an empty panel
_BLACK_TO_WHITE = np.array(  # dark blue, violet, orange, light yellow: monotonous in lightness
    [(0, 0, 10), (60, 15, 110), (150, 40, 120), (225, 90, 70), (250, 175, 60), (255, 255, 210)]
)


def write_picture(path: Path, waveforms: Sequence[Floats], sample_rate: int) -> None:
    """A PNG of the log-mel spectrograms of `waveforms` [n] each, from left to right.

    Low frequencies are at the bottom, 0 to 12 kHz on the mel scale; 100 pixels are a second. All
    panels share one scale of 70 dB. The folder is made if absent. Raises: OutputError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    write_file_atomically(path, png_bytes(side_by_side(waveforms, sample_rate)))


def side_by_side(waveforms: Sequence[Floats], sample_rate: int) -> NDArray[np.uint8]:
    """The pixels [height, width, 3] of `write_picture`."""
    mels = [_log_mel(waveform, sample_rate) for waveform in waveforms]
    loudest = max(float(mel.max()) for mel in mels)
    panels = [_colours(1 + (mel - loudest) * DB_PER_NEPER / _RANGE_DB) for mel in mels]
    height = panels[0].shape[0]
    pieces: list[NDArray[np.uint8]] = []
    for panel in panels:
        pieces += [np.full((height, _GAP, 3), 255, np.uint8), panel]
    return np.concatenate(pieces[1:], axis=1)


def _log_mel(waveform: Floats, sample_rate: int) -> Floats:
    if len(waveform) < _SHORTEST * sample_rate:
        waveform = np.zeros(FLOW_RATE // 4, np.float32)
    return log_mel(waveform, sample_rate)


def _colours(brightness: Floats) -> NDArray[np.uint8]:
    """Pixels [3 bins, 2 frames, 3] of brightness [bins, frames], 0 to 1."""
    position = np.clip(brightness, 0, 1) * (len(_BLACK_TO_WHITE) - 1)
    stops = np.arange(len(_BLACK_TO_WHITE))
    channels = [np.interp(position, stops, _BLACK_TO_WHITE[:, channel]) for channel in range(3)]
    colours = np.stack(channels, axis=-1).astype(np.uint8)[::-1]  # low bins at the bottom
    return colours.repeat(_PIXELS_PER_BIN, axis=0).repeat(_PIXELS_PER_FRAME, axis=1)
