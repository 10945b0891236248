"""The flow learns, and where it starts."""

from __future__ import annotations

import numpy as np
import torch
from support.training_examples import falls

from training.flow import Flow, FlowTask, sample_mel
from training.speaker_encoder import voice_vector
from training.token_ids import (
    IdTable,
    TokenCorpus,
)


def test_the_flow_learns_one_batch_and_samples_a_mel(folder, token_folder):
    corpus, heldout = (TokenCorpus(folder, token_folder, s) for s in ("train", "heldout"))
    table = IdTable.load(token_folder / "table.npz")
    task = FlowTask(corpus, heldout, table, {"tone": voice_vector("tone")})
    assert falls(task, steps=6)
    ids = torch.from_numpy(heldout.ids(0))
    embedding = torch.from_numpy(voice_vector("tone"))
    noise = np.random.default_rng(0).normal(0, 1, (80, 2 * len(ids))).astype(np.float32)
    mel = sample_mel(task.network, ids, embedding, noise)
    assert mel.shape == (80, 2 * len(ids)) and np.isfinite(mel).all()


def test_the_flow_starts_at_the_mean_log_mel(folder, token_folder):
    corpus = TokenCorpus(folder, token_folder, "train")
    table = IdTable.load(token_folder / "table.npz")
    network: Flow = FlowTask(corpus, corpus, table, {"tone": voice_vector("tone")}).network
    mean = np.concatenate([u.mel for u in corpus.corpus]).astype(np.float32).mean(0)
    x = torch.randn(1, 80, 8)
    velocity = network.estimator(x, torch.ones(1, 1, 8), x, torch.zeros(1), x[..., 0], x)
    assert torch.allclose(velocity[0, :, 3], torch.from_numpy(mean), atol=1e-5)
