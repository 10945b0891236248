"""Everything that is drawn: bar charts as SVG, spectrograms side by side as PNG.

SVG is written as text; the PNG files need Pillow, which the extra `eval` brings.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import output_error, write_file_atomically
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.evaluation.distances import DB_PER_NEPER, log_mel
from cosyvoice_cpu.frontend.mel import FLOW_RATE

COLOURS = {"speech_lm": "#4878a8", "flow": "#d08a3e", "vocoder": "#5f9e6e"}  # in every chart

_WIDTH, _LEFT, _RIGHT = 900, 190, 110  # pixels; names left of the bars, figures right
_LEGEND_WIDTH, _LEGEND_BOX = 110, 12

_RANGE_DB = 70.0  # from the loudest bin of all panels down to black
_PIXELS_PER_BIN, _PIXELS_PER_FRAME = 3, 2  # 240 pixels high, 100 to the second
_PANEL_GAP = 8  # pixels
_SHORTEST = 0.05  # seconds; less gets an empty panel
_BLACK_TO_WHITE = np.array(  # dark blue, violet, orange, light yellow: monotonous in lightness
    [(0, 0, 10), (60, 15, 110), (150, 40, 120), (225, 90, 70), (250, 175, 60), (255, 255, 210)]
)


@dataclass(frozen=True)
class Part:
    """A stretch of a bar. A viewer shows `title` while the pointer is on it."""

    value: float
    colour: str
    title: str = ""


@dataclass(frozen=True)
class Bar:
    """One line of a chart: its name, its parts from left to right, a figure behind them."""

    name: str
    parts: Sequence[Part]
    figure: str

    @property
    def value(self) -> float:
        """Of all parts together."""
        return sum(part.value for part in self.parts)


def bar_chart(
    title: str,
    bars: Sequence[Bar],
    *,
    legend: Mapping[str, str] | None = None,
    ticks: Sequence[float] = (),
    unit: str = "",
    longest: float | None = None,
    thickness: int = 26,
) -> str:
    """Horizontal bars as the text of an SVG file.

    `legend` has a colour per label, `ticks` are values marked by lines and labelled with `unit`. A
    bar of the value `longest` takes the whole width (None: the longest of `bars`); what is beyond
    is cut off. `thickness` of a bar in pixels.
    """
    full = longest if longest is not None else max((bar.value for bar in bars), default=1.0)
    scale = (_WIDTH - _LEFT - _RIGHT) / (full or 1.0)
    x: float
    top, step = 64, thickness + max(thickness // 2, 3)
    height = top + len(bars) * step + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" style="font-family: sans-serif; font-size: {min(thickness, 13)}px">',
        _rectangle(0, 0, _WIDTH, height, "#ffffff"),
        _text(10, 22, title, size=15),
    ]
    for number, (label, colour) in enumerate((legend or {}).items()):
        x = _LEFT + number * _LEGEND_WIDTH
        lines.append(_rectangle(x, 36, _LEGEND_BOX, _LEGEND_BOX, colour))
        lines.append(_text(x + _LEGEND_BOX + 5, 47, label))
    for tick in ticks:
        x = _LEFT + tick * scale
        lines.append(
            f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{height}" stroke="#dddddd"/>'
        )
        lines.append(_text(x, top - 10, f"{tick:g}{unit}", anchor="middle"))
    for number, bar in enumerate(bars):
        y = top + number * step
        base = y + thickness * 0.5 + 4
        lines.append(_text(_LEFT - 10, base, bar.name, anchor="end"))
        done = 0.0
        for part in bar.parts:
            value = min(max(part.value, 0.0), full - done)
            x = _LEFT + done * scale
            lines.append(_rectangle(x, y, value * scale, thickness, part.colour, part.title))
            done += value
        lines.append(_text(_LEFT + done * scale + 8, base, bar.figure))
    return "\n".join([*lines, "</svg>\n"])


def _rectangle(
    x: float, y: float, width: float, height: float, colour: str, title: str = ""
) -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}">{inside}</rect>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int | None = None) -> str:
    font = f' font-size="{size}"' if size else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{font}>{escape(text)}</text>'


def require_pictures() -> None:
    """Raises: MissingExtraError where `write_spectrograms` could not work."""
    if util.find_spec("PIL") is None:
        raise MissingExtraError(
            "pictures need pillow, not installed here", "pip install 'cosyvoice-cpu[eval]'"
        )


def write_spectrograms(path: Path, waveforms: Sequence[Floats], sample_rate: int) -> None:
    """A PNG of the log-mel spectrograms of `waveforms` [n] each, from left to right.

    Low frequencies are at the bottom, 0 to 12 kHz on the mel scale; 100 pixels are a second. All
    panels share one scale of 70 dB. The folder is made if absent.
    Raises: OutputError, MissingExtraError.
    """
    require_pictures()
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(spectrogram_pixels(waveforms, sample_rate)).save(content, "PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    write_file_atomically(path, content.getvalue())


def spectrogram_pixels(waveforms: Sequence[Floats], sample_rate: int) -> NDArray[np.uint8]:
    """The pixels [height, width, 3] of `write_spectrograms`."""
    mels = [_log_mel(waveform, sample_rate) for waveform in waveforms]
    loudest = max(float(mel.max()) for mel in mels)
    panels = [_colours(1 + (mel - loudest) * DB_PER_NEPER / _RANGE_DB) for mel in mels]
    height = panels[0].shape[0]
    columns: list[NDArray[np.uint8]] = []
    for panel in panels:
        columns += [np.full((height, _PANEL_GAP, 3), 255, np.uint8), panel]
    return np.concatenate(columns[1:], axis=1)


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
