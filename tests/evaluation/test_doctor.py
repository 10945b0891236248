"""doctor: facts of many machines, each with the check that it must lead to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings
from cosyvoice_cpu.checkpoint.sizes import FULL
from cosyvoice_cpu.evaluation.bench.peak_throughput import PeakThroughput
from cosyvoice_cpu.evaluation.bench.roofline import RECIPES, predict
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.evaluation.doctor import check_machine
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.system.machine import Machine

GOOD = Machine(
    cpu="Some CPU",
    architecture="x86_64",
    instruction_sets={"AVX2": True, "AVX-512": True, "VNNI": True, "BF16": True, "AMX": False},
    logical_cpus=4,
    usable_cpus=4,
    physical_cores=4,
    quota_cpus=None,
    default_threads=4,
    memory_mb=16000.0,
    available_mb=12000.0,
    memory_limit_mb=None,
    governor="performance",
    system="Linux 6",
    python="3.11.7",
    packages={"onnxruntime": "1.32.0"},
)
PEAK = PeakThroughput(
    threads=4, fp32_gflops=400.0, int8_gops=1600.0, bf16_gflops=None, read_gb_s=40.0
)
REQUEST = Request(Workload(), audio_settings(FULL), synthesis_settings(COSYVOICE3, FULL))
PREDICTIONS = [predict(recipe, FULL, REQUEST, PEAK) for recipe in RECIPES]
OLD_SETS = {"AVX2": True, "AVX-512": False, "VNNI": False, "BF16": False, "AMX": False}


def said(machine: Machine, peak: PeakThroughput = PEAK) -> str:
    """All checks but those about this very installation."""
    checks = check_machine(machine, peak, PREDICTIONS)
    return "\n".join(
        f"{f.level}: {f.what}" for f in checks if "extra [" not in f.what and "busy" not in f.what
    )


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("COSYVOICE_CPU_THREADS", raising=False)


def test_a_good_machine_gets_no_advice():
    assert said(GOOD) == ""


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"instruction_sets": {**OLD_SETS, "AVX2": False}}, "slow: the processor has no AVX2"),
        ({"instruction_sets": OLD_SETS}, "slow: the processor has no INT8 dot product"),
        ({"instruction_sets": None}, "note: this system does not list"),
        ({"usable_cpus": 2}, "slow: this process may run on 2 of 4 CPUs"),
        ({"quota_cpus": 1.5}, "slow: the container grants 1.5 CPUs of 4 cores"),
        ({"governor": "powersave"}, "slow: the frequency governor is powersave"),
        ({"memory_limit_mb": 2000.0}, "problem: float32 needs about"),
        ({"memory_limit_mb": 2000.0}, "note: the container grants 2.0 GB of 16.0 GB"),
        ({"memory_mb": 1000.0}, "problem: int8 needs about"),
        ({"available_mb": 2000.0}, "slow: float32 needs about"),
    ],
)
def test_each_weakness_is_named(change, check):
    assert check in said(replace(GOOD, **change))


def test_slow_int8_products_are_named_with_their_measured_factor():
    slow = replace(PEAK, int8_gops=500.0)
    assert "slow: INT8 products run at 1.2 times the speed of float32 here" in said(GOOD, slow)


def test_more_threads_than_cores_in_the_variable_are_named(monkeypatch):
    monkeypatch.setenv("COSYVOICE_CPU_THREADS", "16")
    assert "slow: COSYVOICE_CPU_THREADS is 16, more than the 4 cores" in said(GOOD)


def test_problems_come_before_what_is_slow_and_notes():
    checks = check_machine(
        replace(GOOD, memory_limit_mb=2000.0, governor="powersave"), PEAK, PREDICTIONS
    )
    levels = [check.level for check in checks]
    assert levels == sorted(levels, key=("problem", "slow", "note").index)


def test_an_arm_processor_with_dot_products_is_not_called_slow():
    sets = {"NEON": True, "DOT": True, "I8MM": True, "BF16": False}
    assert "INT8 dot product" not in said(replace(GOOD, instruction_sets=sets))


def test_wrong_wheels_are_named_without_importing_them(tmp_path):
    """A CUDA build of torch, and two builds of ONNX Runtime over each other."""
    torch = tmp_path / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text("raise SystemError('torch was imported')\n")
    (torch / "version.py").write_text("cuda: Optional[str] = '12.8'\n")
    for name in ("onnxruntime_gpu-1.20.0", "onnxruntime-1.20.0"):
        info = tmp_path / f"{name}.dist-info"
        info.mkdir()
        project = name.rpartition("-")[0].replace("_", "-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.20.0\n")
    run = subprocess.run(
        [sys.executable, "-m", "cosyvoice_cpu", "doctor", "--json", "--threads", "1"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    content = json.loads(run.stdout)
    words = "\n".join(check["what"] for check in content["checks"])
    assert "onnxruntime and onnxruntime-gpu are installed over each other" in words
    if not os.path.exists("/dev/nvidiactl"):
        assert "is the build for CUDA 12.8" in words
    assert content["peak_throughput"]["fp32_gflops"] > 0
    assert [p["recipe"] for p in content["predictions"]] == ["float32", "int8"]


@pytest.mark.parametrize(
    ("folder", "variable", "what"),
    [
        ("", "0", "COSYVOICE_CPU_PREPACKED_GB is 0: every process repacks integer weights"),
        ("open", "5", "is another user's, or others may write there: every process repacks"),
        ("not/there/yet", "5", None),
    ],
)
def test_weights_that_every_process_repacks_for_itself_are_named(
    tmp_path, monkeypatch, folder: str, variable: str, what: str | None
):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / folder) if folder else str(tmp_path))
    monkeypatch.setenv("COSYVOICE_CPU_PREPACKED_GB", variable)
    advice = said(GOOD)
    assert (what in advice) if what else advice == ""


def test_a_user_without_a_cache_folder_is_told_what_that_costs(monkeypatch):
    monkeypatch.setattr("cosyvoice_cpu.runtime.prepacked_graphs.cache_folder", lambda: None)
    assert "slow: this user has no cache folder: every process repacks" in said(GOOD)
