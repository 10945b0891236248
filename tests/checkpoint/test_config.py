"""Sizes come from the YAML and config.json alone; what does not fit is named by its entry."""

import json
from dataclasses import replace

import pytest
from msgspec import structs
from support.places import DATA

from cosyvoice_cpu.checkpoint.cosyvoice3 import read_config
from cosyvoice_cpu.checkpoint.sections import Section
from cosyvoice_cpu.checkpoint.sizes import FULL, TINY
from cosyvoice_cpu.checkpoint.synthetic_text import official_json, official_yaml
from cosyvoice_cpu.checkpoint.yaml_reader import read_hyperpyyaml
from cosyvoice_cpu.errors import CheckpointError

GOLDEN = DATA / "golden"
ODD = replace(  # no two sizes alike
    TINY,
    sampling=structs.replace(TINY.sampling, top_p=0.7, top_k=9, win_size=5, tau_r=0.3),
    speech_lm=replace(TINY.speech_lm, rope_theta=5000.0, rms_norm_eps=1e-5, num_layers=5),
    vocoder=replace(TINY.vocoder, nb_harmonics=6, nsf_alpha=0.2, f0_channels=72, lrelu_slope=0.2),
    mel=structs.replace(TINY.mel, fmin=20.0, fmax=8000.0),
)


def read(folder, yaml_text, json_values):
    yaml_file = folder / "cosyvoice3.yaml"
    yaml_file.write_text(yaml_text)
    text_model = Section(folder / "config.json", json_values)
    return read_config(yaml_file, read_hyperpyyaml(yaml_file), text_model)


@pytest.mark.parametrize("config", [FULL, TINY, ODD])
def test_the_written_yaml_reads_back_as_the_same_configuration(config, tmp_path):
    assert read(tmp_path, official_yaml(config), official_json(config.speech_lm)) == config


def test_the_originals_recipe_file_gives_its_sizes():
    folder = GOLDEN / "cosyvoice3-tiny/checkpoint"
    text_model = json.loads((folder / "CosyVoice-BlankEN/config.json").read_text())
    yaml_file = folder / "cosyvoice3.yaml"
    config = read_config(
        yaml_file, read_hyperpyyaml(yaml_file), Section(folder / "config.json", text_model)
    )
    assert (config.speech_lm.hidden_size, config.speech_lm.speech_table_rows) == (64, 700)
    assert (config.flow.estimator.dim, config.flow.estimator.depth) == (128, 3)
    assert config.flow.estimator.static_chunk_size == 50
    assert config.vocoder.samples_per_frame == 480
    assert config.mel.fmax is None


@pytest.mark.parametrize(
    "entry",
    [
        "flow.decoder.estimator.depth",
        "flow.decoder.cfm_params.content.inference_cfg_rate",
        "flow.pre_lookahead_layer.channels",
        "llm.sampling.tau_r",
        "llm.speech_token_size",
        "hift.istft_params.hop_len",
        "hift.f0_predictor.cond_channels",
        "hift.conv_pre_look_right",
        "feat_extractor.fmax",
        "feat_extractor",
        "token_frame_rate",
        "hift",
    ],
)
def test_a_missing_entry_is_named_by_its_path(entry, tmp_path):
    tree_file = tmp_path / "cosyvoice3.yaml"
    tree_file.write_text(official_yaml(TINY))
    tree = read_hyperpyyaml(tree_file)
    *parents, last = entry.split(".")
    values = tree
    for name in parents:
        values = values[name] if isinstance(values[name], dict) else values[name].value
    del values[last]
    text_model = Section(tmp_path / "config.json", official_json(TINY.speech_lm))
    with pytest.raises(CheckpointError) as caught:
        read_config(tree_file, tree, text_model)
    assert caught.value.what == f"{tree_file}: {entry} is missing"


@pytest.mark.parametrize("entry", ["hidden_size", "num_key_value_heads", "rope_theta"])
def test_a_missing_entry_of_the_text_model_is_named(entry, tmp_path):
    values = official_json(TINY.speech_lm)
    del values[entry]
    with pytest.raises(CheckpointError, match=rf"config\.json: {entry} is missing"):
        read(tmp_path, official_yaml(TINY), values)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("dim_head: 64", "dim_head: 32", "flow.decoder.estimator.dim is 128; 2 heads of 32"),
        ("depth: 2", "depth: two", "flow.decoder.estimator.depth should be a whole number"),
        ("depth: 2", "depth: 1000000000", "flow.decoder.estimator.depth should be a whole number"),
        ("depth: 2", "depth: true", "flow.decoder.estimator.depth should be a whole number"),
        ("out_channels: 80", "out_channels: 100", "out_channels is 100; this model needs 80"),
        ("upsample_rates: [8, 5, 3]", "upsample_rates: [8, 5, 4]", "640 samples per frame"),
        ("[16, 11, 7]", "[16, 11, 2]", "hift.upsample_kernel_sizes has 2, below its rate 3"),
        ("[16, 11, 7]", "[16, 11]", "hift.upsample_kernel_sizes has 2 entries; it should have 3"),
        ("hop_len: 4", "hop_len: 3", "360 samples per frame"),
        ("base_channels: 64", "base_channels: 60", "base_channels is 60"),
        ("vocab_size: 2400", "vocab_size: 500", "llm.speech_token_size is 2400"),
        ("llm_input_size: 64", "llm_input_size: 32", "llm.llm_input_size is 32"),
        ("hop_size: 480", "hop_size: 256", "480 samples per frame, not 256"),
        ("token_frame_rate: 25", "token_frame_rate: 50", "100 frames per second at 24000 Hz"),
        ("spk_embed_dim: 192", "spk_embed_dim: 256", "flow.spk_embed_dim is 256"),
        ("t_scheduler: 'cosine'", "t_scheduler: 'linear'", "t_scheduler is 'linear'"),
        ("ras_sampling", "nucleus", "llm.sampling is cosyvoice.utils.common.nucleus; this"),
        ("llm.CosyVoice3LM", "llm.Qwen2LM", "llm is cosyvoice.llm.llm.Qwen2LM; this model needs"),
        ("CausalHiFTGenerator", "HiFTGenerator", "hift is cosyvoice.hifigan.generator.HiFT"),
        ("top_p: 0.8", "top_p: .nan", "llm.sampling.top_p should be a number"),
    ],
)
def test_entries_that_contradict_the_networks_are_refused(old, new, problem, tmp_path):
    text = official_yaml(TINY)
    assert old in text
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, text.replace(old, new), official_json(TINY.speech_lm))
    assert problem in caught.value.what
    assert str(tmp_path) in caught.value.what


@pytest.mark.parametrize(
    ("entry", "value", "problem"),
    [
        ("num_attention_heads", 5, "hidden_size is 64; 5 heads"),
        ("num_attention_heads", 16, "hidden_size is 64; 16 heads need a multiple of 8 each"),
        ("num_key_value_heads", 3, "num_key_value_heads is 3 and does not divide the 4 heads"),
        ("model_type", "llama", "model_type is 'llama'"),
        ("tie_word_embeddings", False, "tie_word_embeddings is False"),
        ("rope_scaling", {"type": "yarn"}, "rope_scaling is set"),
        ("num_hidden_layers", 10**9, "num_hidden_layers should be a whole number, 1 to 1000"),
    ],
)
def test_a_text_model_that_the_networks_do_not_implement_is_refused(
    entry, value, problem, tmp_path
):
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, official_yaml(TINY), official_json(TINY.speech_lm) | {entry: value})
    assert problem in caught.value.what
