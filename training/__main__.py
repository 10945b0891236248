"""`python -m training --stage NAME --state DIR`: one stage of the recipe, from
where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch

from cosyvoice_cpu.errors import CosyVoiceError, MissingExtraError
from training.stages import STAGES


def main() -> int:
    """Parse the command line and run the stage; exit code 1 for what it lacks."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--stage", required=True, choices=STAGES)
    parser.add_argument("--state", required=True, type=Path, help="folder for corpus and runs")
    parser.add_argument("--steps", type=int, help="train up to this step (default: the recipe's)")
    parser.add_argument("--hours", type=float, help="of the stages data (11) and pairs (60)")
    parser.add_argument("--styles", type=Path, help="Kokoro's voices/*.bin, for the voices stage")
    parser.add_argument("--wordnet", type=Path, help="WordNet's dict folder, for the pairs stage")
    parser.add_argument("--speeches", type=Path, help="folder of speeches, for the pairs stage")
    parser.add_argument("--texts", type=int, default=20, help="held-out texts of the measure stage")
    parser.add_argument("--way", default="", help="the only way of speaking that is measured")
    parser.add_argument(
        "--voice", type=Path, help="of the stage finished_voice (default: the embedded one)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)  # vanishing gradients are many times slower as denormal numbers
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    try:
        STAGES[arguments.stage](arguments)
    except FileNotFoundError as error:  # what another stage makes, or a folder given
        missing = f"{error.filename} is missing" if error.filename else str(error)
        failure = CosyVoiceError(
            missing, "run the stages before it, or correct the folder given (training/README.md)"
        )
    except ModuleNotFoundError as error:
        failure = MissingExtraError(
            f"{error.name} is not installed", "pip install 'cosyvoice-cpu[train]'"
        )
    except CosyVoiceError as error:
        failure = error
    else:
        return 0
    print(failure.lines(), file=sys.stderr)
    return failure.exit_code


sys.exit(main())
