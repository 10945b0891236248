"""The recipe's stages by name."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from training import stages
from training.settings import SETTINGS
from training.stages import RECIPE, STAGES


def test_all_runs_every_stage_of_the_recipe_once_and_in_order(monkeypatch):
    seen = []
    for name in RECIPE:
        monkeypatch.setitem(STAGES, name, lambda arguments, name=name: seen.append(name))
    STAGES["all"](argparse.Namespace())
    assert seen == list(RECIPE)
    assert set(STAGES) - set(RECIPE) == {"all", "measure"}
    assert set(SETTINGS) <= set(RECIPE)


def test_a_stage_that_is_stopped_stops_the_recipe(monkeypatch):
    def stopped(arguments):
        raise SystemExit(130)

    monkeypatch.setitem(stages.STAGES, RECIPE[0], stopped)
    monkeypatch.setitem(stages.STAGES, RECIPE[1], lambda arguments: pytest.fail("went on"))
    with pytest.raises(SystemExit):
        STAGES["all"](argparse.Namespace())


def test_a_stage_whose_data_are_missing_names_them_in_two_lines(tmp_path):
    command = [sys.executable, "-m", "training", "--stage", "speech_lm"]
    ended = subprocess.run(
        [*command, "--state", tmp_path], capture_output=True, text=True, check=False
    )
    fact, remedy = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert fact.startswith("error:") and str(tmp_path) in fact
    assert "docs/demo-voice.md" in remedy


def test_a_stage_without_its_packages_names_the_extra(tmp_path):
    without = "import runpy, sys; sys.modules['hibari'] = None; "
    run = "runpy.run_module('training', run_name='__main__')"
    command = [sys.executable, "-c", without + run, "--stage", "data", "--state", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    fact, remedy = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert fact == "error: hibari is not installed"
    assert "cosyvoice-cpu[train]" in remedy
