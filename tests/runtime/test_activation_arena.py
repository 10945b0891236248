"""The arena of activations: what a stage leaves goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from cosyvoice_cpu.runtime import activation_arena
from cosyvoice_cpu.runtime.activation_arena import give_back
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

_PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from cosyvoice_cpu.runtime import activation_arena, bundle_stages
from cosyvoice_cpu.system.memory import resident_memory
stages = bundle_stages.BundleStages.load(Path(sys.argv[1]))
kept = sys.argv[2] == "kept"
if kept:
    bundle_stages.give_back = activation_arena.give_back = lambda: None
mel = np.full((80, 900), -5.0, np.float32)
for _ in range(2):
    if sys.argv[3] == "whole":
        stages.mel_to_waveform(mel)
    else:
        stream = stages.vocoder_stream()
        stream.push(mel)
        del stream
print(resident_memory().anonymous_mb)
"""


def test_the_model_that_shrinks_the_arena_is_the_one_that_its_comment_says() -> None:
    model = onnx.load_from_string(activation_arena._IDENTITY)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert (model.opset_import[0].version, model.ir_version) == (13, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the kinds of memory apart")
@pytest.mark.parametrize("speech", ["whole", "dropped stream"])
def test_what_a_stage_took_is_given_back_when_it_is_done_or_dropped(
    tiny_bundle: Path, speech: str
) -> None:
    left = {}
    for word in ("kept", "given"):
        command = [sys.executable, "-c", _PROGRAM, str(tiny_bundle), word, speech]
        left[word] = float(subprocess.run(command, capture_output=True, check=True).stdout)
    assert left["given"] < left["kept"] - 5


def test_giving_back_between_the_steps_of_another_stage_changes_nothing(tiny_bundle: Path) -> None:
    stages = BundleStages.load(tiny_bundle)
    mel = np.random.default_rng(0).normal(-5, 2, (80, 60)).astype(np.float32)
    before = stages.mel_to_waveform(mel)
    with stages.solving(100, streaming=False) as velocity:
        x = np.ones((2, 80, 100), np.float32)
        arguments = (x, np.ones((2, 1, 100), np.float32), x, np.zeros(2, np.float32))
        first = velocity(*arguments, x[:, :, 0], x)
        give_back()
        np.testing.assert_array_equal(velocity(*arguments, x[:, :, 0], x), first)
    np.testing.assert_array_equal(stages.mel_to_waveform(mel), before)
