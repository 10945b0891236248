"""Reads an audio file back and counts the words that are wrong.

python -m tools.read_back AUDIO --text-file FILE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cosyvoice_cpu.errors import AudioError, TextError
from cosyvoice_cpu.evaluation.quality.intelligibility import text_errors
from cosyvoice_cpu.evaluation.quality.recogniser import (
    RECOGNISER_RATE,
    Recogniser,
    load_recogniser,
)
from cosyvoice_cpu.frontend.clip import LONGEST_TO_TRIM, load_clip
from cosyvoice_cpu.frontend.resampling import resample
from tools.failures import reports_failures


def read_back(audio: Path, said: str, recogniser: Recogniser) -> str:
    """Two lines: the transcript, and how many words of `said` are wrong.

    Raises: AudioError for a file that can't be read or lasts 3 minutes or more.
    """
    samples, rate = load_clip(audio, trim=True)
    if len(samples) >= LONGEST_TO_TRIM * rate:
        raise AudioError(f"{audio} lasts {LONGEST_TO_TRIM:.0f} s or more", "read it back in parts")
    transcript = recogniser.transcribe(resample(samples, rate, RECOGNISER_RATE))
    errors = text_errors(said, transcript)
    return (
        f"{transcript}\n"
        f"{errors.errors} of {errors.words} words wrong ({errors.rate:.1%}): "
        f"{errors.substitutions} others, {errors.insertions} more, {errors.deletions} missing; "
        f"{len(samples) / rate:.1f} s"
    )


@reports_failures
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for what can't be done."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.read_back",
        description="Read an audio file back and count the words that are wrong.",
    )
    parser.add_argument("audio", type=Path)
    parser.add_argument("--text-file", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        said = given.text_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{given.text_file} can't be read as UTF-8 text", str(error)) from error
    print(read_back(given.audio, said, load_recogniser()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
