"""The text files of an official folder: YAML, `config.json`, and the byte-level BPE vocabulary."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from cosyvoice_cpu.checkpoint.config import CheckpointConfig, SpeechLMConfig
from cosyvoice_cpu.errors import UsageError

_BASE_CONTROL_TOKENS = 3  # <|endoftext|>, <|im_start|>, <|im_end|>: the tokenizer's own
_QWEN2_MERGES = 151_387


def official_json(lm: SpeechLMConfig) -> dict[str, Any]:
    """`CosyVoice-BlankEN/config.json` of a Qwen2 model of these sizes."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": lm.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": lm.intermediate_size,
        "max_position_embeddings": 32768,
        "max_window_layers": lm.num_layers,
        "model_type": "qwen2",
        "num_attention_heads": lm.num_heads,
        "num_hidden_layers": lm.num_layers,
        "num_key_value_heads": lm.num_kv_heads,
        "rms_norm_eps": lm.rms_norm_eps,
        "rope_theta": lm.rope_theta,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": lm.text_vocab_size,
    }


def official_yaml(config: CheckpointConfig) -> str:
    """`cosyvoice3.yaml` as the original writes it, training sections left out.

    Source: CosyVoice examples/libritts/cosyvoice3/conf/cosyvoice3.yaml.
    """
    lm, flow, dit, hift = config.speech_lm, config.flow, config.flow.estimator, config.vocoder
    sampling, mel = config.sampling, config.mel
    fmax = "null" if mel.fmax is None else f"{mel.fmax:g}"
    return f"""\
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]
__set_seed4: !apply:torch.cuda.manual_seed_all [1986]

sample_rate: {config.sample_rate}
llm_input_size: {lm.hidden_size}
llm_output_size: {lm.hidden_size}
spk_embed_dim: {flow.spk_embed_dim}
qwen_pretrain_path: ''
token_frame_rate: {config.token_frame_rate}
token_mel_ratio: {flow.token_mel_ratio}

chunk_size: {dit.static_chunk_size // flow.token_mel_ratio}
num_decoding_left_chunks: -1

llm: !new:cosyvoice.llm.llm.CosyVoice3LM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: {lm.speech_token_size}
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: {sampling.top_p}
        top_k: {sampling.top_k}
        win_size: {sampling.win_size}
        tau_r: {sampling.tau_r}

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
    input_size: {flow.input_size}
    output_size: {flow.output_size}
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {flow.vocab_size}
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: {flow.pre_lookahead_len}
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        in_channels: {flow.input_size}
        channels: {flow.pre_lookahead_channels}
        pre_lookahead_len: {flow.pre_lookahead_len}
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: {3 * flow.output_size}
        n_spks: 1
        spk_emb_dim: {dit.spk_dim}
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {flow.inference_cfg_rate}
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.DiT.dit.DiT
            dim: {dit.dim}
            depth: {dit.depth}
            heads: {dit.heads}
            dim_head: {dit.dim_head}
            ff_mult: {dit.ff_mult}
            mel_dim: {dit.mel_dim}
            mu_dim: {dit.mu_dim}
            spk_dim: {dit.spk_dim}
            out_channels: {dit.mel_dim}
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>

hift: !new:cosyvoice.hifigan.generator.CausalHiFTGenerator
    in_channels: {hift.in_channels}
    base_channels: {hift.base_channels}
    nb_harmonics: {hift.nb_harmonics}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: {hift.nsf_alpha}
    nsf_sigma: {hift.nsf_sigma}
    nsf_voiced_threshold: {hift.nsf_voiced_threshold}
    upsample_rates: {list(hift.upsample_rates)}
    upsample_kernel_sizes: {list(hift.upsample_kernel_sizes)}
    istft_params:
        n_fft: {hift.istft_n_fft}
        hop_len: {hift.istft_hop_len}
    resblock_kernel_sizes: {list(hift.resblock_kernel_sizes)}
    resblock_dilation_sizes: {[list(row) for row in hift.resblock_dilation_sizes]}
    source_resblock_kernel_sizes: {list(hift.source_resblock_kernel_sizes)}
    source_resblock_dilation_sizes: {[list(row) for row in hift.source_resblock_dilation_sizes]}
    lrelu_slope: {hift.lrelu_slope}
    audio_limit: {hift.audio_limit}
    conv_pre_look_right: {hift.conv_pre_look_right}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.CausalConvRNNF0Predictor
        num_class: 1
        in_channels: {hift.in_channels}
        cond_channels: {hift.f0_channels}

get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
    version: cosyvoice3
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: {mel.n_fft}
    num_mels: {mel.num_mels}
    sampling_rate: !ref <sample_rate>
    hop_size: {mel.hop}
    win_size: {mel.win}
    fmin: {mel.fmin:g}
    fmax: {fmax}
    center: False
"""


def write_text_tokenizer(folder: Path, rows: int, special_tokens: tuple[str, ...]) -> None:
    """`vocab.json`, `merges.txt`, `tokenizer_config.json` for a text table of `rows` rows.

    With Qwen2's number of rows the vocabulary and merges are the official ones, byte for byte; with
    fewer, the first merges that leave room for `special_tokens` behind them.
    Raises UsageError if `rows` does not even hold the 256 bytes and the special tokens.
    """
    count = min(_QWEN2_MERGES, rows - 256 - len(special_tokens))
    if count < 0:
        raise UsageError(
            f"a text table of {rows} rows is too small",
            f"256 bytes and {len(special_tokens)} special tokens need a row each",
        )
    header, *merges = qwen2_merges()
    kept = merges[:count]
    vocabulary = bpe_vocabulary(kept)
    text = json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(text, encoding="utf-8")
    (folder / "merges.txt").write_bytes("".join(f"{line}\n" for line in [header, *kept]).encode())
    config = _tokenizer_config(len(vocabulary), special_tokens[:_BASE_CONTROL_TOKENS])
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def qwen2_merges() -> list[str]:
    """The lines of Qwen2's `merges.txt`: a version line, then one merge per line by rank."""
    packed = files("cosyvoice_cpu.frontend").joinpath("data/qwen2_merges.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8").rstrip("\n").split("\n")


def bpe_vocabulary(merges: list[str]) -> dict[str, int]:
    """Token to id as in Qwen2's `vocab.json`: the 256 bytes, then the merges by rank.

    Source: the byte alphabet of GPT-2, openai/gpt-2 src/encoder.py, bytes_to_unicode.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # printable as they are
    alphabet = [chr(byte) for byte in shown]
    alphabet += [chr(256 + index) for index in range(256 - len(shown))]
    tokens = alphabet + [merge.replace(" ", "") for merge in merges]
    return {token: index for index, token in enumerate(tokens)}


def _tokenizer_config(first_id: int, control_tokens: tuple[str, ...]) -> dict[str, Any]:
    end_of_text = control_tokens[0]
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first_id + index): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for index, token in enumerate(control_tokens)
        },
        "additional_special_tokens": list(control_tokens[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": end_of_text,
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": end_of_text,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
