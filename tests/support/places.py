"""Where things lie in the clone."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
DOCS = ROOT / "docs"
CALIBRATION = ROOT / "calibration_data"
