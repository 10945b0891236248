"""How alike two speech LMs predict, given the same past."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats


def top1_agreement(want: Floats, got: Floats) -> float:
    """Share of rows, 0 to 1, whose most likely id is the same; logits [N, V] each."""
    return float(np.mean(want.argmax(1) == got.argmax(1)))


def kl_divergence_nats(want: Floats, got: Floats) -> float:
    """Mean over rows of KL(want || got) in nats per token; raw logits [N, V] each.

    The extra code length if `got` stands in for `want`: 0 only for equal distributions.
    Source: Kullback and Leibler, 1951.
    """
    log_p, log_q = _log_softmax(want), _log_softmax(got)
    return max(0.0, float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))))


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log
