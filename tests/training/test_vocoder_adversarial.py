"""The vocoder against discriminators: its losses, the gradient, and exact resumption."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from training import vocoder_adversarial as stage
from training.corpus import Corpus
from training.discriminators import feature_loss, generator_loss
from training.flow import Flow
from training.token_ids import TokenCorpus
from training.trainer import Settings, train
from training.vocoder_adversarial import (
    HarmonicLoss,
    MelLoss,
    VocoderAdversarialTask,
)
from training.vocoder_tuning import generate_mels

SETTINGS = Settings(
    steps=4, peak_rate=1e-3, warmup=2, report_every=1, save_every=2, evaluate_every=100
)


@pytest.fixture
def make_task(folder, token_folder, tmp_path, monkeypatch):
    """Makes the same task each time, of small steps."""
    for name, value in (("ALONE", 1), ("FRAMES", 12), ("CROPS", 1)):
        monkeypatch.setattr(stage, name, value)
    corpus, heldout = TokenCorpus(folder, token_folder, "train"), Corpus(folder, "heldout")
    generate_mels(Flow().eval(), corpus, tmp_path / "generated", count=2)

    def make():
        torch.manual_seed(0)
        return VocoderAdversarialTask(corpus.corpus, heldout, SETTINGS, tmp_path / "generated")

    return make


def test_spectral_losses_are_zero_for_the_same_signal_and_grow_with_noise():
    torch.manual_seed(0)
    signal, noise = torch.randn(2, 1, 9600)
    for loss in (MelLoss(), HarmonicLoss()):
        same, near, far = (float(loss(signal + level * noise, signal)) for level in (0, 0.1, 1))
        assert same == 0.0
        assert near < far


def test_noise_between_harmonics_costs_more_than_as_much_above_the_band():
    time = torch.arange(9600) / 24000
    voice = sum(torch.sin(2 * torch.pi * 200 * k * time) / k for k in range(1, 25))[None]
    between, above = (0.05 * torch.sin(2 * torch.pi * hz * time) for hz in (2100.0, 8100.0))
    loss = HarmonicLoss()
    assert float(loss(voice + between, voice)) > 4 * float(loss(voice + above, voice))


def test_asking_the_discriminators_once_gives_the_gradient_of_asking_them_twice(make_task):
    task = make_task()
    made, recorded = task._pair(np.random.default_rng(1), 1)
    leaf = made.detach().requires_grad_()
    whole = (
        stage.MEL * MelLoss()(leaf, recorded)
        + stage.HARMONICS * HarmonicLoss()(leaf, recorded)
        + stage.ADVERSARIAL * generator_loss(task.discriminators(leaf))
        + stage.FEATURES * feature_loss(task.discriminators(recorded), task.discriminators(leaf))
    )
    (want,) = torch.autograd.grad(whole, leaf)
    task._pair = lambda rng, step: (leaf, recorded)
    total = task.losses(np.random.default_rng(1), step=stage.RAMP)["total"]
    (got,) = torch.autograd.grad(total, leaf)
    assert float((got - want).norm()) < 1e-4 * float(want.norm())


def test_a_run_that_was_interrupted_ends_with_the_same_networks(make_task, tmp_path, monkeypatch):
    monkeypatch.setattr(VocoderAdversarialTask, "evaluate", lambda self, network: {})
    whole, stopped, resumed = make_task(), make_task(), make_task()
    train(whole, tmp_path / "whole", SETTINGS)
    losses = stopped.losses

    def until_two(rng, step):
        if step == 2:
            raise KeyboardInterrupt
        return losses(rng, step)

    stopped.losses = until_two
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path / "parts", SETTINGS)
    train(resumed, tmp_path / "parts", SETTINGS)
    for name in ("network", "discriminators"):
        ours, theirs = (getattr(task, name).parameters() for task in (whole, resumed))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    curve = [json.loads(line) for line in (tmp_path / "whole/curve.jsonl").open()]
    assert {"deceived", "features", "discriminators", "mel", "harmonics"} <= curve[0].keys()


def test_a_later_run_begins_with_the_discriminators_of_an_earlier_one(make_task, tmp_path):
    earlier, later = make_task(), make_task()
    earlier.losses(np.random.default_rng(0), 0)
    earlier.discriminators.save(tmp_path / "discriminators.safetensors")
    later.take_discriminators(tmp_path / "discriminators.safetensors")
    taught = [p.half() for p in earlier.discriminators.parameters()]
    taken = [p.half() for p in later.discriminators.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(taught, taken, strict=True))
    later._begin_alone = lambda rng: pytest.fail("they have learned alone before")
    later.losses(np.random.default_rng(0), 0)
