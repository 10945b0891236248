"""How long-running work says where it is: the types of the functions that it calls.

A caller gives a `Progress` to show a bar, a `Notify` to show lines; both may be left out.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""(what is under way, share of it that is done, 0..1)."""

Share = Callable[[float], None]
"""(share that is done, 0..1) of one piece of work, which the caller has a name for."""

Notify = Callable[[str], None]
"""(a sentence about what was chosen or is being done)."""


def no_progress(what: str, done: float) -> None:
    """A `Progress` that shows nothing."""


def no_notice(sentence: str) -> None:
    """A `Notify` that shows nothing."""


def share_of(progress: Progress, what: str, start: float = 0.0, end: float = 1.0) -> Share:
    """`progress` for a piece of work called `what` that takes it from `start` to `end`."""
    return lambda done: progress(what, start + (end - start) * done)
