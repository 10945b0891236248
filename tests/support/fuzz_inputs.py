"""Damaged inputs by the thousand, the same in every run.

Each reader gets `count(reader)` inputs. COSYVOICE_FUZZ_TIMES multiplies them and moves on to other
seeds too, for a longer run.
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

_WORDS = (
    b"",
    b"\x00",
    b"\xff\xff\xff\xff",
    b'"',
    b"{",
    b"]",
    b"\n",
    b"-1",
    b"1e999",
    b"\xed\xa0\x80",
)


def seeds(reader: str) -> Iterator[random.Random]:
    """A generator of random choices for each input of `reader`."""
    for number in range(READERS[reader] * TIMES):
        yield random.Random(f"{reader} {number}")


def damaged(content: bytes, chance: random.Random, head: int = 0) -> bytes:
    """`content` changed in one to four places: bytes flipped, cut, doubled, moved or put in.

    With `head`, three of four changes fall into that many first bytes, where files say what they
    hold.
    """
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = head if head and chance.random() < 0.75 else len(changed)
        place = chance.randrange(max(1, min(end, len(changed))))
        length = chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = changed[place : place + length]
            case 3:
                other = chance.randrange(max(1, len(changed)))
                changed[place : place + length] = changed[other : other + length]
            case 4:
                changed[place : place + length] = chance.choice(_WORDS)
            case _:
                del changed[place:]
    return bytes(changed)
