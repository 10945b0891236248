"""What this machine reaches at best: matrix products and reading memory.

The shapes are those of the flow's linear layers, the memory is read the way weights are: in one
direction, by every thread its own part. Products are the best of several runs, since whatever else
the machine does can only make a run slower. Reading is the median: on a shared host single runs
reach twice what lasts.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROBE_FOLDER = Path(__file__).parent / "data"  # graphs, see tools/make_probe_graphs.py
PROBE_SHAPE = (1500, 1024, 2048)  # rows: two guidance halves of 15 s; the estimator's `expand`
_OPERATIONS = 2.0 * PROBE_SHAPE[0] * PROBE_SHAPE[1] * PROBE_SHAPE[2]
_READ_BYTES = 2**28  # 256 MB, more than any cache
_SECONDS = 0.6  # per figure
_LEAST_RUNS = 3


@dataclass(frozen=True)
class PeakThroughput:
    """With `threads` threads. bf16 is None without torch, or where it was not asked for."""

    threads: int
    fp32_gflops: float
    int8_gops: float
    bf16_gflops: float | None
    read_gb_s: float

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def best_of(self, other: PeakThroughput) -> PeakThroughput:
        """The higher figure of two measurements with the same number of threads."""
        bf16 = [value for value in (self.bf16_gflops, other.bf16_gflops) if value is not None]
        return PeakThroughput(
            self.threads,
            max(self.fp32_gflops, other.fp32_gflops),
            max(self.int8_gops, other.int8_gops),
            max(bf16, default=None),
            max(self.read_gb_s, other.read_gb_s),
        )


def measure_peak_throughput(threads: int, *, bfloat16: bool = False) -> PeakThroughput:
    """Measure in this process, about 3 s. `bfloat16` needs torch, which is imported for it."""
    return PeakThroughput(
        threads=threads,
        fp32_gflops=_engine_rate("float32", threads),
        int8_gops=_engine_rate("int8", threads),
        bf16_gflops=_bfloat16_rate(threads) if bfloat16 else None,
        read_gb_s=_read_rate(threads),
    )


def measure_peak_in_own_process(threads: int, *, bfloat16: bool = False) -> PeakThroughput:
    """Measure in a process of its own; `bfloat16` only if torch is installed.

    Where the processor has no BF16, that figure alone takes minutes.
    """
    command = [sys.executable, "-m", __name__, str(threads), *(["bfloat16"] if bfloat16 else [])]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return PeakThroughput(**json.loads(run.stdout))


def _engine_rate(precision: str, threads: int) -> float:
    """Giga-operations per second of a product in ONNX Runtime."""
    session = open_probe(precision, threads)
    x = np.random.default_rng(1).normal(0, 1, PROBE_SHAPE[:2]).astype(np.float32)
    return _OPERATIONS / 1e9 / min(_times(lambda: session.run(None, {"x": x})))


def open_probe(precision: str, threads: int) -> Any:
    """A session that multiplies x [rows, inner] with the weights of `probe_weights`."""
    import onnxruntime as ort

    from cosyvoice_cpu.runtime.onnxruntime_engine import session_options

    options = session_options(threads)
    weights = ort.OrtValue.ortvalue_from_numpy(probe_weights(precision))
    options.add_external_initializers(["w"], [weights])
    graph = (PROBE_FOLDER / f"matmul-{precision}.onnx").read_bytes()
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def probe_weights(precision: str) -> NDArray[np.generic]:
    """[inner, columns] of "float32", or of "int8" with the scale 1/64."""
    rng = np.random.default_rng(0)
    if precision == "float32":
        return rng.normal(0, 1, PROBE_SHAPE[1:]).astype(np.float32)
    return rng.integers(-64, 65, PROBE_SHAPE[1:]).astype(np.int8)


def _bfloat16_rate(threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    x = torch.randn(PROBE_SHAPE[:2]).to(torch.bfloat16)
    w = torch.randn(PROBE_SHAPE[1:]).to(torch.bfloat16)
    with torch.inference_mode():
        return _OPERATIONS / 1e9 / min(_times(lambda: x @ w))


def _read_rate(threads: int) -> float:
    parts = np.array_split(np.ones(_READ_BYTES // 8, np.int64), threads)
    with ThreadPoolExecutor(threads) as pool:
        # NumPy's reductions release the interpreter lock; OR is cheaper than the read itself.
        seconds = statistics.median(_times(lambda: list(pool.map(np.bitwise_or.reduce, parts))))
        return _READ_BYTES / 1e9 / seconds


def _times(run: Callable[[], object]) -> list[float]:
    """Seconds of several runs, after one to warm up."""
    run()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _LEAST_RUNS or time.perf_counter() < end:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    wanted = sys.argv[2:] == ["bfloat16"] and importlib.util.find_spec("torch") is not None
    print(json.dumps(measure_peak_throughput(int(sys.argv[1]), bfloat16=wanted).as_json()))
