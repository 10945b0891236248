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
from typing import Any

import numpy as np

from cosyvoice_cpu.evaluation.bench.probe_graphs import int8_matmul_model, matmul_model

_SHAPE = (1500, 1024, 2048)  # rows: two guidance halves of 15 s; the estimator's `expand` layer
_OPERATIONS = 2.0 * _SHAPE[0] * _SHAPE[1] * _SHAPE[2]
_READ_BYTES = 2**28  # 256 MB, more than any cache
_SECONDS = 0.6  # per figure
_LEAST_RUNS = 3


@dataclass(frozen=True)
class Ceilings:
    """With `threads` threads. bf16 is None without torch, or where it was not asked for."""

    threads: int
    fp32_gflops: float
    int8_gops: float
    bf16_gflops: float | None
    read_gb_s: float

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def best_of(self, other: Ceilings) -> Ceilings:
        """The higher figure of two measurements with the same number of threads."""
        bf16 = [value for value in (self.bf16_gflops, other.bf16_gflops) if value is not None]
        return Ceilings(
            self.threads,
            max(self.fp32_gflops, other.fp32_gflops),
            max(self.int8_gops, other.int8_gops),
            max(bf16, default=None),
            max(self.read_gb_s, other.read_gb_s),
        )


def measure_ceilings(threads: int, *, bfloat16: bool = False) -> Ceilings:
    """Measure in this process, about 3 s. `bfloat16` needs torch, which is imported for it."""
    return Ceilings(
        threads=threads,
        fp32_gflops=_OPERATIONS / 1e9 / min(_times(_engine_run(matmul_model(*_SHAPE), threads))),
        int8_gops=_OPERATIONS / 1e9 / min(_times(_engine_run(int8_matmul_model(*_SHAPE), threads))),
        bf16_gflops=_bfloat16_rate(threads) if bfloat16 else None,
        read_gb_s=_read_rate(threads),
    )


def measure_ceilings_apart(threads: int) -> Ceilings:
    """Measure in a process of its own, BF16 as well if torch is installed."""
    command = [sys.executable, "-m", __name__, str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return Ceilings(**json.loads(run.stdout))


def _engine_run(model: bytes, threads: int) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(0, 1, _SHAPE[:2]).astype(np.float32)
    return lambda: session.run(None, {"x": x})


def _bfloat16_rate(threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    x = torch.randn(_SHAPE[:2]).to(torch.bfloat16)
    w = torch.randn(_SHAPE[1:]).to(torch.bfloat16)
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
    has_torch = importlib.util.find_spec("torch") is not None
    print(json.dumps(measure_ceilings(int(sys.argv[1]), bfloat16=has_torch).as_json()))
