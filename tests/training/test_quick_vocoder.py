"""The quick generator is the generator."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from cosyvoice_cpu.networks.reference.vocoder import Snake, Vocoder
from training.quick_vocoder import QuickSnake, quickened
from training.sizes import VOCODER
from training.weight_norm import without_weight_norm


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    exact = without_weight_norm(Vocoder(dataclasses.replace(VOCODER, base_channels=16)))
    return exact, quickened(copy.deepcopy(exact))


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return torch.randn(1, 80, 12) - 5, 0.1 * torch.randn(1, 1, 12 * 480)


def test_in_evaluation_it_is_exact(networks, inputs):
    exact, quick = networks
    with torch.no_grad():
        assert torch.allclose(quick.eval()(*inputs), exact.eval()(*inputs), atol=1e-6)


def test_in_training_it_is_near_and_all_weights_learn(networks, inputs):
    exact, quick = networks
    with torch.no_grad():
        want = exact(*inputs)
    got = quick.train()(*inputs)
    assert float((got - want).norm()) < 1e-4 * float(want.norm())
    got.square().sum().backward()
    used = [p for name, p in quick.named_parameters() if not name.startswith(("f0_", "m_source"))]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in used)


def test_its_snake_has_the_derivatives_of_the_other():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 50)
    gradients = []
    for kind in (Snake, QuickSnake):
        snake, leaf = kind(3), x.clone().requires_grad_()
        with torch.no_grad():
            snake.alpha.copy_(torch.tensor([0.5, 1.0, 3.0]))
        (snake(leaf) * torch.arange(50)).sum().backward()
        gradients.append((leaf.grad, snake.alpha.grad))
    for got, want in zip(*gradients, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-3)
