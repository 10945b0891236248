"""Damaged inputs by the thousand, the same in every run.

`READERS` says how many each reader gets. COSYVOICE_FUZZ_TIMES multiplies them and moves on to other
seeds too, for a longer run. `tools.damaged_files` damages them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

READERS = {  # inputs of the default run
    "manifest": 2500,
    "speaker file": 2000,
    "weight file": 1500,
    "ONNX external data": 2500,
    "checkpoint YAML": 1000,
    "recipe TOML": 2000,
    "audio clip": 1500,
    "sentences and tokens": 1500,
}
TIMES = int(os.environ.get("COSYVOICE_FUZZ_TIMES", "1"))


def seeds(reader: str) -> Iterator[random.Random]:
    """A generator of random choices for each input of `reader`."""
    for number in range(READERS[reader] * TIMES):
        yield random.Random(f"{reader} {number}")
