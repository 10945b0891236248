"""Training of the speech LM: text ids in, speech tokens and a stop out.

Rows are laid out as at inference (CosyVoice cosyvoice/llm/llm.py, CosyVoice3LM):

    sos | system prefix, text 1, text 2 .. | task | speech 1, speech 2 .. | eos

Several texts in a row are what zero-shot synthesis looks like: prompt and target, their ids joined.
Loss is on the speech tokens and eos. A few input tokens are replaced at random, so that one badly
drawn token does not derail what follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.demo.training.pairs import Pairs
from cosyvoice_cpu.demo.training.sizes import SPEECH_IDS, speech_lm_config
from cosyvoice_cpu.demo.training.speech_tokenizer import DIGITS, LEVELS
from cosyvoice_cpu.demo.training.spelling import SYSTEM_PREFIX, Spelling
from cosyvoice_cpu.demo.training.token_ids import IdTable
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.speech_lm import SpeechLM

SOS = SPEECH_IDS + COSYVOICE3.special_ids.sos
EOS = SPEECH_IDS + COSYVOICE3.special_ids.eos
TASK = SPEECH_IDS + COSYVOICE3.special_ids.task
IGNORED = -100
IDS_PER_STEP = 3200
SPELLING_DROPOUT = 0.1
REPLACED_TOKENS = 0.04
# Texts per row, share of the batches. With 60 % of single texts the network still mixed up prompt
# and target after 5,500 steps.
JOINED = ((1, 0.4), (2, 0.45), (3, 0.15))
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
        for weight in (network.speech_embedding.weight, network.head.weight):
            weight[:SPEECH_IDS] += digits @ torch.randn(DIGITS, width) * 0.02


class SpeechLMTask:
    """Trains a `SpeechLM` on texts and their token ids."""

    def __init__(self, pairs: Pairs, heldout: Pairs, spelling: Spelling, table: IdTable) -> None:
        torch.manual_seed(0)
        self.network: SpeechLM = SpeechLM(speech_lm_config(spelling.rows))
        initialize(self.network, table)
        self._pairs, self._heldout, self._spelling = pairs, heldout, spelling
        self._prefix = spelling.encode(SYSTEM_PREFIX)
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
        parts = []
        for _ in range(rows):
            numbers = [int(n) for n in rng.choice(near, joined)]
            text = list(self._prefix)
            for n in numbers:
                text += self._spelling.encode_loosely(
                    self._pairs.texts[n], SPELLING_DROPOUT * rng.integers(2), rng
                )
            parts.append((text, np.concatenate([self._pairs.ids[n] for n in numbers])))
        loss, right = self._cross_entropy(parts, rng)
        return {"total": loss, "right": right}

    def _cross_entropy(
        self, parts: list[tuple[list[int], Any]], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Mean over speech tokens and eos, and the part of them guessed right."""
        network = self.network
        longest = max(len(text) + len(speech) for text, speech in parts) + 2
        rows, targets = [], torch.full((len(parts), longest), IGNORED)
        for row, (text, spoken) in enumerate(parts):
            speech = spoken.astype(np.int64)
            fed = speech.copy()
            if rng is not None:
                replaced = rng.random(len(fed)) < REPLACED_TOKENS
                fed[replaced] = rng.choice(speech, int(replaced.sum()))
            marks = torch.tensor([SOS, TASK])
            sos, task = network.speech_embedding(marks)[:, None]
            words = network.text_embedding(torch.tensor(text))
            line = torch.cat([sos, words, task, network.speech_embedding(torch.from_numpy(fed))])
            rows.append(F.pad(line, (0, 0, 0, longest - len(line))))
            first = len(text) + 1
            targets[row, first : first + len(speech)] = torch.from_numpy(speech)
            targets[row, first + len(speech)] = EOS
        hidden = network(torch.stack(rows))
        chosen = targets != IGNORED
        logits = network.logits(hidden[chosen]).float()
        wanted = targets[chosen]
        right = (logits.argmax(-1) == wanted).float().mean()
        return F.cross_entropy(logits, wanted), right

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Cross-entropy in nats and tokens right over 160 held-out texts."""
        totals = []
        for start in range(0, min(160, len(self._heldout)), 16):
            parts = [
                (
                    self._prefix + self._spelling.encode(self._heldout.texts[n]),
                    self._heldout.ids[n],
                )
                for n in range(start, min(start + 16, len(self._heldout)))
            ]
            totals.append([float(x) for x in self._cross_entropy(parts, None)])
        loss, right = np.mean(totals, 0)
        return {"cross_entropy": float(loss), "right": float(right)}
