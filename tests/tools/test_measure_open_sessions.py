"""What open sessions cost."""

from __future__ import annotations

from tools.measure_open_sessions import ladder_figures


def test_memory_and_loading_of_open_sizes_are_told(tiny_bundle):
    figures = ladder_figures(tiny_bundle, 1, 2)
    assert figures["step_s"] > 0
    assert figures["loading_cpu_s"] >= 0
    assert {"anonymous_mb", "file_mb"} < figures.keys()
