"""Good files made bad: blindly in a few places, or by what their format makes of them.

Each function takes a file's content and a generator of random choices, and gives other content:
the same for the same choices.
"""

from __future__ import annotations

import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from io import BytesIO
from typing import Any

Change = Callable[[bytes, random.Random], bytes]

_HEAD = 400  # bytes

_WORDS = (b"", b"\0", b"\xff" * 8, b'"', b"{", b"]", b"\n", b"-1", b"1e999", b"\xed\xa0\x80")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.5, 1e308, -0.0),
    *("", "a", "x" * 10_000, "\ud800", "..", "/etc/passwd", "NaN", [], {}, [[]], [0] * 1000),
)
_OPERATIONS = b"().0123FGIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b"


def damaged(content: bytes, chance: random.Random, head: int = _HEAD) -> bytes:
    """`content` changed in one to four places: bytes flipped, cut, doubled, moved or put in.

    Half of the changes fall into the `head` first bytes, where files say what they hold.
    """
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = chance.choice((len(changed), min(head, len(changed))))
        place = chance.randrange(max(1, end))
        length = chance.choice((1, 1, 2, 4, 8, 64, 1000))
        other = chance.randrange(max(1, len(changed)))
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = changed[place : place + length]
            case 3:
                changed[place : place + length] = changed[other : other + length]
            case 4:
                changed[place : place + length] = chance.choice(_WORDS)
            case _:
                del changed[place:]
    return bytes(changed)


def changed_json(text: bytes, chance: random.Random) -> bytes:
    """A JSON text with one to three of its values replaced, doubled or removed."""
    tree = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        holder = tree
        while True:
            keys: Sequence[Any] = list(holder) if isinstance(holder, dict) else range(len(holder))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(holder[key], (dict, list)) and holder[key] and chance.random() < 0.8:
                holder = holder[key]
                continue
            if chance.random() < 0.15:
                del holder[key]
            elif isinstance(holder, dict) and chance.random() < 0.1:
                holder[chance.choice(("x", key + " "))] = deepcopy(holder[key])
            else:
                holder[key] = deepcopy(chance.choice(_VALUES))
            break
    return json.dumps(tree).encode()


def damaged_or_changed_json(text: bytes, chance: random.Random) -> bytes:
    """A JSON text changed blindly or by its structure."""
    return (changed_json if chance.random() < 0.5 else damaged)(text, chance)


def changed_torch_file(content: bytes, chance: random.Random) -> bytes:
    """A file of torch.save with another program, whole in its frame; else blindly damaged."""
    if chance.random() < 0.3:
        return damaged(content, chance)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in entries if name.endswith("data.pkl"))
    text = bytearray(entries[program])
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text))
        match chance.randrange(5):
            case 0:
                text[place] = chance.choice(_OPERATIONS)
            case 1:
                text[place:place] = bytes(chance.choices(_OPERATIONS, k=chance.randint(1, 5)))
            case 2:
                text[place : place + 4] = struct.pack("<I", chance.choice((0, 1, 2**31, 2**32 - 1)))
            case 3:
                text[place:place] = b"h\0h\0\x86q\0" * chance.randint(1, 80)
            case _:
                text = bytearray(damaged(bytes(text), chance))
        text = text or bytearray(b".")
    entries[program] = bytes(text)
    packed = BytesIO()
    method = chance.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, value in entries.items():
            archive.writestr(name, value)
    return packed.getvalue()


def changed_safetensors(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header, whole in its frame; else blindly damaged."""
    if chance.random() < 0.3:
        return damaged(content, chance)
    end = 8 + int.from_bytes(content[:8], "little")
    change = changed_json if chance.random() < 0.7 else damaged
    header = change(content[8:end], chance)
    return len(header).to_bytes(8, "little") + header + content[end:]
