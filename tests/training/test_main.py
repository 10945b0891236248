"""The command line of the recipe: two lines for what is missing."""

from __future__ import annotations

import subprocess
import sys


def test_a_stage_whose_data_are_missing_names_them_in_two_lines(tmp_path):
    command = [sys.executable, "-m", "training", "--stage", "speech_lm"]
    ended = subprocess.run(
        [*command, "--state", tmp_path], capture_output=True, text=True, check=False
    )
    fact, remedy = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert fact.startswith("error:") and str(tmp_path) in fact
    assert "training/README.md" in remedy


def test_a_stage_without_its_packages_names_the_extra(tmp_path):
    without = "import runpy, sys; sys.modules['hibari'] = None; "
    run = "runpy.run_module('training', run_name='__main__')"
    command = [sys.executable, "-c", without + run, "--stage", "data", "--state", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    fact, remedy = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert fact == "error: hibari is not installed"
    assert "cosyvoice-cpu[train]" in remedy
