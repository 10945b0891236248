"""How far the same text varies with the seed, and how often it goes wrong.

    python -m tools.check_seeds BUNDLE --text TEXT [--speaker NAME]
        [--count N] [--threads N]

Each seed is spoken in one attempt, as the original does it; where that loops, falls silent or does
not end it is spoken again as `synth` would, with retries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosyvoice_cpu.decoding.length_guard import DEFAULT_RETRIES
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer
from cosyvoice_cpu.system.threads import resolve_threads
from tools.failures import reports_failures

COUNT = 200


@dataclass(frozen=True)
class Seeds:
    """What `count` seeds gave."""

    seconds: tuple[float, ...]  # per seed, as `synth` would speak it; 0 for nothing
    first_wrong: tuple[int, ...]  # seeds whose first attempt went wrong
    wrong: tuple[int, ...]  # seeds that retries did not help


def try_seeds(speak: Callable[[int, int], Audio], count: int) -> Seeds:
    """Seeds 0 to `count` - 1; `speak` takes a seed and how many retries are allowed."""
    if count < 1:
        raise UsageError(f"{count} seeds are none", "give --count 1 or more")
    seconds, first_wrong, wrong = [], [], []
    for seed in range(count):
        audio = _spoken(speak, seed, 0)
        if audio is None or _went_wrong(audio):
            first_wrong.append(seed)
            audio = _spoken(speak, seed, DEFAULT_RETRIES)
            if audio is None or _went_wrong(audio):
                wrong.append(seed)
        seconds.append(audio.seconds if audio else 0.0)
    return Seeds(tuple(seconds), tuple(first_wrong), tuple(wrong))


def _spoken(speak: Callable[[int, int], Audio], seed: int, retries: int) -> Audio | None:
    try:
        return speak(seed, retries)
    except SynthesisError:  # not one token
        return None


def _went_wrong(audio: Audio) -> bool:
    """Each attempt that was thrown away leaves a warning, one that was taken anyway another."""
    return audio.report is not None and len(audio.report.warnings) > audio.report.retries


def to_text(seeds: Seeds) -> str:
    """Three lines for people."""
    shortest, middle, longest = np.percentile(seeds.seconds, [0, 50, 100])
    return (
        f"{len(seeds.seconds)} seeds: {shortest:.2f} to {longest:.2f} s, median {middle:.2f} s\n"
        f"wrong in the first attempt: {_listed(seeds.first_wrong)}\n"
        f"wrong after {DEFAULT_RETRIES} retries: {_listed(seeds.wrong)}\n"
    )


def _listed(numbers: Sequence[int]) -> str:
    return f"{len(numbers)}" + (f" ({', '.join(map(str, numbers))})" if numbers else "")


@reports_failures
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 if a seed stays wrong, 2 for what can't be done."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_seeds",
        description="How far one text varies with the seed, and how often it goes wrong.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--speaker")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    synthesizer = Synthesizer.load(given.bundle, threads=resolve_threads(given.threads))
    seeds = try_seeds(
        lambda seed, retries: synthesizer.speak(
            given.text, given.speaker, seed=seed, retries=retries
        ),
        given.count,
    )
    print(to_text(seeds), end="")
    return 1 if seeds.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
