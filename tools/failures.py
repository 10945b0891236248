"""How the developers' programs end where a request can't be done."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from cosyvoice_cpu.errors import CosyVoiceError

P = ParamSpec("P")


def reports_failures(main: Callable[P, int]) -> Callable[P, int]:
    """`main`, which prints an expected failure as its two lines on stderr and returns 2.

    1 stays free for what a program finds: a seed that goes wrong.
    """

    @functools.wraps(main)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except CosyVoiceError as error:
            print(error.lines(), file=sys.stderr)
            return 2

    return reporting
