"""What each layer costs: measured alone, and summed like noise."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.command_line import run
from support.quantization_examples import float_bundle

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.progress import no_progress
from cosyvoice_cpu.quantization.calibration.pairs import CalibrationItems
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache
from cosyvoice_cpu.quantization.recipes.recipe import ComponentRecipe, load_recipe
from cosyvoice_cpu.quantization.search.candidate import plan_component
from cosyvoice_cpu.quantization.search.fitting import Inputs, fit
from cosyvoice_cpu.quantization.search.sensitivity import (
    LayerSensitivity,
    measure_sensitivity,
    shortened,
    worst_layers,
)
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances


def rows_of(name: ComponentName, part: ComponentRecipe) -> list[LayerSensitivity]:
    stages = BundleStages.load(float_bundle())
    (item,) = random_utterances(stages.manifest, prompt=8, tokens=12)
    plan = plan_component(stages.bundle, name, part)
    return measure_sensitivity(
        stages, plan, item, MeasurementCache(stages.manifest), lambda done: None
    )


@pytest.mark.parametrize(
    ("name", "recipe", "least"),
    [
        ("speech_lm", "int8", 30),
        ("speech_lm", "dynamic-int8", 25),
        ("speech_lm", "int4-lm", 10),
        ("flow_estimator", "int8", 40),
    ],
)
def test_every_layer_alone_is_better_than_all_together(
    name: ComponentName, recipe: str, least: float
) -> None:
    part = load_recipe(recipe).components[name]
    rows = rows_of(name, part)
    assert [row.sqnr_db for row in rows] == sorted(row.sqnr_db for row in rows)
    assert least < rows[0].sqnr_db < 100
    assert all(row.bytes_saved > 0 for row in rows)
    together = -10 * np.log10(sum(10 ** (-row.sqnr_db / 10) for row in rows))
    assert together > least - 3


def test_the_fewest_layers_are_named_that_bring_the_gain() -> None:
    rows = [
        LayerSensitivity("speech_lm", layer, "dynamic-int8", db, 1)
        for layer, db in (("a", 20.0), ("b", 30.0), ("c", 40.0))
    ]
    assert worst_layers(rows, 0.0) == []
    assert worst_layers(rows, 0.3) == ["a"]
    assert worst_layers(rows, 9.0) == ["a"]
    assert worst_layers(rows, 15.0) == ["a", "b"]
    assert worst_layers(rows, 90.0) == ["a", "b", "c"]


def test_an_item_is_shortened_around_the_end_of_its_prompt() -> None:
    (item,) = random_utterances(BundleStages.load(float_bundle()).manifest, prompt=40, tokens=60)
    short = shortened(item)
    assert short.prompt_tokens == item.prompt_tokens[15:]
    assert short.tokens == item.tokens[:25]
    assert np.array_equal(short.prompt_mel, item.prompt_mel[30:])
    assert shortened(short).prompt_tokens == short.prompt_tokens


def test_the_command_writes_tables_and_a_plot(tmp_path: Path) -> None:
    random = ("--calibration", "random")
    arguments = ("quantize", float_bundle(), "--output", tmp_path / "tables", "--sensitivity")
    outcome = run(*arguments, "--recipe", "int8", "--component", "speech_lm", *random)
    assert (outcome.code, outcome.stderr) == (0, "")
    names = ["sensitivity.csv", "sensitivity.md", "sensitivity.svg"]
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == names
    assert outcome.stdout == (tmp_path / "tables" / "sensitivity.md").read_text()
    with (tmp_path / "tables" / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {row["kernel"] for row in rows} == {"weight-only-int8"}
    svg = ElementTree.parse(tmp_path / "tables" / "sensitivity.svg").getroot()
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "speech_lm head" in texts


def test_smoothed_layers_are_measured_with_their_scales() -> None:
    """A network is the same in float whatever its scales, so no layer may become far worse."""
    stages = BundleStages.load(float_bundle())
    items = random_utterances(stages.manifest, count=2, prompt=8, tokens=12)
    cache = MeasurementCache(stages.manifest)
    data = CalibrationItems(items[:1], items[1:], "random ids")
    inputs = Inputs(stages, data, cache, no_progress)
    for name, part in load_recipe("smooth-int8").components.items():
        plan = fit(plan_component(stages.bundle, name, part), inputs)
        assert plan.smoothing
        assert plan.smoothing.scales
        rows = measure_sensitivity(stages, plan, items[0], cache, lambda done: None)
        assert rows[0].sqnr_db > 30
    cache.clear()
