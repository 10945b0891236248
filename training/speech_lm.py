"""Training of the speech LM: text ids in, speech tokens and a stop out.

Loss is on the speech tokens and eos, and once more on their phonemes alone: of the two nats that a
token costs most are acoustic detail that nobody could foresee, and what is said must not drown in
it. A few input tokens are replaced at random, so that one badly drawn token does not derail what
follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from training.guided_attention import AttentionGuide
from training.lm_rows import Row, RowMaker, allowed_positions
from training.pairs import Pairs
from training.sizes import SPEECH_IDS, speech_lm_config
from training.speech_tokenizer import DIGITS, LEVELS
from training.spelling import Spelling
from training.token_ids import IdTable

SOS = SPEECH_IDS + COSYVOICE3.special_ids.sos
EOS = SPEECH_IDS + COSYVOICE3.special_ids.eos
TASK = SPEECH_IDS + COSYVOICE3.special_ids.task
IGNORED = -100
IDS_PER_STEP = 3200
GUIDE_WEIGHT = 0.2
PHONEME_WEIGHT = 1.0
REPLACED_TOKENS = 0.08
# Texts per row, share of the batches. With 60 % of single texts the network still mixed up prompt
# and target after 5,500 steps.
JOINED = ((1, 0.35), (2, 0.35), (3, 0.3))
# Scale of the logits in the finished voice, which is a temperature of its inverse: the sampler has
# none, and a small network leaves much probability on tokens that nobody would say.
SHARPNESS = 3.0
NEIGHBOURS = 300  # rows of a batch come from texts of about equal length


def initialize(network: SpeechLM, table: IdTable) -> None:
    """Weights from N(0, 0.02), both speech tables by the codes' digits: codes that differ in one
    digit sound alike.
    """
    codes = torch.from_numpy(table.codes_of_ids())
    digits = codes[:, None] // LEVELS ** torch.arange(DIGITS) % LEVELS - 1.0
    digits[codes < 0] = 0
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.dim() == 2:
                value.normal_(0, 0.02)
            elif name.endswith("bias"):
                value.zero_()
        width = network.config.hidden_size
        for weight in (network.speech_embedding.weight, network.llm_decoder.weight):
            weight[:SPEECH_IDS] += digits @ torch.randn(DIGITS, width) * 0.02


@torch.no_grad()
def sharpen(network: SpeechLM) -> None:
    """Scale the logits of a trained network by `SHARPNESS`."""
    network.llm_decoder.weight.mul_(SHARPNESS)


class SpeechLMTask:
    """Trains a `SpeechLM` on texts and their token ids."""

    def __init__(
        self,
        pairs: Pairs,
        heldout: Pairs,
        spelling: Spelling,
        table: IdTable,
        phonemes: NDArray[np.int64],
    ) -> None:
        """`phonemes` is the class of each speech id, as `token_ids.phoneme_of_ids` gives it."""
        torch.manual_seed(0)
        rows = SPEECH_IDS + COSYVOICE3.speech_table_extra_rows
        classes = np.full(rows, phonemes.max() + 1)  # eos and its like are a class of their own
        classes[:SPEECH_IDS] = phonemes
        self._phonemes = torch.from_numpy(classes)
        self._in_class = F.one_hot(self._phonemes).float()  # [rows, classes]
        self.network: SpeechLM = SpeechLM(speech_lm_config(spelling.rows))
        initialize(self.network, table)
        self._pairs, self._heldout, self._rows = pairs, heldout, RowMaker(spelling)
        self._guide = AttentionGuide(self.network)
        self._by_length = np.argsort([len(ids) for ids in pairs.ids], kind="stable")

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        decayed = [p for p in self.network.parameters() if p.dim() == 2]
        rest = [p for p in self.network.parameters() if p.dim() != 2]
        return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        joined = int(rng.choice([n for n, _ in JOINED], p=[share for _, share in JOINED]))
        place = int(rng.integers(len(self._by_length)))
        tokens = len(self._pairs.ids[self._by_length[place]])
        rows = max(1, round(IDS_PER_STEP / (1.6 * joined * tokens)))
        low = max(0, min(place - NEIGHBOURS // 2, len(self._by_length) - NEIGHBOURS))
        near = self._by_length[low : low + NEIGHBOURS]
        batch = [
            self._rows.joined(self._pairs, [int(n) for n in rng.choice(near, joined)], rng)
            for _ in range(rows)
        ]
        with self._guide.watching():
            logits, wanted = predict_tokens(self.network, batch, rng)
        loss, right = _cross_entropy(logits, wanted)
        chance = (F.softmax(logits, -1) @ self._in_class).clamp(min=1e-6)
        phoneme = F.nll_loss(chance.log(), self._phonemes[wanted])
        length = max(len(row.text) + len(row.speech) for row in batch) + 2
        guide = self._guide.loss(
            [torch.from_numpy(mask) for mask in allowed_positions(batch, length)]
        )
        return {
            "total": loss + PHONEME_WEIGHT * phoneme + GUIDE_WEIGHT * guide,
            "cross_entropy": loss,
            "phoneme": phoneme,
            "guide": guide,
            "right": right,
        }

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Cross-entropy in nats and tokens right over 160 held-out texts."""
        totals = []
        for start in range(0, min(160, len(self._heldout)), 16):
            numbers = range(start, min(start + 16, len(self._heldout)))
            batch = [self._rows.joined(self._heldout, [n]) for n in numbers]
            totals.append([float(x) for x in _cross_entropy(*predict_tokens(self.network, batch))])
        loss, right = np.mean(totals, 0)
        return {"cross_entropy": float(loss), "right": float(right)}


def predict_tokens(
    network: SpeechLM, batch: Sequence[Row], rng: np.random.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Logits [n, rows] for all speech tokens and eos of the batch, one row behind the other, and
    what they are [n]. With an `rng` some tokens are replaced on their way in.
    """
    longest = max(len(row.text) + len(row.speech) for row in batch) + 2
    rows, targets = [], torch.full((len(batch), longest), IGNORED)
    for number, row in enumerate(batch):
        fed = row.speech.copy()
        if rng is not None:
            replaced = rng.random(len(fed)) < REPLACED_TOKENS
            fed[replaced] = rng.choice(row.speech, int(replaced.sum()))
        marks = torch.tensor([SOS, TASK])
        sos, task = network.speech_embedding(marks)[:, None]
        words = network.qwen2.embed_tokens(torch.tensor(row.text))
        line = torch.cat([sos, words, task, network.speech_embedding(torch.from_numpy(fed))])
        rows.append(F.pad(line, (0, 0, 0, longest - len(line))))
        first = len(row.text) + 1
        targets[number, first : first + len(fed)] = torch.from_numpy(row.speech)
        targets[number, first + len(fed)] = EOS
    hidden = network(torch.stack(rows))
    chosen = targets != IGNORED
    return network.logits(hidden[chosen]).float(), targets[chosen]


def _cross_entropy(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """In nats, and the part guessed right."""
    right = (logits.argmax(-1) == wanted).float().mean()
    return F.cross_entropy(logits, wanted), right
