"""Token ids: silence, lengths, further voices, phonemes."""

from __future__ import annotations

import numpy as np
import torch
from support.training_examples import TOKENS, write_shard

from training.assemble import voice_config
from training.phonemes import token_labels
from training.sizes import SPEECH_IDS
from training.speech_tokenizer import (
    CODES,
    SpeechTokenizer,
)
from training.token_ids import (
    SILENT_IDS,
    IdTable,
    TokenCorpus,
    encode_shards,
    encoder_of,
    phoneme_of_ids,
)


def test_silence_gets_the_silent_ids_in_turn_and_speech_gets_none_of_them():
    in_all = np.ones(CODES, np.int64)
    in_silence = np.zeros(CODES, np.int64)
    in_silence[[5, 9]] = 1
    table = IdTable.from_counts(in_silence, in_all)
    codes = np.array([7, 5, 9, 5, 8, *[9] * 13])
    ids = table.apply(codes)
    assert list(ids[1:4]) == list(SILENT_IDS[:3]) and list(ids[5:16]) == list(SILENT_IDS)
    assert not set(table.ids) & set(SILENT_IDS) and table.ids.max() < SPEECH_IDS
    assert list(ids[16:]) == list(SILENT_IDS[:2])  # no id twice within 11
    back = table.codes_of_ids()
    assert back[ids[0]] == 7 and back[ids[4]] == 8 and back[SILENT_IDS[0]] == -1


def test_token_ids_have_the_length_of_their_text(folder, token_folder):
    corpus = TokenCorpus(folder, token_folder, "train")
    assert [len(corpus.ids(i)) for i in range(len(corpus))] == [*TOKENS, *TOKENS]


def test_a_further_voice_has_every_other_text_in_the_main_voices_ids(tmp_path):
    for seed, name in enumerate(("train-0000", "train-9000")):
        write_shard(tmp_path / "corpus" / name, seed)
    torch.manual_seed(0)
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    encode_shards(encoder_of(SpeechTokenizer().eval(), table), tmp_path / "corpus", tmp_path)
    main, further = (np.load(tmp_path / f"train-{n}.npy") for n in ("0000", "9000"))
    ends = np.cumsum(TOKENS)[:-1]
    parts = zip(np.split(main, ends), np.split(further, ends), strict=True)
    assert [np.array_equal(a, b) for a, b in parts] == [True, False, True]


def test_the_phoneme_of_an_id_is_the_one_it_mostly_goes_with(folder, token_folder):
    corpus = TokenCorpus(folder, token_folder, "train")
    phonemes = phoneme_of_ids(corpus, texts=100)
    assert phonemes.shape == (SPEECH_IDS,) and not phonemes[list(SILENT_IDS)].any()
    labels = np.concatenate([token_labels(utterance) for utterance in corpus.corpus])
    ids = np.concatenate([corpus.ids(n) for n in range(len(corpus))])
    spoken = np.setdiff1d(ids, SILENT_IDS)
    assert all(phonemes[i] == np.bincount(labels[ids == i]).argmax() for i in spoken)


def test_every_silent_id_of_the_generation_is_in_the_vocabulary():
    config = voice_config(text_rows=1177)
    assert max(SILENT_IDS) < config.speech_lm.speech_token_size == config.flow.vocab_size
