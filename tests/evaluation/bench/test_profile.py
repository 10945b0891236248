"""profile names stages and operators, and leaves nothing behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cosyvoice_cpu.cli import app
from cosyvoice_cpu.evaluation.bench.kernel_kinds import KINDS, kind_of, shares
from cosyvoice_cpu.evaluation.bench.profile import kinds_of_request, profile_bundle
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

SHORT = Workload(seconds=1.0, prompt_seconds=1.0, decode_tokens=2, solver_steps=1)


def test_a_profile_names_every_stage_and_the_operators_in_it(tiny_bundle):
    times = profile_bundle(tiny_bundle, SHORT, 1)
    assert [time.stage for time in times] == [
        "speech_lm prefill",
        "speech_lm decode",
        "flow_encoder",
        "flow_estimator",
        "f0_predictor",
        "excitation",
        "vocoder generator",
    ]
    assert [time.calls for time in times] == [1, 24, 1, 10, 1, 1, 1]
    for stage in times:
        assert stage.seconds == pytest.approx(sum(part.seconds for part in stage.operators))
    assert "GroupQueryAttention" in {part.operator for part in times[1].operators}
    assert "Conv" in {part.operator for part in times[-1].operators}
    assert times[-1].kinds["attention"] == 0 < times[-1].kinds["products"]
    for kinds in (*(stage.kinds for stage in times), kinds_of_request(times)):
        assert list(kinds) == list(KINDS)
        assert sum(kinds.values()) == pytest.approx(1)


def test_each_kernel_is_of_one_kind_and_an_unknown_one_is_elementwise():
    assert shares([("Gemm", 3.0), ("MultiHeadAttention", 2.0), ("Gather", 1.0), ("Sin", 4.0)]) == {
        "products": 0.3,
        "attention": 0.2,
        "elementwise": 0.4,
        "memory": 0.1,
    }
    assert kind_of("DynamicQuantizeMatMul") == "products"
    assert set(shares([]).values()) == {0.0}


def test_sessions_outside_a_profile_record_nothing(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile_bundle(tiny_bundle, SHORT, 1)
    BundleStages.load(tiny_bundle).mel_to_f0(np.zeros((80, 20), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_the_profile_command_prints_shares_and_one_json_object(tiny_bundle):
    command = ["profile", str(tiny_bundle), "--seconds=1", "--prompt-seconds=1", "--threads=1"]
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0
    assert "flow_estimator" in table.stdout
    assert "all kernels" in table.stdout
    assert table.stdout.count("products ") == 8
    content = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert len(content["stages"]) == 7
    assert sum(content["stages"][0]["shares"].values()) == pytest.approx(1)
