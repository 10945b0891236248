"""A wider vocoder computes the same waveform, and its new channels learn."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from training.sizes import VOCODER
from training.weight_norm import without_weight_norm
from training.widening import widened

CONFIG = dataclasses.replace(VOCODER, base_channels=16)


@pytest.fixture(scope="module")
def narrow():
    torch.manual_seed(0)
    return without_weight_norm(Vocoder(CONFIG))


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return torch.randn(1, 80, 12) - 5, 0.1 * torch.randn(1, 1, 12 * 480)


def test_it_has_the_width_and_the_waveform(narrow, inputs):
    wide = widened(narrow, 24)
    assert wide.config == dataclasses.replace(CONFIG, base_channels=24)
    assert wide.conv_pre.weight.shape[0] == 24
    with torch.no_grad():
        want, got = narrow(*inputs), wide(*inputs)
    assert float(want.abs().max()) > 1e-4
    assert torch.allclose(got, want, atol=1e-6)


def test_f0_predictor_and_excitation_are_copied(narrow):
    wide = widened(narrow, 24).state_dict()
    for name, value in narrow.state_dict().items():
        if name.startswith(("f0_predictor.", "m_source.")):
            assert torch.equal(wide[name], value)


def test_what_old_channels_read_of_new_ones_has_a_gradient_from_the_start(narrow, inputs):
    wide = widened(narrow, 24)
    wide(*inputs).square().sum().backward()
    unread = wide.resblocks[0].convs1[0].weight.grad[:8, 8:]
    assert float(unread.abs().min()) > 0


def test_no_two_channels_are_equal(narrow):
    rows = widened(narrow, 32).conv_pre.weight.flatten(1)
    distance = torch.cdist(rows, rows) + 9 * torch.eye(32)
    assert distance.min() > 0.1 * rows.norm(dim=1).mean()


def test_a_smaller_width_is_refused(narrow):
    with pytest.raises(ValueError, match="8 channels are fewer than 16"):
        widened(narrow, 8)
