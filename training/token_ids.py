"""From tokenizer codes to the ids of the voice: silence on the silent ids, speech beside them.

CosyVoice drops all but the first 5 of a run of ids from a fixed list of 11, and its sampler
replaces any id that occurred within the last 10. Both are kept happy by one rule: the k-th token of
a silence gets the (k mod 11)-th id of the list. So silence is in the list, nothing else is, a pause
repeats no id within 10, and the language model can tell how long a pause has lasted. All other
codes take the remaining ids in order.

Source of list and rules: CosyVoice cosyvoice/cli/model.py, cosyvoice/utils/common.py
(ras_sampling).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from training.corpus import FIRST_FURTHER, Corpus
from training.phonemes import CLASSES, SILENCE, token_labels
from training.sizes import SPEECH_IDS
from training.speech_tokenizer import CODES, SpeechTokenizer

SILENT_IDS = tuple(sorted(COSYVOICE3.silent_tokens))

Encode = Callable[[NDArray[np.float16]], NDArray[np.int64]]
"""Log-mel [4 N, 128] of a text to its token ids [N]."""


@dataclass(frozen=True)
class IdTable:
    """What each tokenizer code becomes."""

    silent: NDArray[np.bool_]  # [CODES], the code means silence
    ids: NDArray[np.int64]  # [CODES], id of a code that is not silence

    @classmethod
    def from_counts(cls, in_silence: NDArray[np.int64], in_all: NDArray[np.int64]) -> IdTable:
        """A code is silence when most of its occurrences are."""
        free = np.setdiff1d(np.arange(SPEECH_IDS), SILENT_IDS)
        return cls(silent=2 * in_silence > in_all, ids=free[:CODES])

    def codes_of_ids(self) -> NDArray[np.int64]:
        """The code of each id [SPEECH_IDS]; -1 for silent and unused ids."""
        codes = np.full(SPEECH_IDS, -1)
        codes[self.ids] = np.arange(CODES)
        return codes

    def apply(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of one clip's codes [N]."""
        silent = self.silent[codes]
        index = np.arange(len(codes))
        last_spoken = np.maximum.accumulate(np.where(silent, -1, index))
        run = index - last_spoken - 1  # position in its silence
        return np.where(silent, np.take(SILENT_IDS, run % len(SILENT_IDS)), self.ids[codes])

    def save(self, path: Path) -> None:
        np.savez(path, silent=self.silent, ids=self.ids)

    @classmethod
    def load(cls, path: Path) -> IdTable:
        with np.load(path) as arrays:
            return cls(silent=arrays["silent"], ids=arrays["ids"])


def encoder_of(network: SpeechTokenizer, table: IdTable) -> Encode:
    """A trained tokenizer with its table."""
    return lambda log_mel: table.apply(encode(network, log_mel))


@torch.no_grad()
def encode(network: SpeechTokenizer, log_mel: NDArray[np.float16]) -> NDArray[np.int64]:
    """Codes [N] of one clip's log-mel [4 N, 128]."""
    return network.codes(torch.from_numpy(log_mel.astype(np.float32).T)[None])[0].numpy()


def count_codes(network: SpeechTokenizer, corpus: Corpus, texts: int) -> IdTable:
    """The table, from the first `texts` utterances."""
    in_silence, in_all = np.zeros(CODES, np.int64), np.zeros(CODES, np.int64)
    for number in range(min(texts, len(corpus))):
        utterance = corpus[number]
        codes = encode(network, utterance.log_mel)
        labels = token_labels(utterance)
        np.add.at(in_all, codes, 1)
        np.add.at(in_silence, codes[labels == SILENCE], 1)
    return IdTable.from_counts(in_silence, in_all)


def phoneme_of_ids(corpus: TokenCorpus, texts: int) -> NDArray[np.int64]:
    """The phoneme class that each id [SPEECH_IDS] mostly means, from the first `texts` utterances;
    silence for ids that never occur.
    """
    counts = np.zeros((SPEECH_IDS, CLASSES), np.int64)
    for number in range(min(texts, len(corpus))):
        np.add.at(counts, (corpus.ids(number), token_labels(corpus.corpus[number])), 1)
    counts[list(SILENT_IDS)] = 0  # class 0
    classes: NDArray[np.int64] = counts.argmax(1)
    return classes


def encode_shards(encode: Encode, corpus_folder: Path, folder: Path) -> None:
    """Write `folder`/SHARD.npy, int16 [N] ids in the order of the shard's texts, for every shard
    that has none yet.

    Every other text of a further voice gets the ids of the main voice, which says it token by token
    alike: the same ids for two mels leave the speaker to the speaker embedding.
    """
    for shard in sorted(p for p in corpus_folder.iterdir() if p.is_dir() and not p.suffix):
        path = folder / f"{shard.name}.npy"
        if path.exists():
            continue
        utterances = Corpus(corpus_folder, shard.name[:-5], only=shard.name)
        ids = [encode(u.log_mel) for u in utterances]
        if shard.name.startswith("train-") and int(shard.name[-4:]) >= FIRST_FURTHER:
            name = f"train-{int(shard.name[-4:]) - FIRST_FURTHER:04d}"
            main = Corpus(corpus_folder, "train", only=name)
            ids[::2] = [encode(u.log_mel) for u in main][::2]
        part = path.with_suffix(".part.npy")
        np.save(part, np.concatenate(ids).astype(np.int16))
        part.rename(path)


class TokenCorpus:
    """A corpus with its token ids; only shards that have ids."""

    def __init__(
        self, corpus_folder: Path, token_folder: Path, split: str, max_shards: int | None = None
    ) -> None:
        """The first `max_shards` shards of `split`.

        Raises FileNotFoundError when the token stage has not run.
        """
        names = [p.stem for p in sorted(token_folder.glob(f"{split}-????.npy"))][:max_shards]
        if not names:
            raise FileNotFoundError(f"{token_folder} holds no tokens of {split}")
        self.corpus = Corpus(corpus_folder, split, max_shards=len(names))
        self._ids = np.concatenate([np.load(token_folder / f"{name}.npy") for name in names])
        self._starts = np.concatenate([[0], np.cumsum(self.corpus.tokens)])
        self.tokens = self.corpus.tokens

    def __len__(self) -> int:
        return len(self.corpus)

    def ids(self, number: int) -> NDArray[np.int64]:
        """Token ids [N] of one utterance."""
        return self._ids[self._starts[number] : self._starts[number + 1]].astype(np.int64)
