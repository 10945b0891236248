"""How often a text goes wrong over many seeds."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.report import STAGE_NAMES, Report
from tools.check_seeds import main, to_text, try_seeds


def _audio(seconds, retries=0, warnings=0):
    return Audio(
        np.zeros(int(24000 * seconds), np.float32),
        24000,
        Report(
            seconds, 0.0, dict.fromkeys(STAGE_NAMES, 0.0), 25, 1, retries, ("loops",) * warnings
        ),
    )


def test_a_seed_that_a_retry_repairs_is_wrong_only_in_the_first_attempt():
    def speak(seed, retries):
        if seed != 1:
            return _audio(2)
        return _audio(2.5, retries=1, warnings=1) if retries else _audio(30, warnings=1)

    seeds = try_seeds(speak, 3)
    assert (seeds.first_wrong, seeds.wrong) == ((1,), ())
    assert seeds.seconds == (2, 2.5, 2)
    assert "2.00 to 2.50 s" in to_text(seeds)


def test_a_seed_whose_attempts_are_used_up_stays_wrong():
    def speak(seed, retries):
        return _audio(30, retries=retries, warnings=retries + 2 if retries else 1)

    assert try_seeds(speak, 2).wrong == (0, 1)


def test_a_seed_without_any_speech_is_wrong_and_not_the_end():
    def speak(seed, retries):
        if seed == 0:
            raise SynthesisError("nothing", "again")
        return _audio(1)

    seeds = try_seeds(speak, 2)
    assert (seeds.wrong, seeds.seconds) == ((0,), (0.0, 1.0))


def test_no_seeds_are_refused():
    with pytest.raises(UsageError):
        try_seeds(lambda seed, retries: _audio(1), 0)


def test_a_missing_bundle_is_said_in_two_lines(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--text", "Hello."]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
