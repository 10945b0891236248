"""A phoneme recogniser on mel spectrograms: the flow's judge while it is tuned.

It hears a quarter of a second to either side and no more: one that knew whole words would guess
what the mel does not show.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.corpus import Corpus
from training.phonemes import CLASSES, SILENCE, token_labels
from training.sizes import MEL_BINS
from training.speech_tokenizer import IGNORED, ConvBlock

_KERNEL = 5  # tokens
_LOUDEST_NOISE = 0.5  # in log-mel
_SILENT_MEL = -11.5


class MelRecogniser(nn.Module):
    """Log-mel [B, 80, 2 N] to phoneme logits [B, N, classes], 25 per second."""

    def __init__(self, width: int = 192, blocks: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv1d(MEL_BINS, width, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(width, _KERNEL) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.first(mel / 3 + 2)).transpose(1, 2)  # about unit scale
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.out(self.norm(x))
        return logits


class MelRecogniserTask:
    """Trains a `MelRecogniser` on crops of the corpus with noise of varying level."""

    def __init__(self, corpus: Corpus, heldout: Corpus, batch: int = 12, tokens: int = 75) -> None:
        torch.manual_seed(0)
        self.network = MelRecogniser()
        self._corpus, self._heldout = corpus, heldout
        self._batch, self._tokens = batch, tokens
        self._chance = corpus.chances()

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        mels, labels = [], []
        for number in rng.choice(len(self._corpus), self._batch, p=self._chance):
            utterance = self._corpus[int(number)]
            start = int(rng.integers(max(1, utterance.tokens - self._tokens + 1)))
            end = min(utterance.tokens, start + self._tokens)
            pad = self._tokens - (end - start)
            mel = utterance.mel[2 * start : 2 * end].astype(np.float32).T
            mel = mel + rng.standard_normal(mel.shape, np.float32) * rng.uniform(0, _LOUDEST_NOISE)
            mels.append(np.pad(mel, ((0, 0), (0, 2 * pad)), constant_values=_SILENT_MEL))
            label = token_labels(utterance)[start:end]
            labels.append(np.pad(label, (0, pad), constant_values=IGNORED))
        logits = self.network(torch.from_numpy(np.stack(mels).astype(np.float32))).float()
        wanted = torch.from_numpy(np.stack(labels))
        return {"total": F.cross_entropy(logits.mT, wanted, ignore_index=IGNORED)}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Phonemes right in the speech of 60 held-out texts."""
        right = spoken = 0
        for number in range(min(60, len(self._heldout))):
            utterance = self._heldout[number]
            labels = torch.from_numpy(token_labels(utterance))
            mel = torch.from_numpy(utterance.mel.astype(np.float32).T)
            speech = labels != SILENCE
            right += int((network(mel[None])[0].argmax(-1) == labels)[speech].sum())
            spoken += int(speech.sum())
        return {"phonemes_right": right / max(1, spoken)}
