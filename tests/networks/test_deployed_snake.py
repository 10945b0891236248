"""The deployed Snake: a polynomial in place of the sine."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cosyvoice_cpu.networks.deployed.vocoder import Snake
from cosyvoice_cpu.networks.reference import vocoder as reference

CHANNELS = 3
# Rounding of float32 before the sine is as large as that of the argument.
ROUNDING = 2.0**-23


@given(
    arrays(np.float32, (1, CHANNELS, 16), elements=st.floats(-64, 64, width=32)),
    arrays(np.float32, CHANNELS, elements=st.floats(0.0625, 16, width=32)),
)
def test_snake_is_the_sines_whatever_the_argument(x: np.ndarray, alpha: np.ndarray) -> None:
    official, snake = reference.Snake(CHANNELS), Snake(CHANNELS)
    official.alpha.data = torch.from_numpy(alpha)
    snake.load_state_dict(Snake.tensors_of(official))
    got = snake(torch.from_numpy(x)).double().numpy()
    wide, rate = x.astype(np.float64), alpha.astype(np.float64)[:, None]
    want = wide + np.sin(wide * rate) ** 2 / rate
    bound = (1.5e-6 + 4 * ROUNDING * np.abs(wide * rate)) / rate + ROUNDING * np.abs(want)
    assert (np.abs(got - want) <= bound).all()


def test_snake_calls_no_sine() -> None:
    traced = torch.fx.symbolic_trace(Snake(CHANNELS))
    assert not any("sin" in str(node.target) for node in traced.graph.nodes)
