"""Flow encoder and estimator: masks, padding, look-ahead, gradients, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.networks_golden import FLOW_PROMPT, ids, stages
from torch import Tensor

from cosyvoice_cpu.checkpoint.config import EstimatorConfig, FlowConfig
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.networks.reference.flow_encoder import FlowEncoder
from cosyvoice_cpu.networks.reference.flow_estimator import (
    FlowEstimator,
    RotaryEmbedding,
    attention_mask,
    rotate_first_head,
)

ESTIMATOR = EstimatorConfig(
    dim=32,
    depth=2,
    heads=4,
    dim_head=8,
    ff_mult=2,
    mel_dim=6,
    mu_dim=6,
    spk_dim=6,
    static_chunk_size=10,
)
FLOW = FlowConfig(
    vocab_size=30,
    input_size=6,
    spk_embed_dim=12,
    output_size=6,
    token_mel_ratio=2,
    pre_lookahead_len=3,
    pre_lookahead_channels=16,
    inference_cfg_rate=0.7,
    estimator=ESTIMATOR,
)


@pytest.fixture
def encoder() -> FlowEncoder:
    torch.manual_seed(1)
    return FlowEncoder(FLOW).eval()


@pytest.fixture
def estimator() -> FlowEstimator:
    torch.manual_seed(1)
    return FlowEstimator(ESTIMATOR).eval()


def estimator_inputs(frames: int, batch: int = 2) -> list[Tensor]:
    torch.manual_seed(2)
    x, mu, cond = (torch.randn(batch, 6, frames) for _ in range(3))
    return [x, torch.ones(batch, 1, frames), mu, torch.rand(batch), torch.randn(batch, 6), cond]


def pad_right(inputs: list[Tensor], extra: int) -> list[Tensor]:
    """Padding holds values, not zeros, and is marked in the mask only."""
    x, mask, mu, t, speaker, cond = inputs
    junk = torch.randn(x.shape[0], 6, extra)
    marks = torch.zeros(x.shape[0], 1, extra)
    joined = [torch.cat([part, junk], dim=2) for part in (x, mu, cond)]
    return [joined[0], torch.cat([mask, marks], dim=2), joined[1], t, speaker, joined[2]]


@pytest.mark.parametrize("streaming", [False, True])
@torch.inference_mode()
def test_padding_a_mel_on_the_right_changes_no_velocity(
    estimator: FlowEstimator, streaming: bool
) -> None:
    inputs = estimator_inputs(23)
    alone = estimator(*inputs, streaming=streaming)
    padded = estimator(*pad_right(inputs, 14), streaming=streaming)
    torch.testing.assert_close(padded[:, :, :23], alone, rtol=1e-5, atol=2e-6)
    assert padded.isfinite().all()


@torch.inference_mode()
def test_a_row_of_nothing_but_padding_stays_finite(estimator: FlowEstimator) -> None:
    inputs = estimator_inputs(12)
    inputs[1][1] = 0
    assert estimator(*inputs).isfinite().all()


def test_a_frame_may_attend_to_its_own_chunk_and_all_before() -> None:
    allowed = attention_mask(torch.ones(1, 25, dtype=torch.bool), 10)
    assert allowed is not None
    expected = [[j < (i // 10 + 1) * 10 for j in range(25)] for i in range(25)]
    assert allowed[0, 0].tolist() == expected


def test_no_mask_is_made_where_everything_may_be_seen() -> None:
    assert attention_mask(torch.ones(2, 7, dtype=torch.bool), None) is None


@torch.inference_mode()
def test_with_the_chunk_mask_complete_chunks_ignore_what_follows(estimator: FlowEstimator) -> None:
    short, long = estimator_inputs(20), estimator_inputs(37)
    for part in (0, 2, 5):
        long[part][:, :, :20] = short[part]
    long[3:5] = short[3:5]
    first, whole = (estimator(*inputs, streaming=True) for inputs in (short, long))
    torch.testing.assert_close(whole[:, :, :20], first, rtol=1e-5, atol=2e-6)
    assert not torch.allclose(estimator(*long)[:, :, :20], first, atol=1e-3)


def test_only_the_first_head_is_rotated() -> None:
    x = torch.randn(1, 5, 4 * 8)
    turned = rotate_first_head(x, RotaryEmbedding(8)(5))
    assert torch.equal(turned[..., 8:], x[..., 8:])
    assert torch.equal(turned[:, 0], x[:, 0])  # position 0
    assert not torch.allclose(turned[:, 1:, :8], x[:, 1:, :8])
    pairs, turned_pairs = (a[..., :8].unflatten(2, (4, 2)).norm(dim=3) for a in (x, turned))
    torch.testing.assert_close(turned_pairs, pairs)


@pytest.mark.parametrize("streaming", [False, True])
def test_every_parameter_of_the_estimator_gets_a_gradient(
    estimator: FlowEstimator, streaming: bool
) -> None:
    estimator(*pad_right(estimator_inputs(15), 3), streaming=streaming)[
        :, :, :15
    ].square().sum().backward()
    silent = [n for n, p in estimator.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.inference_mode()
def test_open_tokens_yield_the_first_frames_of_a_longer_text(encoder: FlowEncoder) -> None:
    tokens = torch.randint(30, (1, 14))
    opened = encoder(tokens[:, :9], finalize=False)
    assert opened.shape == (1, 6, 2 * (9 - 3))
    torch.testing.assert_close(opened, encoder(tokens)[:, :, :12])


@torch.inference_mode()
def test_both_frames_of_a_token_have_the_same_mu(encoder: FlowEncoder) -> None:
    mu = encoder(torch.randint(30, (2, 9)))
    assert torch.equal(mu[:, :, 0::2], mu[:, :, 1::2])


@torch.inference_mode()
def test_a_masked_batch_equals_each_text_alone(encoder: FlowEncoder) -> None:
    tokens, mask = torch.randint(30, (2, 11)), torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    together = encoder(tokens, mask=mask)
    torch.testing.assert_close(together[:1], encoder(tokens[:1]))
    torch.testing.assert_close(together[1:, :, :14], encoder(tokens[1:, :7]))


@torch.inference_mode()
def test_negative_tokens_count_as_zero(encoder: FlowEncoder) -> None:
    assert torch.equal(encoder(torch.tensor([[-1, 4]])), encoder(torch.tensor([[0, 4]])))


@torch.inference_mode()
def test_the_length_of_a_speaker_embedding_does_not_matter(encoder: FlowEncoder) -> None:
    embedding = torch.randn(1, 12)
    torch.testing.assert_close(encoder.speaker(7 * embedding), encoder.speaker(embedding))
    assert encoder.speaker(torch.zeros(1, 12)).isfinite().all()


def test_every_parameter_of_the_encoder_gets_a_gradient(encoder: FlowEncoder) -> None:
    mu, speaker = encoder(torch.randint(30, (2, 9))), encoder.speaker(torch.randn(2, 12))
    (mu.square().sum() + speaker.square().sum()).backward()
    silent = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_prompt_longer_than_the_tokens_is_refused() -> None:
    with pytest.raises(SynthesisError, match="22 speech tokens leave no mel frame behind the 40"):
        stages().flow_condition([1, 2], finalize=False, **FLOW_PROMPT)


def test_a_speech_token_outside_the_flows_table_is_named() -> None:
    with pytest.raises(SynthesisError, match="speech id 500 is outside the model's 500"):
        stages().tokens_to_mel([500], **FLOW_PROMPT)


def test_other_noise_gives_another_mel() -> None:
    frames = 2 * (len(FLOW_PROMPT["prompt_tokens"]) + len(ids("flow_token")))
    silence = np.zeros((80, frames), np.float32)
    fixed = stages().tokens_to_mel(ids("flow_token"), steps=2, **FLOW_PROMPT)
    other = stages().tokens_to_mel(ids("flow_token"), steps=2, noise=silence, **FLOW_PROMPT)
    assert other.shape == fixed.shape
    assert not np.allclose(other, fixed, atol=1e-2)
