"""Look-up of generations by name."""

from __future__ import annotations

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.generations.base import Generation
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

GENERATIONS: dict[str, Generation] = {COSYVOICE3.name: COSYVOICE3}


def generation_named(name: str) -> Generation:
    """The generation called `name`. Raises UsageError, listing the known names."""
    try:
        return GENERATIONS[name]
    except KeyError:
        known = ", ".join(GENERATIONS)
        raise UsageError(f"unknown generation {name!r}", f"known generations: {known}") from None
