"""The vocoder learns, and periodicity is measured."""

from __future__ import annotations

import numpy as np
import torch
from support.training_examples import falls

from cosyvoice_cpu.evaluation.quality.mos import missing_packages
from training.corpus import Corpus
from training.vocoder import VocoderTask, harmonic_depth, periodicity


def test_the_vocoder_learns_one_batch(folder):
    torch.manual_seed(0)
    task = VocoderTask(Corpus(folder, "train"), Corpus(folder, "heldout"), steps=10)
    assert falls(task, steps=6, rate=1e-4)


def test_mos_is_in_the_curve_where_it_can_be_predicted(folder):
    utterance = Corpus(folder, "heldout")[2]
    task = VocoderTask(Corpus(folder, "train"), [utterance], steps=10)
    with torch.no_grad():
        figures = task.evaluate(task.network)
    assert ("mos" in figures) == (not missing_packages())
    assert figures["periodicity_original"] > 0.9


def test_a_clean_tone_is_periodic_and_noise_is_not():
    f0 = np.full(50, 200.0, np.float32)
    tone = np.sin(2 * np.pi * 200 * np.arange(50 * 480) / 24000)
    noise = np.random.default_rng(0).standard_normal(50 * 480)
    assert periodicity(tone, f0) > 0.99 and abs(periodicity(noise, f0)) < 0.1


def test_a_voice_with_harmonics_at_3_khz_has_depth_there_and_noise_has_none():
    f0, time = np.full(50, 200.0, np.float32), np.arange(50 * 480) / 24000
    voice = sum(np.sin(2 * np.pi * 200 * order * time) for order in range(1, 30))
    noise = np.random.default_rng(0).standard_normal(len(time))
    assert harmonic_depth(voice, f0) > 30
    assert abs(harmonic_depth(noise, f0)) < 1
    assert harmonic_depth(voice, np.zeros(50, np.float32)) == 0.0
