"""The generator on harmonics of known phase."""

from __future__ import annotations

import torch
from support.training_examples import falls

from training import vocoder_harmonics
from training.corpus import Corpus
from training.vocoder_harmonics import VocoderHarmonicsTask


def test_it_learns_and_its_agreement_is_in_the_curve(folder, monkeypatch):
    for name, value in (("FRAMES", 12), ("CROPS", 1)):
        monkeypatch.setattr(vocoder_harmonics, name, value)
    torch.manual_seed(0)
    task = VocoderHarmonicsTask(Corpus(folder, "train"), [Corpus(folder, "heldout")[2]], 10)
    assert falls(task, steps=4, rate=1e-4)
    with torch.no_grad():
        figures = task.evaluate(task.network.eval())
    assert -1.0 <= figures["agreement_500"] <= 1.0
    assert {"agreement_4000", "depth_db"} <= figures.keys()
