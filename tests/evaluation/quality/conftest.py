"""A bundle of the golden networks, small enough to let it speak."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.networks_golden import CHECKPOINT

from cosyvoice_cpu.export.exporter import export_checkpoint


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quality") / "good"
    export_checkpoint(CHECKPOINT, path, max_seconds=6, front_end=False)
    return path
