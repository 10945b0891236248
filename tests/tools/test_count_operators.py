"""The embedded voice's graphs are as long and as large as was meant."""

from __future__ import annotations

import json
from pathlib import Path

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.demo import DEMO_BUNDLE
from tools.count_operators import count_operators

COUNTS = Path(__file__).parents[1] / "data" / "operators.json"


def test_operators_and_bytes_of_every_graph_are_those_on_record() -> None:
    """Where a change is meant: python -m tools.count_operators > tests/data/operators.json."""
    assert count_operators(open_bundle(DEMO_BUNDLE)) == json.loads(COUNTS.read_text("utf-8"))


def test_every_stage_that_speaks_is_counted() -> None:
    names = json.loads(COUNTS.read_text("utf-8")).keys()
    assert {"flow_estimator/stream", "flow_estimator/full", "vocoder/generator"} <= names
    assert {name.partition("/")[0] for name in names} == {
        *("speech_lm", "flow_encoder", "flow_estimator", "vocoder"),
    }
