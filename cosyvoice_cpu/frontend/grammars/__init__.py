"""Numbers, dates and units as they are read, by wetext's grammars and what prepares for them."""

from cosyvoice_cpu.frontend.grammars.engine import GRAMMARS, normalizer_installed, spoken

__all__ = ["GRAMMARS", "normalizer_installed", "spoken"]
