"""A corpus of harmonic tones and its token ids, for every test of the recipe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.training_examples import write_shard

from training.speech_tokenizer import (
    CODES,
    SpeechTokenizer,
)
from training.token_ids import (
    IdTable,
    encode_shards,
    encoder_of,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("corpus")
    for seed, name in enumerate(("train-0000", "train-0001", "heldout-0000")):
        write_shard(folder / name, seed)
    return folder


@pytest.fixture(scope="session")
def token_folder(folder, tmp_path_factory):
    tokens = tmp_path_factory.mktemp("tokens")
    torch.manual_seed(0)
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    table.save(tokens / "table.npz")
    encode_shards(encoder_of(SpeechTokenizer().eval(), table), folder, tokens)
    return tokens
