"""A text to be spoken, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
from cosyvoice_cpu.decoding.length_guard import DEFAULT_RETRIES
from cosyvoice_cpu.frontend.reading import Item, read_plainly
from cosyvoice_cpu.synthesis.delivery import AS_MADE, Delivery
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.report import Progress


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked for, checked."""

    text: str  # as typed, without the system prefix
    prompt: Prompt
    seed: int
    speed: float = 1.0
    delivery: Delivery = AS_MADE
    preset: str = DEFAULT_PRESET  # of the flow's solver, one of the model's
    read: Callable[[str], Iterator[Item]] = read_plainly  # text to sentences, pauses and notes
    retries: int = DEFAULT_RETRIES  # of a piece whose speech is not plausible
    progress: Progress | None = None
    started: float = 0.0  # time.perf_counter() at the call
    frontend_seconds: float = 0.0  # spent since then on text and speaker
