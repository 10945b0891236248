"""The speech tokenizer's graph says what its torch network says, with the official signature."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from training.speech_tokenizer import CODES, SpeechTokenizer
from training.token_ids import SILENT_IDS, IdTable, encode
from training.tokenizer_graph import save_tokenizer


def _session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    torch.manual_seed(0)
    network = SpeechTokenizer(width=64, encoder_blocks=2, decoder_blocks=1).eval()
    in_silence = np.zeros(CODES, np.int64)
    in_silence[::2] = 1
    table = IdTable.from_counts(in_silence, np.ones(CODES, np.int64))
    path = tmp_path_factory.mktemp("graph") / "speech_tokenizer_v3.onnx"
    save_tokenizer(network, table, path)
    return network, table, _session(path)


def _ids(session, log_mel, length=None):
    feats = log_mel.astype(np.float32).T[None]
    length = np.array([length or feats.shape[2]], np.int32)
    return session.run(None, {"feats": feats, "feats_length": length})[0]


def test_the_tokenizer_graph_gives_nearly_all_ids_of_the_network(tokenizer):
    network, table, session = tokenizer
    log_mel = np.random.default_rng(0).normal(0, 1, (400, 128)).astype(np.float16)
    ids = _ids(session, log_mel)
    expected = table.apply(encode(network, log_mel))
    assert ids.shape == (1, 100) and ids.dtype == np.int32
    spoken = ~np.isin(expected, SILENT_IDS)
    # int8 weights move a few soft digits over a rounding border
    assert np.mean(ids[0][spoken] == expected[spoken]) > 0.8


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (4, 1), (5, 2), (7, 2), (348, 87)])
def test_the_tokenizer_graph_halves_the_rate_twice_rounding_up(tokenizer, frames, count):
    log_mel = np.zeros((frames, 128))
    assert _ids(tokenizer[2], log_mel).shape == (1, count)


def test_frames_beyond_the_length_do_not_count(tokenizer):
    log_mel = np.random.default_rng(1).normal(0, 1, (80, 128))
    whole = _ids(tokenizer[2], log_mel[:48])
    assert np.array_equal(_ids(tokenizer[2], log_mel, length=48), whole)


def test_a_silence_in_the_graph_goes_through_the_silent_ids(tokenizer):
    _, table, session = tokenizer
    ids = _ids(session, np.random.default_rng(2).normal(0, 1, (800, 128)))[0]
    silent = np.isin(ids, SILENT_IDS)
    assert silent.any() and not silent.all()
    for i in range(1, len(ids)):
        if silent[i] and silent[i - 1]:
            place = SILENT_IDS.index(ids[i - 1])
            assert ids[i] == SILENT_IDS[(place + 1) % len(SILENT_IDS)]
        elif silent[i]:
            assert ids[i] == SILENT_IDS[0]
    assert set(ids[~silent]) <= set(table.ids)
