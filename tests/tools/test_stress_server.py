"""The rough clients of the stress program, a few of them, on a scripted server."""

from __future__ import annotations

from pathlib import Path

import psutil
from support.served import ScriptedSynthesizer, serving

from tools.stress_server import Target, rough_clients


def test_rough_clients_leave_a_server_that_answers(tmp_path: Path) -> None:
    (tmp_path / "anna.safetensors").touch()
    with serving(ScriptedSynthesizer(), [tmp_path], queue=16, max_wait=1e6) as served:
        figures = rough_clients(Target(served.url, psutil.Process()), 24, 4, seed=1)
    assert figures["answers_after_all"]
    outcomes = figures["outcomes"]
    assert sum(outcomes.values()) == 24
    assert outcomes["left"] == 6
    assert outcomes["200"] == 12
    assert outcomes.get("400", 0) + outcomes.get("413", 0) == 6
    assert figures["descriptors_after"] <= figures["descriptors_before"] + 1
