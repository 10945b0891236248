"""The speech LM: cache, causality, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from support.networks_golden import ids, stages

from cosyvoice_cpu.checkpoint.config import SpeechLMConfig
from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.networks.reference.speech_lm import KVCache, SpeechLM

CONFIG = SpeechLMConfig(
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=48,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    text_vocab_size=20,
    speech_token_size=10,
    speech_table_rows=14,
)


@pytest.fixture
def network() -> SpeechLM:
    torch.manual_seed(1)
    return SpeechLM(CONFIG).eval()


@torch.inference_mode()
def test_decoding_with_a_cache_equals_full_recompute(network: SpeechLM) -> None:
    rows = torch.randn(1, 23, 32)
    whole = network(rows)
    cache = KVCache(CONFIG, capacity=4)  # grows three times
    pieces = [network(part, cache) for part in rows.split([9, 1, 1, 5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-5, atol=2e-6)
    assert cache.length == 23


@torch.inference_mode()
def test_the_cache_holds_the_originals_keys_and_values() -> None:
    from support.networks_golden import ARRAYS, relative_error

    text, speech = ids("lm_text_ids"), ids("lm_forced_ids")
    cache = KVCache(stages().config.speech_lm)
    stages().speech_lm(stages().embed_prompt(text, speech), cache)
    keys, values = cache.layer(0, cache.length)
    assert relative_error(keys.numpy(), ARRAYS["lm_xl_cache_k0"]) <= 2e-5
    assert relative_error(values.numpy(), ARRAYS["lm_xl_cache_v0"]) <= 2e-5


@torch.inference_mode()
def test_a_step_does_not_move_the_cache_to_another_buffer(network: SpeechLM) -> None:
    cache = KVCache(CONFIG, capacity=8)
    network(torch.randn(1, 5, 32), cache)
    before = cache.layer(0, 1)[0].data_ptr()
    network(torch.randn(1, 1, 32), cache)
    assert cache.layer(0, 1)[0].data_ptr() == before


@torch.inference_mode()
def test_what_follows_a_position_does_not_change_it(network: SpeechLM) -> None:
    rows = torch.randn(2, 12, 32)
    other = rows.clone()
    other[:, 7:] = torch.randn(2, 5, 32)
    torch.testing.assert_close(network(other)[:, :7], network(rows)[:, :7], rtol=0, atol=1e-6)


def test_every_parameter_of_the_speech_lm_gets_a_gradient(network: SpeechLM) -> None:
    text, speech = torch.randint(20, (2, 6)), torch.randint(10, (2, 7))
    rows = network.embed_prompt(text, speech, sos=10, task=12)
    network.logits(network(rows)).logsumexp(dim=2).sum().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_text_id_outside_the_table_is_named() -> None:
    with pytest.raises(TextError, match="text id 1024 is outside the model's 1024"):
        stages().speech_lm_logits([5, 1024], [])


def test_a_prompt_token_outside_the_table_is_named() -> None:
    with pytest.raises(SynthesisError, match="speech id 6561 is outside the model's 700"):
        stages().generate_speech_tokens([5], prompt_speech_ids=[6561])
