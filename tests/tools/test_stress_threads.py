"""Forty requests in eight threads on integers, and that the program finds what it looks for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.quantization_examples import int8_bundle
from support.speaker_examples import speaker

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer
from tools.stress_threads import Footprint, Outcome, stress, to_text

TEXTS = ("a", "ab", "abc")  # three sizes of the ladder
SPEAKERS = {  # with ids that the small model knows
    name: replace(speaker(name, tokens), speech_tokens=np.arange(tokens, dtype=np.int32))
    for name, tokens in (("anna", 10), ("ben", 30))
}
SMALL = Footprint(memory_mb=200.0, descriptors=8, threads=9)


def test_forty_requests_in_eight_threads_are_what_they_are_alone_and_leave_nothing():
    stages = BundleStages.load(int8_bundle())
    synthesizer = Synthesizer(
        stages, lambda text: [1 + ord(letter) % 50 for letter in text], lambda name: SPEAKERS[name]
    )
    outcome = stress(synthesizer, TEXTS, list(SPEAKERS), 40, 8)
    assert (outcome.requests, outcome.distinct) == (40, 12)
    assert outcome.different == ()
    # Forty requests are too few to see memory at rest.
    settled = replace(outcome.first, memory_mb=1.1 * outcome.first.memory_mb)
    assert not settled.grew_to(outcome.last), to_text(outcome)


class Forgetful:
    """Speaks something else each time."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def speak(self, *_: Any, **__: Any) -> Audio:
        return Audio(np.full(10, next(self._count), np.float32), 24000)


def test_audio_that_differs_is_found():
    outcome = stress(Forgetful(), TEXTS, ["anna"], 20, 2)
    assert len(outcome.different) == 20
    assert not outcome.is_good
    assert "20 differ" in to_text(outcome)
    assert "differs: ('a', 'anna', 0)" in to_text(outcome)


@pytest.mark.parametrize(
    ("later", "grown"),
    [
        (SMALL, False),
        (replace(SMALL, memory_mb=203.9), False),
        (replace(SMALL, memory_mb=204.1), True),
        (replace(SMALL, descriptors=9), True),
        (replace(SMALL, threads=10), True),
    ],
)
def test_what_grows_is_found(later: Footprint, grown: bool):
    outcome = Outcome(200, 40, (), SMALL, later, (200.0, 200.0), 210.0, 1.0)
    assert outcome.is_good is not grown


def test_requests_that_warm_up_are_compared_but_not_looked_at():
    outcome = stress(Forgetful(), TEXTS, ["anna"], 20, 2, warm=10)
    assert outcome.requests == 20
    assert len(outcome.different) == 30
    assert len(outcome.memory_mb) == 2


def test_too_few_requests_are_refused():
    with pytest.raises(UsageError, match="10 requests are too few for 8 threads"):
        stress(Forgetful(), TEXTS, ["anna"], 10, 8)
