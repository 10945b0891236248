"""Official tensor names: the released lists, round trips, refusals, what is held and copied."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from support.networks_golden import ARRAYS, CHECKPOINT, GOLDEN, relative_error, stages
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.cosyvoice3 import SKIPPED_KEYS
from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.checkpoint.sizes import FULL
from cosyvoice_cpu.errors import CheckpointError
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.reference.weights import (
    empty_networks,
    expected_tensors,
    fill,
    load_networks,
    official_tensors,
)

FILES = {"speech_lm": "llm.pt", "flow": "flow.pt", "vocoder": "hift.pt"}
BIASES = [
    ("speech_lm", "llm.model.model.layers.0.self_attn.q_proj.bias"),
    ("flow", "spk_embed_affine_layer.bias"),
    ("flow", "decoder.estimator.proj_out.bias"),
    ("vocoder", "conv_pre.bias"),
]


def stored(part: str) -> dict[str, Tensor]:
    return torch.load(CHECKPOINT / FILES[part], weights_only=True)


def own_networks(part: str) -> dict[str, nn.Module]:
    return {
        spec.key_prefix: getattr(stages(), name)
        for name, spec in COSYVOICE3.components.items()
        if spec.checkpoint_part == part
    }


def refusal(folder: Path, part: str, tensors: dict[str, Tensor]) -> str:
    """What is said when the file of `part` holds `tensors`."""
    shutil.copytree(CHECKPOINT, folder)
    torch.save(tensors, folder / FILES[part])
    checkpoint = open_checkpoint(folder, front_end=False)
    with pytest.raises(CheckpointError) as caught:
        load_networks(checkpoint, part)
    start = f"{folder / FILES[part]} does not fit its configuration: "
    assert caught.value.what.startswith(start)
    return caught.value.what.removeprefix(start)


@pytest.mark.parametrize("part", FILES)
def test_full_size_networks_have_the_released_names_and_shapes(part: str) -> None:
    keys = json.loads(gzip.decompress((GOLDEN / "cosyvoice3-keys.json.gz").read_bytes()))
    released = {name: tuple(shape) for name, shape in keys[FILES[part]].items()}
    networks = empty_networks(FULL, COSYVOICE3, part)
    written = official_tensors(networks, COSYVOICE3)
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == released
    read = expected_tensors(networks)
    skipped = {name for name in released if any(re.fullmatch(p, name) for p in SKIPPED_KEYS[part])}
    assert read == {name: shape for name, shape in released.items() if name not in skipped}
    assert (
        skipped
        == {
            "speech_lm": {"llm.model.lm_head.weight"},
            "flow": {"decoder.estimator.rotary_embed.inv_freq"},
            "vocoder": set(),
        }[part]
    )


@pytest.mark.parametrize("part", FILES)
def test_networks_give_back_the_file_they_were_made_from(part: str) -> None:
    original = stored(part)
    returned = official_tensors(own_networks(part), COSYVOICE3)
    assert returned.keys() == original.keys()
    for name, tensor in returned.items():
        assert tensor.dtype == torch.float32
        if name.endswith("inv_freq"):
            torch.testing.assert_close(tensor, original[name], rtol=1e-6, atol=0)
        else:
            assert torch.equal(tensor, original[name])


def test_rotary_frequencies_of_a_file_in_half_precision_are_not_taken(tmp_path: Path) -> None:
    shutil.copytree(CHECKPOINT, tmp_path / "half")
    halves = {name: tensor.half() for name, tensor in stored("flow").items()}
    torch.save(halves, tmp_path / "half" / "flow.pt")
    checkpoint = open_checkpoint(tmp_path / "half", front_end=False)
    estimator = load_networks(checkpoint, "flow")["flow_estimator"]
    own = stages().flow_estimator.rotary_embed
    assert torch.equal(estimator.rotary_embed.inv_freq, own.inv_freq)
    assert all(p.dtype == torch.float32 for p in estimator.parameters())


def test_a_vocoder_written_back_has_the_same_sound() -> None:
    tensors = official_tensors(own_networks("vocoder"), COSYVOICE3)
    networks = empty_networks(stages().config, COSYVOICE3, "vocoder")
    fill(networks, tensors)
    again = networks[""]
    mel, source = torch.tensor(ARRAYS["voc_mel"]), torch.tensor(ARRAYS["voc_source"])
    with torch.inference_mode():
        assert relative_error(again(mel, source).numpy(), ARRAYS["voc_wav_final"]) <= 1e-4
        f0 = again.get_submodule("f0_predictor")(mel)
    assert relative_error(f0.numpy(), ARRAYS["voc_f0_final_f64"]) <= 1e-6


def test_weights_of_the_networks_type_are_held_and_not_copied() -> None:
    networks = empty_networks(stages().config, COSYVOICE3, "speech_lm")
    tensors = stored("speech_lm")
    fill(networks, tensors)
    for name, parameter in networks[""].named_parameters():
        assert parameter.data_ptr() == tensors[name].data_ptr()


@pytest.mark.parametrize(("part", "key"), BIASES)
def test_a_missing_tensor_is_named(part: str, key: str, tmp_path: Path) -> None:
    tensors = stored(part)
    del tensors[key]
    assert refusal(tmp_path / "x", part, tensors) == f"missing {key}"


@pytest.mark.parametrize("part", FILES)
def test_left_over_tensors_are_named(part: str, tmp_path: Path) -> None:
    extra = {f"extra.{n}": torch.zeros(1) for n in range(4)}
    what = refusal(tmp_path / "x", part, stored(part) | extra)
    assert what == "unexpected extra.0, extra.1, extra.2 and 1 more"


@pytest.mark.parametrize(("part", "key"), BIASES)
def test_a_tensor_of_another_shape_is_named(part: str, key: str, tmp_path: Path) -> None:
    tensors = stored(part)
    size = len(tensors[key])
    tensors[key] = torch.zeros(size + 1)
    what = refusal(tmp_path / "x", part, tensors)
    assert what == f"wrong shape: {key} [{size + 1}], expected [{size}]"


def test_half_of_a_weight_norm_pair_is_not_taken_for_a_weight(tmp_path: Path) -> None:
    tensors = stored("vocoder")
    del tensors["conv_pre.parametrizations.weight.original0"]
    what = refusal(tmp_path / "x", "vocoder", tensors)
    assert what == "missing conv_pre.parametrizations.weight.original0"
