"""The graphs that peak throughput is measured with: products, as the script in tools makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosyvoice_cpu.evaluation.bench.peak_throughput import (
    PROBE_FOLDER,
    PROBE_SHAPE,
    PeakThroughput,
    open_probe,
    probe_weights,
)
from tools.make_probe_graphs import write_probes


@pytest.mark.parametrize(
    ("precision", "scale", "tolerance"), [("float32", 1.0, 1e-5), ("int8", 1 / 64, 0.05)]
)
def test_a_probe_is_a_matrix_product(precision, scale, tolerance):
    x = np.random.default_rng(1).normal(0, 1, PROBE_SHAPE[:2]).astype(np.float32)
    expected = x @ (probe_weights(precision).astype(np.float32) * np.float32(scale))
    (got,) = open_probe(precision, threads=1).run(None, {"x": x})
    assert np.abs(got - expected).max() < tolerance * np.abs(expected).max()


def test_the_committed_graphs_are_what_the_script_writes(tmp_path: Path):
    write_probes(tmp_path)
    names = sorted(path.name for path in PROBE_FOLDER.glob("*.onnx"))
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (PROBE_FOLDER / name).read_bytes()


def test_of_two_measurements_the_higher_figures_count():
    one = PeakThroughput(2, 100.0, 500.0, None, 20.0)
    other = PeakThroughput(2, 120.0, 400.0, 200.0, 10.0)
    assert one.best_of(other) == PeakThroughput(2, 120.0, 500.0, 200.0, 20.0)
