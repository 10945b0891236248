"""Judge a prompt clip, and choose the best part of a long one.

Everything rests on the energy of 20 ms frames: what is within 30 dB of the loud frames and above
the noise counts as speech. That tells pauses from words in a recording fit to be a prompt; it does
not tell speech from music.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend.pcm import as_mono

SHORTEST_GOOD, LONGEST_GOOD = 3.0, 10.0  # seconds
LEAST_SPEECH = 0.5  # seconds, below it there is nothing to clone
LITTLE_SPEECH = 2.0  # seconds
SILENCE = -65.0  # dB below full scale, of a frame
QUIET = -45.0  # dB, of the loud frames
STEADY = 6.0  # dB between quiet and loud frames, below it nothing is said
OFFSET = 0.02  # mean of the samples, of full scale
CLIPPED_RUN = 4  # samples in a row at the top
MOST_CLIPPED_RUNS = 3
FLAT = 1e-4  # of full scale; samples that differ by less are at the same ceiling
HOP = 0.010  # seconds
FRAME_HOPS = 2  # a frame is 20 ms
PAUSE_FRAMES = 15  # 150 ms; shorter gaps are closures of consonants
EDGE = 0.15  # seconds of a pause that a cut leaves before and behind the speech


@dataclass(frozen=True)
class ClipReport:
    """What was found in a clip; `warnings` are sentences for the user."""

    seconds: float
    seconds_speech: float
    level_db: float  # of the loud frames, below full scale
    warnings: tuple[str, ...]


def judge_clip(audio: NDArray[Any], rate: int) -> ClipReport:
    """Measure a clip [n] at `rate` Hz and say what will harm the voice.

    Raises: AudioError if it is silent or holds less than half a second of speech.
    """
    audio = as_mono(audio)
    seconds = audio.size / rate
    energy = _energy_db(audio, rate)
    if not energy.size or energy.max() < SILENCE:
        raise AudioError("the clip is silent", "record it again, nearer to the microphone")
    speech = _speech(energy)
    seconds_speech = min(seconds, float(speech.sum()) * HOP)
    if seconds_speech < LEAST_SPEECH:
        raise AudioError(
            f"the clip holds {seconds_speech:.1f} s of speech; it needs at least {LEAST_SPEECH} s",
            "give 3 to 10 seconds of speech",
        )
    loud = float(np.percentile(energy, 95))
    warnings = [
        warning
        for applies, warning in (
            (
                seconds < SHORTEST_GOOD or seconds > LONGEST_GOOD,
                f"the clip lasts {seconds:.1f} s; 3 to 10 seconds give the best voice",
            ),
            (
                seconds_speech < LITTLE_SPEECH,
                f"only {seconds_speech:.1f} s of the clip are speech",
            ),
            (loud < QUIET, f"the clip is very quiet ({loud:.0f} dB); the voice may be noisy"),
            (
                loud - float(np.percentile(energy, 5)) < STEADY,
                "the clip's level hardly changes; it may be noise and not speech",
            ),
            (
                _clipped_runs(audio).size > MOST_CLIPPED_RUNS,
                "the clip is clipped (recorded too loud); the voice may sound harsh",
            ),
            (
                abs(float(audio.mean(dtype=np.float64))) > OFFSET,
                "the clip has a constant offset; a high-pass filter removes it",
            ),
        )
        if applies
    ]
    return ClipReport(seconds, seconds_speech, loud, tuple(warnings))


def best_cut(
    audio: NDArray[Any],
    rate: int,
    *,
    shortest: float = SHORTEST_GOOD,
    longest: float = LONGEST_GOOD,
) -> tuple[int, int]:
    """First and last-plus-one sample of the best prompt of `shortest` to `longest` seconds.

    Both edges lie in pauses; among such cuts the one with the most speech wins, and clipping counts
    as lost speech. Without two fitting pauses the cut with the quietest edges is taken. A clip of
    at most `shortest` seconds is kept whole.
    Raises: AudioError if there is no speech.
    """
    audio = as_mono(audio)
    if audio.size <= shortest * rate:
        return 0, audio.size
    energy = _energy_db(audio, rate)
    if energy.max() < SILENCE:
        raise AudioError("the clip is silent", "record it again, nearer to the microphone")
    speech = _speech(energy)
    worth = speech.astype(np.float64)
    clipped = np.minimum((_clipped_runs(audio) / rate / HOP).astype(np.int64), worth.size - 1)
    worth[clipped] = -10.0
    total = np.concatenate([[0.0], np.cumsum(worth)])
    starts, ends = _pause_edges(speech)
    least, most = round(shortest / HOP), round(longest / HOP)
    cuts = [
        (total[end] - total[start], -start, end)
        for start in starts
        for end in ends[
            np.searchsorted(ends, start + least) : np.searchsorted(ends, start + most, "right")
        ]
    ]
    if cuts:
        _, start, end = max(cuts)
        start = -start
    else:
        start, end = _quietest_cut(energy, total, least, most)
    return round(start * HOP * rate), min(audio.size, round(end * HOP * rate))


def _energy_db(audio: Floats, rate: int) -> NDArray[np.float64]:
    """Level [T] of 20 ms frames, one every 10 ms, without the clip's own offset; at most 0 dB."""
    hop = round(HOP * rate)
    count = audio.size // hop
    if count < FRAME_HOPS:
        return np.zeros(0)
    centred = audio[: count * hop].astype(np.float64) - audio.mean(dtype=np.float64)
    power = np.square(centred).reshape(count, hop).mean(axis=1)
    power = (power + np.concatenate([power[1:], power[-1:]])) / FRAME_HOPS
    return np.asarray(10 * np.log10(power + 1e-12))


def _speech(energy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which frames [T] belong to speech, short gaps included."""
    loud, noise = np.percentile(energy, 95), np.percentile(energy, 5)
    speech = energy > max(loud - 30.0, min(noise + 6.0, loud - 6.0), SILENCE)
    for start, end in _runs(~speech):
        if start > 0 and end < speech.size and end - start < PAUSE_FRAMES:
            speech[start:end] = True
    return speech


def _pause_edges(speech: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames where a cut may start and where it may end, both in pauses, in order."""
    edge = round(EDGE / HOP)
    starts, ends = [], []
    for start, end in _runs(~speech):
        inside = min(edge, (end - start) // 2)
        if end < speech.size:
            starts.append(end - inside)
        if start > 0:
            ends.append(start + inside)
    return np.array(starts, np.int64), np.array(ends, np.int64)


def _quietest_cut(
    energy: NDArray[np.float64], total: NDArray[np.float64], least: int, most: int
) -> tuple[int, int]:
    """Speech without pauses: begin and end in the quietest frames of the best `most` frames."""
    width = min(most, energy.size)
    first = int(np.argmax(total[width:] - total[:-width]))
    room = max(1, (width - least) // 2)
    start = first + int(np.argmin(energy[first : first + room]))
    last = first + width
    end = last - room + int(np.argmin(energy[last - room : last]))
    return start, end


def _clipped_runs(audio: Floats) -> NDArray[np.int64]:
    """First samples of the runs that stay at the clip's own ceiling, if it is near full scale."""
    magnitude = np.abs(audio)
    top = float(magnitude.max(initial=0.0))
    if top < 0.5:
        return np.zeros(0, np.int64)
    flat = [start for start, end in _runs(magnitude >= top - FLAT) if end - start >= CLIPPED_RUN]
    return np.array(flat, np.int64)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, last + 1) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
