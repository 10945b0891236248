"""Charts are sound SVG whose bars are to scale, pictures are PNG files that show the spectrum."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from cosyvoice_cpu.errors import MissingExtraError, OutputError
from cosyvoice_cpu.evaluation.plots import (
    Bar,
    Part,
    bar_chart,
    spectrogram_pixels,
    write_spectrograms,
)

_SVG = "{http://www.w3.org/2000/svg}"


def rectangles(svg: str, colour: str) -> list[tuple[float, float]]:
    """(x, width) of the rectangles of a colour."""
    return [
        (float(node.attrib["x"]), float(node.attrib["width"]))
        for node in ET.fromstring(svg).iter(f"{_SVG}rect")
        if node.attrib["fill"] == colour
    ]


def test_parts_of_a_bar_lie_side_by_side_and_the_longest_bar_takes_the_width():
    bars = [
        Bar("long", [Part(3.0, "red", "three"), Part(1.0, "blue")], "4 s"),
        Bar("short", [Part(1.0, "red")], "1 s"),
    ]
    svg = bar_chart("a title", bars)
    assert rectangles(svg, "red") == [(190.0, 450.0), (190.0, 150.0)]
    assert rectangles(svg, "blue") == [(640.0, 150.0)]
    texts = [node.text for node in ET.fromstring(svg).iter(f"{_SVG}text")]
    assert texts == ["a title", "long", "4 s", "short", "1 s"]
    assert [node.text for node in ET.fromstring(svg).iter(f"{_SVG}title")] == ["three"]


def test_what_is_beyond_the_scale_is_cut_off_and_below_zero_has_no_length():
    bars = [Bar("a", [Part(200.0, "red")], ""), Bar("b", [Part(-5.0, "red")], "")]
    svg = bar_chart("t", bars, longest=80.0, ticks=[0, 40, 80], unit=" dB")
    assert rectangles(svg, "red") == [(190.0, 600.0), (190.0, 0.0)]
    lines = [float(node.attrib["x1"]) for node in ET.fromstring(svg).iter(f"{_SVG}line")]
    assert lines == [190.0, 490.0, 790.0]
    assert ">40 dB</text>" in svg


def test_names_are_escaped_and_a_chart_may_be_empty():
    assert "a&lt;b&amp;c" in bar_chart("t", [Bar("a<b&c", [Part(1.0, "red")], "")])
    assert ET.fromstring(bar_chart("t", [], legend={"flow": "blue"})) is not None


def read_png(path: Path) -> np.ndarray:
    """Pixels [height, width, 3]."""
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def test_a_tone_is_a_bright_line_on_dark_ground_in_both_panels(tmp_path: Path):
    pytest.importorskip("PIL")
    time = np.arange(24000) / 24000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    write_spectrograms(tmp_path / "new" / "tone.png", [tone, tone], 24000)
    pixels = read_png(tmp_path / "new" / "tone.png")
    assert pixels.shape == (240, 100 + 8 + 100, 3)
    assert np.array_equal(pixels[:, :100], pixels[:, 108:])
    assert np.array_equal(pixels, spectrogram_pixels([tone, tone], 24000))
    brightest = pixels[:, 50].sum(1).argmax()
    assert 120 < brightest < 220  # 1 kHz is in the lower half
    assert pixels[10, 50].sum() < 200


def test_audio_too_short_for_a_spectrum_has_an_empty_panel():
    tone = np.ones(24000, np.float32)
    pixels = spectrogram_pixels([tone, np.zeros(0, np.float32)], 24000)
    assert pixels.shape == (240, 100 + 8 + 24, 3)


def test_a_picture_that_cant_be_written_is_named(tmp_path: Path):
    pytest.importorskip("PIL")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_spectrograms(tmp_path / "file" / "tone.png", [np.ones(24000, np.float32)], 24000)


def test_without_pillow_pictures_are_refused_with_the_extra_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError) as caught:
        write_spectrograms(tmp_path / "tone.png", [np.ones(24000, np.float32)], 24000)
    assert caught.value.lines() == (
        "error: pictures need pillow, not installed here\nhint:  pip install 'cosyvoice-cpu[eval]'"
    )
