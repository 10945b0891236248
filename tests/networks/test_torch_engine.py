"""The torch engine: one class per component for it, for calibration and for the export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.networks_golden import CHECKPOINT
from torch import nn

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.generations.components import WEIGHTS_FILE
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.int8_layers import Int8Convolution, Int8Linear
from cosyvoice_cpu.networks.torch_engine import load_network
from cosyvoice_cpu.quantization.calibration.fx_calibration import calibrate
from cosyvoice_cpu.quantization.recipes.recipe import Activations
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import EngineOptions, GraphSource, engine_named
from cosyvoice_cpu.utterances import random_utterances

LAYER = {
    "speech_lm": "layers.0.qkv",
    "flow_encoder": "ahead",
    "flow_estimator": "blocks.0.qkv",
    "vocoder": "conv_pre",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[type]]:
    """A bundle, and how often its export made each class of the deployed form."""
    made: Counter[type] = Counter()
    path = tmp_path_factory.mktemp("made") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        for spec in COSYVOICE3.components.values():
            count_instances(spec.deployed_class(), made, patch)
        export_checkpoint(CHECKPOINT, path, max_seconds=4, front_end=False)
    return path, made


def count_instances(kind: type, made: Counter[type], patch: pytest.MonkeyPatch) -> None:
    original = kind.__init__

    def counting(self: nn.Module, *arguments: Any, **options: Any) -> None:
        made[type(self)] += 1
        original(self, *arguments, **options)

    patch.setattr(kind, "__init__", counting)


@pytest.mark.parametrize("name", COSYVOICE3.components)
def test_export_calibration_and_torch_engine_use_one_class(
    name: Any, made: tuple[Path, Counter[type]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, by_export = made
    kind = COSYVOICE3.components[name].deployed_class()
    assert by_export[kind] > 0
    bundle = open_bundle(path)
    utterances = random_utterances(bundle.manifest, tokens=8)
    by_calibration: Counter[type] = Counter()
    count_instances(kind, by_calibration, monkeypatch)
    calibrate(bundle, name, [LAYER[name]], Activations(), utterances)
    assert by_calibration[kind] == 1
    for graph in COSYVOICE3.components[name].graphs:
        before = by_calibration[kind]
        size = next(iter(bundle.component(name).shapes.sizes), None) if graph.ladder else None
        opened = engine_named("torch").open(
            GraphSource(bundle, name, graph.variant, size), EngineOptions()
        )
        assert by_calibration[kind] > before
        assert [tensor.name for tensor in opened.inputs][: len(graph.inputs)] == [
            tensor.name for tensor in graph.inputs
        ]


def test_a_run_leaves_the_callers_cache_alone_and_a_bound_one_writes_to_it(
    made: tuple[Path, Counter[type]],
) -> None:
    bundle = open_bundle(made[0])
    graph = engine_named("torch").open(
        GraphSource(bundle, "speech_lm", "speech_lm"), EngineOptions()
    )
    caches = {
        tensor.name: np.zeros([8 if isinstance(n, str) else n for n in tensor.shape], np.float32)
        for tensor in graph.inputs
        if tensor.name.startswith("past_")
    }
    width = graph.inputs[0].shape[2]
    assert isinstance(width, int)
    rows = np.ones((1, 3, width), np.float32)
    feed = COSYVOICE3.components["speech_lm"].graph("speech_lm").feed(rows, [2], [2], [3])
    alone = graph.run({**feed, **caches})
    assert not any(cache.any() for cache in caches.values())
    present = {name.replace("past", "present"): cache for name, cache in caches.items()}
    bound = graph.bind(caches, present).run(feed)
    assert bound.keys() == {"logits"}
    assert np.array_equal(bound["logits"], alone["logits"])
    for name, cache in present.items():
        assert cache[:, :, :3].any() and not cache[:, :, 3:].any()
        assert np.array_equal(cache, alone[name])


def test_an_engine_of_torch_speaks_in_any_length(made: tuple[Path, Counter[type]]) -> None:
    """Longer than the bundle's ladder of 4 s, and without padding."""
    torch_stages = BundleStages.load(made[0], engines={"vocoder": "torch"})
    mel = np.random.default_rng(0).normal(-5, 2, (80, 310)).astype(np.float32)
    waveform = torch_stages.mel_to_waveform(mel)
    assert waveform.shape == (310 * 480,)
    assert np.isfinite(waveform).all()


def test_weights_of_another_network_are_refused(
    made: tuple[Path, Counter[type]],
) -> None:
    bundle = open_bundle(made[0])
    tensors = load_file(bundle.file("flow_encoder", WEIGHTS_FILE))
    del tensors["speaker.bias"]
    with pytest.raises(BundleError, match="does not hold the weights of flow_encoder"):
        load_network(bundle, "flow_encoder", tensors)


def test_products_of_the_largest_integers_do_not_overflow() -> None:
    weight = torch.full((16, 64), 127, dtype=torch.int8)
    layer = Int8Linear(weight, None, torch.ones(16), 1.0, 0)
    assert (layer(torch.full((4, 64), 255.0)) == 64 * 127 * 255).all()


def test_an_integer_convolution_keeps_stride_dilation_and_groups() -> None:
    torch.manual_seed(0)
    like = nn.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2)
    weight = torch.randint(-127, 128, (6, 2, 3), dtype=torch.int8)
    layer = Int8Convolution(weight, like.bias, torch.full((6,), 0.5), 0.25, 3, like)
    integers = torch.randint(0, 256, (1, 4, 20))
    like.weight = nn.Parameter(weight.float() * 0.5)
    want = like((integers - 3) * 0.25)
    torch.testing.assert_close(layer((integers - 3) * 0.25), want)
