"""Official tensor names: round trips, the released files' lists, strict refusals."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.networks_golden import ARRAYS, CHECKPOINT, GOLDEN, relative_error, stages
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import (
    EstimatorConfig,
    FlowConfig,
    SpeechLMConfig,
    VocoderConfig,
)
from cosyvoice_cpu.errors import CheckpointError
from cosyvoice_cpu.networks.reference.flow_encoder import FlowEncoder
from cosyvoice_cpu.networks.reference.flow_estimator import FlowEstimator
from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from cosyvoice_cpu.networks.reference.vocoder import Vocoder

DILATIONS = ((1, 3, 5),) * 3
RELEASED_LM = SpeechLMConfig(896, 24, 14, 2, 4864, 1e-6, 1e6, 151936, 6561, 6761)
RELEASED_FLOW = FlowConfig(
    6561, 80, 192, 80, 2, 3, 1024, 0.7, EstimatorConfig(1024, 22, 16, 64, 2, 80, 80, 80, 50)
)
RELEASED_VOCODER = VocoderConfig(
    *(80, 512, 8, 24000, 0.1, 0.003, 10.0),
    *((8, 5, 3), (16, 11, 7), 16, 4),
    *((3, 7, 11), DILATIONS, (7, 7, 11), DILATIONS),
    *(0.1, 0.99, 4, 512),
)
NETWORKS: dict[str, tuple[type[Any], str, Callable[[Any], Any]]] = {
    "speech_lm": (SpeechLM, "llm.pt", lambda config: config.speech_lm),
    "flow_encoder": (FlowEncoder, "flow.pt", lambda config: config.flow),
    "flow_estimator": (FlowEstimator, "flow.pt", lambda config: config.flow.estimator),
    "vocoder": (Vocoder, "hift.pt", lambda config: config.vocoder),
}


def stored(file: str) -> dict[str, Tensor]:
    return torch.load(CHECKPOINT / file, weights_only=True)


def shapes(*networks: nn.Module) -> dict[str, list[int]]:
    tensors: dict[str, Tensor] = {}
    for network in networks:
        tensors |= network.to_official()  # type: ignore[operator]
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def test_full_size_networks_have_the_released_names_and_shapes() -> None:
    released = json.loads(gzip.decompress((GOLDEN / "cosyvoice3-keys.json.gz").read_bytes()))
    with torch.device("meta"):
        lm, vocoder = SpeechLM(RELEASED_LM), Vocoder(RELEASED_VOCODER)
        flow = FlowEncoder(RELEASED_FLOW), FlowEstimator(RELEASED_FLOW.estimator)
    assert shapes(lm) == released["llm.pt"]
    assert shapes(*flow) == released["flow.pt"]
    assert shapes(vocoder) == released["hift.pt"]


@pytest.mark.parametrize("name", ["speech_lm", "flow_encoder", "flow_estimator"])
def test_a_network_gives_back_the_tensors_it_was_made_from(name: str) -> None:
    build, file, config_of = NETWORKS[name]
    tensors = stored(file)
    network = build.from_tensors(config_of(stages().config), tensors)
    returned = network.to_official()
    for key, tensor in returned.items():
        torch.testing.assert_close(tensor, tensors[key], rtol=1e-6, atol=0)
    assert len(returned) > 0


def test_a_flow_file_is_the_encoder_and_the_estimator_and_nothing_else() -> None:
    parts = stages().flow_encoder.to_official() | stages().flow_estimator.to_official()
    assert parts.keys() == stored("flow.pt").keys()


def test_a_vocoder_written_back_has_the_official_names_and_the_same_sound() -> None:
    tensors = stages().vocoder.to_official()
    original = stored("hift.pt")
    assert {k: v.shape for k, v in tensors.items()} == {k: v.shape for k, v in original.items()}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    again = Vocoder.from_tensors(stages().config.vocoder, tensors)
    mel, source = torch.tensor(ARRAYS["voc_mel"]), torch.tensor(ARRAYS["voc_source"])
    with torch.inference_mode():
        assert relative_error(again(mel, source).numpy(), ARRAYS["voc_wav_final"]) <= 1e-4
        f0 = again.f0_predictor(mel)
    assert relative_error(f0.numpy(), ARRAYS["voc_f0_final_f64"]) <= 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_a_missing_tensor_is_named(name: str) -> None:
    build, file, config_of = NETWORKS[name]
    tensors = stored(file)
    key = next(k for k in own_keys(tensors, name) if k.endswith(".bias"))
    del tensors[key]
    with pytest.raises(CheckpointError) as caught:
        build.from_tensors(config_of(stages().config), tensors)
    assert caught.value.what == f"{name}: tensors are missing: {key}"


@pytest.mark.parametrize("name", NETWORKS)
def test_left_over_tensors_are_named(name: str) -> None:
    build, file, config_of = NETWORKS[name]
    prefix = "decoder.estimator." if name == "flow_estimator" else ""
    extra = {f"{prefix}extra.{n}": torch.zeros(1) for n in range(4)}
    with pytest.raises(CheckpointError) as caught:
        build.from_tensors(config_of(stages().config), stored(file) | extra)
    first = ", ".join(f"{prefix}extra.{n}" for n in range(3))
    assert caught.value.what == f"{name}: tensors are not the network's: {first} and 1 more"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tensor_of_another_shape_is_named(name: str) -> None:
    build, file, config_of = NETWORKS[name]
    tensors = stored(file)
    key = next(k for k in own_keys(tensors, name) if k.endswith(".bias"))
    size = len(tensors[key])
    tensors[key] = torch.zeros(size + 1)
    with pytest.raises(CheckpointError) as caught:
        build.from_tensors(config_of(stages().config), tensors)
    assert caught.value.what == f"{name}: {key} has shape [{size + 1}], expected [{size}]"


def test_half_of_a_weight_norm_pair_is_not_taken_for_a_weight() -> None:
    tensors = stored("hift.pt")
    del tensors["conv_pre.parametrizations.weight.original0"]
    with pytest.raises(CheckpointError, match=r"missing: conv_pre\.weight"):
        Vocoder.from_tensors(stages().config.vocoder, tensors)


def own_keys(tensors: dict[str, Tensor], name: str) -> list[str]:
    """The file's keys that belong to the network."""
    own = getattr(stages(), name).to_official()
    return [key for key in tensors if key in own]
