"""Which characters a text may hold."""

from __future__ import annotations

import re

from cosyvoice_cpu.errors import TextError

_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # but for line ends and tabs
_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python keeps bytes that are not UTF-8


def check_characters(text: str, source: str) -> str:
    """`text`, if it holds only what text can hold. Raises: TextError beginning with `source`."""
    if found := _CONTROL.search(text):
        raise TextError(
            f"{source} holds the control character U+{ord(found[0]):04X} at position"
            f" {found.start()}",
            "remove it; is this a text?",
        )
    if found := _SURROGATE.search(text):
        raise TextError(
            f"{source} is not UTF-8 at position {found.start()}",
            "type it again, or use --text-file",
        )
    return text
