"""The vocoder learns to hear the flow: the end of its training.

A mel that the flow made is smoother than a recording's, and a generator that has only met
recordings makes more of the difference than a listener would: of the words read back from true
tokens it lost 4 points that Griffin-Lim kept. So the last steps take half of their mels from the
flow (given the true tokens, so that they still lie frame by frame beside the audio), and further
voices come in.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.corpus import Corpus, Utterance
from training.flow import Flow, sample_mel
from training.sizes import MEL_BINS
from training.speaker_encoder import voice_vector
from training.token_ids import TokenCorpus
from training.vocoder import VocoderTask

UTTERANCES = 700
GENERATED_SHARE = 0.5  # of the crops
CROPS, FRAMES = 4, 32


def generate_mels(flow: Flow, corpus: TokenCorpus, folder: Path, count: int = UTTERANCES) -> None:
    """Write the flow's mels of `count` utterances to `folder`, every other one made as a stream
    makes it, whole or not at all; a folder that exists is kept.
    """
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    chances = corpus.corpus.chances()
    count = min(count, len(corpus))
    numbers = sorted(rng.choice(len(corpus), count, replace=False, p=chances).tolist())
    mels = []
    for place, number in enumerate(numbers):
        ids = torch.from_numpy(corpus.ids(number))
        embedding = torch.from_numpy(voice_vector(str(corpus.corpus.speakers[number])))
        noise = rng.standard_normal((MEL_BINS, 2 * len(ids)), np.float32)
        mel = sample_mel(flow, ids, embedding, noise, streaming=place % 2 == 1)
        mels.append(mel.T.astype(np.float16))
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    np.save(part / "mels.npy", np.concatenate(mels))
    (part / "utterances.json").write_text(json.dumps(numbers), encoding="utf-8")
    os.rename(part, folder)


class VocoderTuningTask(VocoderTask):
    """Trains the generator on recorded and generated mels in turn."""

    def __init__(self, corpus: Corpus, heldout: Corpus, steps: int, generated: Path) -> None:
        """`generated` is a folder of `generate_mels` on the same corpus.

        Raises FileNotFoundError without one.
        """
        super().__init__(corpus, heldout, steps)
        self._numbers: list[int] = json.loads((generated / "utterances.json").read_text("utf-8"))
        self._mels = np.load(generated / "mels.npy", mmap_mode="r")
        frames = 2 * corpus.tokens[self._numbers]
        self._starts = np.concatenate([[0], np.cumsum(frames)])

    def _batch(self, step: int) -> tuple[int, int]:
        return CROPS, FRAMES

    def _example(self, rng: np.random.Generator) -> tuple[Utterance, NDArray[np.float16]]:
        if rng.random() >= GENERATED_SHARE:
            return super()._example(rng)
        place = int(rng.integers(len(self._numbers)))
        start, end = self._starts[place : place + 2]
        return self._corpus[self._numbers[place]], self._mels[start:end]
