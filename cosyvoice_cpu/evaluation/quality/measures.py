"""What is measured, as data: one row per measure, in the order of the tables.

Teacher-forced measures compare two systems that are given the same thing to compute, so that
nothing has been added up before: the reference's speech tokens, its mel, its excitation.
Free-running ones look at what each system says by itself from the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cosyvoice_cpu.errors import UsageError

Of = Literal["both", "reference", "candidate"]
"""Whose value it is: one for the comparison of both systems, or one for each."""


@dataclass(frozen=True)
class Measure:
    """One measure of an item; its mean over items is weighted as `weight` says."""

    name: str  # with its unit, if it has one
    title: str
    mode: Literal["teacher-forced", "free-running"]
    per_system: bool
    digits: int  # behind the point, in tables
    weight: str  # of an item in the mean


_ITEM = "items"

MEASURES: tuple[Measure, ...] = (
    Measure("logits_sqnr_db", "speech LM logits, SQNR in dB", "teacher-forced", False, 1, _ITEM),
    Measure("token_agreement", "most likely token the same", "teacher-forced", False, 3, "tokens"),
    Measure("kl_nats", "KL divergence, nats per token", "teacher-forced", False, 4, "tokens"),
    Measure("mel_correlation", "log-mel correlation", "teacher-forced", False, 4, _ITEM),
    Measure("mel_error_db", "mel error in dB", "teacher-forced", False, 2, _ITEM),
    Measure("f0_error_cents", "f0 error in cents", "teacher-forced", False, 1, "voiced frames"),
    Measure("voicing_agreement", "voicing the same", "teacher-forced", False, 4, "frames"),
    Measure("vocoder_snr_db", "vocoder, SNR in dB", "teacher-forced", False, 1, _ITEM),
    Measure("audio_correlation", "audio, log-mel correlation", "teacher-forced", False, 4, _ITEM),
    Measure("spectrum_error_db", "audio, spectrum error in dB", "teacher-forced", False, 2, _ITEM),
    Measure("loudness_change_db", "loudness change in dB", "teacher-forced", False, 2, _ITEM),
    Measure("mos_lost", "MOS lost, as predicted", "teacher-forced", False, 2, _ITEM),
    Measure("dnsmos_lost", "MOS lost, second opinion", "teacher-forced", False, 2, _ITEM),
    Measure("seconds_audio", "seconds of audio", "free-running", True, 2, _ITEM),
    Measure("loudness_lufs", "loudness in LUFS", "free-running", True, 1, _ITEM),
    Measure("trouble", "lost: empty, looping, silent, endless", "free-running", True, 2, _ITEM),
    Measure("word_error_rate", "word error rate", "free-running", True, 3, "words"),
    Measure("word_errors_added", "word errors added per word", "free-running", False, 3, "words"),
    Measure("prompt_similarity", "similarity to the prompt", "free-running", True, 3, _ITEM),
    Measure("voice_similarity", "similarity of the two voices", "free-running", False, 3, _ITEM),
    Measure("mos", "MOS, as predicted", "free-running", True, 2, _ITEM),
    Measure("dnsmos", "MOS, second opinion", "free-running", True, 2, _ITEM),
)
_BY_NAME = {measure.name: measure for measure in MEASURES}


def named(names: Iterable[str]) -> tuple[Measure, ...]:
    """The measures called `names`, in the order of the tables. Raises: UsageError."""
    wanted = set(names)
    if unknown := wanted - _BY_NAME.keys():
        raise UsageError(
            f"there is no measure {sorted(unknown)[0]!r}", f"measures: {', '.join(_BY_NAME)}"
        )
    return tuple(measure for measure in MEASURES if measure.name in wanted)
