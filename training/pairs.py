"""Texts with their speech tokens: what the speech LM learns from, 100 kB an hour.

The LM needs many more different texts than the networks that hear audio. Speech is therefore
generated, encoded and forgotten; only text, ids and the times of the words are kept, in shards that
are whole or absent and depend only on their number, the prose and the tokenizer.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.frontend import resample, whisper_log_mel
from training.alignment import word_times
from training.sentences import SentenceMaker, Vocabulary
from training.sizes import SAMPLE_RATE
from training.speech import Voice
from training.speech_tokenizer import SpeechTokenizer
from training.token_ids import IdTable, TokenCorpus, encode

TEXTS_PER_SHARD = 1000
PROSE_SHARE = 0.6  # of the texts, if there is prose

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pairs:
    """Texts, their token ids and the times of their words (`alignment.word_times`), in one
    order.
    """

    texts: Sequence[str]
    ids: Sequence[NDArray[np.int16]]
    times: Sequence[NDArray[np.int16]]

    @classmethod
    def of_corpus(cls, corpus: TokenCorpus) -> Pairs:
        """The pairs of a corpus with audio."""
        utterances = list(corpus.corpus)
        ids = [corpus.ids(n).astype(np.int16) for n in range(len(corpus))]
        times = [word_times(u.text, u.units) for u in utterances]
        return cls([u.text for u in utterances], ids, times)

    @classmethod
    def load(cls, folder: Path, max_shards: int | None = None) -> Pairs:
        """The shards of a folder, in order. Raises FileNotFoundError when there is none."""
        paths = sorted(folder.glob("pairs-????.json"))[:max_shards]
        if not paths:
            raise FileNotFoundError(f"{folder} holds no pairs")
        texts: list[str] = []
        ids: list[NDArray[np.int16]] = []
        times: list[NDArray[np.int16]] = []
        for path in paths:
            shard = json.loads(path.read_text(encoding="utf-8"))
            texts += [text for text, _, _ in shard]
            ids += [np.asarray(tokens, np.int16) for _, tokens, _ in shard]
            times += [np.asarray(words, np.int16).reshape(-1, 2) for _, _, words in shard]
        return cls(texts, ids, times)

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(
            [*self.texts, *other.texts],
            [*self.ids, *other.ids],
            [*self.times, *other.times],
        )

    def __len__(self) -> int:
        return len(self.texts)


def make_pairs(
    folder: Path,
    voice: Voice,
    source: tuple[Vocabulary, Sequence[Sequence[str]]],
    tokenizer: tuple[SpeechTokenizer, IdTable],
    heldout: frozenset[str],
    hours: float,
) -> None:
    """Write shards until `folder` holds `hours` of speech; texts in `heldout` are left out.

    `source` is the vocabulary of the sentence maker and collections of prose, which come up alike.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens, number = 0, 0
    while tokens < hours * 3600 * 25:
        path = folder / f"pairs-{number:04d}.json"
        if not path.exists():
            texts = _texts(source, f"{path.stem}-{voice.name}")
            seed = int.from_bytes(path.stem.encode(), "big") % 2**31
            spoken = [
                (text, *_tokens(voice, text, seed + n, tokenizer))
                for n, text in enumerate(texts)
                if text not in heldout
            ]
            part = path.with_suffix(".part")
            part.write_text(json.dumps([pair for pair in spoken if pair[1]]), encoding="utf-8")
            os.rename(part, path)
        tokens += sum(len(ids) for _, ids, _ in json.loads(path.read_text(encoding="utf-8")))
        number += 1
        logger.info("%s: %.2f h", path.stem, tokens / 25 / 3600)


def _texts(source: tuple[Vocabulary, Sequence[Sequence[str]]], seed: str) -> list[str]:
    vocabulary, prose = source
    maker, draw = SentenceMaker(vocabulary, seed), random.Random(f"prose-{seed}")
    return [
        draw.choice(draw.choice(prose))
        if prose and draw.random() < PROSE_SHARE
        else maker.sentence()
        for _ in range(TEXTS_PER_SHARD)
    ]


def _tokens(
    voice: Voice, text: str, seed: int, tokenizer: tuple[SpeechTokenizer, IdTable]
) -> tuple[list[int], list[list[int]]]:
    """Token ids of `text` as `voice` says it and the times of its words; empty when there is
    nothing to say.
    """
    speech = voice.speak(text, seed)
    if speech is None:
        return [], []
    network, table = tokenizer
    audio = speech.audio.astype(np.float32) / np.float32(32768)
    log_mel = whisper_log_mel(resample(audio, SAMPLE_RATE, 16000)).T
    ids: list[int] = table.apply(encode(network, log_mel.astype(np.float16))).tolist()
    times: list[list[int]] = word_times(text, speech.units).tolist()
    return ids, times
