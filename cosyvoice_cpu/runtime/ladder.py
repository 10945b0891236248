"""The ladder of sizes of static-shape graphs.

Static graphs exist for a few lengths only, a request is padded to the next one. Steps are 50 mel
frames (1 s) at the bottom and 8 % further up: with prompts of 3 to 10 s and sentences of 2 to 12 s
that is 5.2 % more arithmetic than no padding at all, with 33 graphs up to 60 s. Finer steps save
0.3 % with 59 graphs; 25 % steps cost 15 % (`docs/decisions.md`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

GRID_FRAMES = 50  # one second of mel, one block of the streaming mask
STEP_SHARE = 0.08


def ladder_sizes(top: int, first: int = 2 * GRID_FRAMES) -> list[int]:
    """Ascending sizes in mel frames from `first` up to `top`, rounded up to the grid."""
    top = max(-(-top // GRID_FRAMES) * GRID_FRAMES, first)
    sizes = [first]
    while sizes[-1] < top:
        step = max(round(sizes[-1] * STEP_SHARE / GRID_FRAMES), 1) * GRID_FRAMES
        sizes.append(min(sizes[-1] + step, top))
    return sizes


def size_for(frames: int, sizes: Sequence[int]) -> int | None:
    """The smallest of the ascending `sizes` that holds `frames`, None if none does."""
    index = bisect_left(sizes, frames)
    return sizes[index] if index < len(sizes) else None
