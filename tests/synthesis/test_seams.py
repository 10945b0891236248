"""Where blocks of a stream meet, nothing can be heard: level and spectrum change as elsewhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu import Synthesizer
from cosyvoice_cpu.demo import DEMO_BUNDLE

TEXT = (
    "The morning train was late again, so we walked along the river and talked about the summer."
    " Nobody in the village could remember a winter with so much snow on the old church roof."
)
WINDOW = 240  # samples: 10 ms, about a period of the voice
FRAME = 480  # samples of a mel frame
SPEAKER = "hibari-heart-1"


@lru_cache(maxsize=1)
def blocks() -> list[NDArray[np.float32]]:
    stream = Synthesizer.load(DEMO_BUNDLE, threads=1).stream(TEXT, SPEAKER)
    return [block.samples for block in stream]


def changes(samples: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """At each place, how far level and spectrum of the 10 ms before and after are apart, in dB;
    [places, 3]: level, spectral flux, and the step between the two samples that meet there.
    """
    hann = np.hanning(WINDOW)
    found = []
    for place in places:
        before, after = samples[place - WINDOW : place], samples[place : place + WINDOW]
        loud = [10 * np.log10(np.mean(part**2) + 1e-7) for part in (before, after)]
        spectra = [
            20 * np.log10(np.abs(np.fft.rfft(part * hann)) + 1e-3) for part in (before, after)
        ]
        flux = np.abs(spectra[0] - spectra[1]).mean()
        step = abs(float(samples[place] - 2 * samples[place - 1] + samples[place - 2]))
        found.append((abs(loud[0] - loud[1]), flux, step / (np.abs(before).max() + 1e-3)))
    return np.array(found)


def worst_rank(
    samples: NDArray[np.float32], seams: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64]]:
    """The least of three ranks: means at the seams among means at as many random places."""
    rng = np.random.default_rng(0)
    elsewhere = [
        changes(samples, rng.integers(WINDOW, len(samples) - WINDOW, len(seams))).mean(axis=0)
        for _ in range(400)
    ]
    at_seams = changes(samples, seams).mean(axis=0)
    ranks = (np.array(elsewhere) >= at_seams).mean(axis=0)
    return float(ranks.min()), ranks


def test_seams_are_like_any_other_place() -> None:
    samples = np.concatenate(blocks())
    seams = np.cumsum([len(block) for block in blocks()])[:-1]
    assert len(seams) >= 8
    least, ranks = worst_rank(samples, seams)
    print("share of random places with changes as large: level, flux, step", ranks)
    assert least > 0.02


def test_a_window_that_is_wrong_by_a_frame_shows() -> None:
    lost = [blocks()[0], *(block[FRAME:] for block in blocks()[1:])]
    seams = np.cumsum([len(block) for block in lost])[:-1]
    least, ranks = worst_rank(np.concatenate(lost), seams)
    print("share of random places with changes as large: level, flux, step", ranks)
    assert least < 0.01
