"""The flow learns to hear the speech LM: the end of its training.

Half of what the LM writes differs from the tokenizer's ids, mostly in acoustic detail and now and
then in a phoneme. So the last steps give the flow ids that the LM would have drawn for the corpus's
texts, beside the mel of the corpus, and a recogniser judges whether the mel that it makes has the
text's phonemes: the flow learns to weigh a token against its neighbours.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from training.flow import Batch, FlowTask, Prediction
from training.lm_rows import RowMaker
from training.mel_recogniser import MelRecogniser
from training.pairs import Pairs
from training.phonemes import token_labels
from training.sizes import SAMPLING, SPEECH_IDS
from training.speaker_encoder import voice_vector
from training.speech_lm import predict_tokens
from training.token_ids import IdTable, TokenCorpus

PHONEME_WEIGHT = 0.15
# Of the utterances: all ids the tokenizer's, all drawn; the rest are mixed at a rate of their own.
TRUE_SHARE, DRAWN_SHARE = 0.4, 0.3
MIXED_RATES = (0.2, 0.8)
DRAWS = 2  # for every token
_ROWS = 24  # texts in a batch


@torch.no_grad()
def draw_ids(lm: SpeechLM, rows: RowMaker, corpus: TokenCorpus, path: Path) -> None:
    """Write int16 [N, DRAWS] for all tokens of the corpus, what `lm` (as the voice has it) would
    have drawn after the tokenizer's ids; a file that exists is kept.
    """
    if path.exists():
        return
    torch.manual_seed(0)
    pairs = Pairs.of_corpus(corpus)
    drawn: list[NDArray[np.int16]] = [np.zeros((0, DRAWS), np.int16)] * len(pairs)
    order = np.argsort(corpus.tokens, kind="stable").tolist()
    for first in range(0, len(order), _ROWS):
        numbers = order[first : first + _ROWS]
        logits, wanted = predict_tokens(lm, [rows.joined(pairs, [n]) for n in numbers])
        chances = logits[wanted < SPEECH_IDS, :SPEECH_IDS].softmax(-1)
        likely, ids = chances.topk(SAMPLING.top_k, -1)
        before = likely.cumsum(-1) - likely
        kept = torch.where(before < SAMPLING.top_p, likely, 0)
        draws = ids.gather(1, torch.multinomial(kept, DRAWS, replacement=True))
        ends = np.cumsum([len(pairs.ids[n]) for n in numbers])[:-1]
        for number, part in zip(numbers, np.split(draws.numpy(), ends), strict=True):
            drawn[number] = part.astype(np.int16)
    part_path = path.with_suffix(".part.npy")
    np.save(part_path, np.concatenate(drawn))
    os.replace(part_path, path)


class FlowTuningTask(FlowTask):
    """Trains a `Flow` on ids of tokenizer and LM, with a recogniser on what it makes."""

    def __init__(
        self,
        corpus: TokenCorpus,
        heldout: TokenCorpus,
        table: IdTable,
        draws: NDArray[np.int16],
        recogniser: MelRecogniser,
    ) -> None:
        """`draws` is what `draw_ids` wrote for `corpus`."""
        names = {*corpus.corpus.speakers.tolist(), *heldout.corpus.speakers.tolist()}
        super().__init__(corpus, heldout, table, {n: voice_vector(n) for n in sorted(names)})
        self._draws = draws
        self._starts = np.concatenate([[0], np.cumsum(corpus.tokens)])
        self._recogniser = recogniser.eval().requires_grad_(False)

    def _ids(self, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        true = self._corpus.ids(number)
        kind = rng.random()
        if kind < TRUE_SHARE:
            return true
        place = int(self._starts[number])
        drawn = self._draws[place : place + len(true), rng.integers(DRAWS)].astype(np.int64)
        rate = 1.0 if kind < TRUE_SHARE + DRAWN_SHARE else rng.uniform(*MIXED_RATES)
        return np.where(rng.random(len(true)) < rate, drawn, true)

    def _losses_of(self, batch: Batch, prediction: Prediction) -> dict[str, Tensor]:
        labels = [
            np.concatenate([token_labels(self._corpus.corpus[n])[a:b] for n, a, b in stretch.parts])
            for stretch in batch.stretches
        ]
        with torch.autocast("cpu", enabled=False):
            logits = self._recogniser(prediction.mel)
        wrong = F.cross_entropy(logits.mT, torch.from_numpy(np.stack(labels)), reduction="none")
        told = prediction.told[:, ::2]
        phoneme = (wrong * told).sum() / told.sum().clamp(min=1)
        error = prediction.error()
        return {"total": error + PHONEME_WEIGHT * phoneme, "velocity": error, "phoneme": phoneme}
