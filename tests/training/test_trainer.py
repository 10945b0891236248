"""Exact resumption, the schedule, and averaged weights."""

from __future__ import annotations

import json

import pytest
import torch

from training.corpus import Corpus
from training.trainer import Settings, load_averaged, train
from training.vocoder import F0Task


def _settings(steps):
    return Settings(
        steps=steps, peak_rate=1e-3, warmup=2, report_every=1, save_every=2, evaluate_every=100
    )


def test_a_run_that_was_interrupted_ends_with_the_same_weights(folder, tmp_path):
    def task():
        torch.manual_seed(0)
        return F0Task(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, frames=16)

    whole = train(task(), tmp_path / "whole", _settings(6))
    first = _settings(6)

    class Stopped(F0Task):
        def losses(self, rng, step):
            if step == 4:
                raise KeyboardInterrupt
            return super().losses(rng, step)

    torch.manual_seed(0)
    interrupted = Stopped(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, frames=16)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, tmp_path / "parts", first)
    resumed = train(task(), tmp_path / "parts", first)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/curve.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6, 6]


def test_the_rate_warms_up_and_falls_to_its_floor():
    settings = Settings(steps=1000, peak_rate=1.0, warmup=10, floor=0.05)
    assert settings.rate(0) == pytest.approx(0.1, rel=1e-3)
    assert settings.rate(500) == pytest.approx(0.525)
    assert settings.rate(1000) == settings.rate(5000) == pytest.approx(0.05)


def test_loading_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_averaged(tmp_path, torch.nn.Linear(1, 1))
