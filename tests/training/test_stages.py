"""The recipe's stages by name."""

from __future__ import annotations

import argparse

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
    assert set(STAGES) - set(RECIPE) == {"all", "measure", "finished_voice"}
    assert set(SETTINGS) <= set(RECIPE)


def test_a_stage_that_is_stopped_stops_the_recipe(monkeypatch):
    def stopped(arguments):
        raise SystemExit(130)

    monkeypatch.setitem(stages.STAGES, RECIPE[0], stopped)
    monkeypatch.setitem(stages.STAGES, RECIPE[1], lambda arguments: pytest.fail("went on"))
    with pytest.raises(SystemExit):
        STAGES["all"](argparse.Namespace())
