"""Discriminators and their losses."""

from __future__ import annotations

import pytest
import torch

from training.discriminators import (
    Discriminators,
    discriminator_loss,
    feature_loss,
    generator_loss,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_they_learn_to_tell_a_tone_from_noise():
    torch.manual_seed(0)
    discriminators = Discriminators(windows=(512,))
    optimizer = torch.optim.Adam(discriminators.parameters(), lr=1e-3)
    tone = torch.sin(2 * torch.pi * 220 * torch.arange(4800) / 24000)[None]
    noise = 0.3 * torch.randn(1, 4800)
    losses = []
    for _ in range(12):
        loss = discriminator_loss(discriminators(tone), discriminators(noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert generator_loss(discriminators(tone)) < generator_loss(discriminators(noise))


def test_the_features_of_the_same_audio_are_no_distance_apart():
    torch.manual_seed(0)
    discriminators = Discriminators(windows=(512,))
    wave, other = torch.randn(2, 1, 4800)
    answers = discriminators(wave)
    assert feature_loss(answers, discriminators(wave)) == 0.0
    assert feature_loss(answers, discriminators(other)) > 0.0
