"""Random checkpoints behave as trained ones where it matters: ranges, lengths, signatures."""

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.checkpoint.sizes import TINY
from cosyvoice_cpu.checkpoint.synthetic_text import (
    bpe_vocabulary,
    qwen2_merges,
    write_text_tokenizer,
)
from cosyvoice_cpu.errors import OutputError, UsageError
from cosyvoice_cpu.frontend import TextTokenizer
from cosyvoice_cpu.generations import generation_named
from cosyvoice_cpu.networks.reference_stages import ReferenceStages
from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint

SPECIAL_TOKENS = generation_named("cosyvoice3").special_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_synthetic_checkpoint(tmp_path_factory.mktemp("made") / "tiny", size="tiny")


@pytest.fixture(scope="module")
def stages(folder):
    return ReferenceStages.load(folder)


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(folder, tmp_path):
    again = make_synthetic_checkpoint(tmp_path / "again", size="tiny")
    other = make_synthetic_checkpoint(tmp_path / "other", size="tiny", seed=1)
    first = open_checkpoint(folder).digests()
    assert open_checkpoint(again).digests() == first
    changed = {
        file for file, digest in open_checkpoint(other).digests().items() if digest != first[file]
    }
    assert changed == {"llm.pt", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v3.onnx"}


def test_the_files_hold_the_official_keys_that_are_skipped_later(folder):
    lm = torch.load(folder / "llm.pt", weights_only=True)
    embedding = lm["llm.model.model.embed_tokens.weight"]
    assert lm["llm.model.lm_head.weight"].data_ptr() == embedding.data_ptr()
    flow = torch.load(folder / "flow.pt", weights_only=True)
    assert flow["decoder.estimator.rotary_embed.inv_freq"].shape == (32,)
    assert all(tensor.dtype == torch.float32 for tensor in (lm | flow).values())


def test_other_sizes_can_be_made_without_the_front_end(tmp_path):
    config = replace(TINY, speech_lm=replace(TINY.speech_lm, num_layers=3, text_vocab_size=10))
    files = []
    made = make_synthetic_checkpoint(
        tmp_path / "new/model", size=config, front_end=False, notify=files.append
    )
    assert open_checkpoint(made, front_end=False).config == config
    assert files == ["llm.pt", "flow.pt", "hift.pt"]
    assert not (made / "campplus.onnx").exists()


def test_an_existing_folder_is_left_alone_and_a_failure_leaves_nothing(folder, tmp_path):
    with pytest.raises(UsageError, match="is not an empty folder"):
        make_synthetic_checkpoint(folder, size="tiny")
    with pytest.raises(UsageError, match="unknown size 'huge'"):
        make_synthetic_checkpoint(tmp_path / "x", size="huge")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        make_synthetic_checkpoint(tmp_path / "file/x", size="tiny")
    too_small = replace(TINY, speech_lm=replace(TINY.speech_lm, text_vocab_size=300))
    with pytest.raises(UsageError, match="a text table of 300 rows is too small"):
        make_synthetic_checkpoint(tmp_path / "x", size=too_small)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_stop_ids_are_never_drawn_so_the_limits_set_the_length(stages):
    speech = TINY.speech_lm.speech_token_size
    logits = stages.speech_lm_logits(list(range(50)), [5, 6, 7], prompt_speech_ids=[1, 2])
    assert logits[:, speech:].max() < logits[:, :speech].max() - 40
    assert 1.5 < logits[:, :speech].std() < 5
    for seed, length in ((0, 1), (1, 33), (2, 80)):
        tokens = stages.generate_speech_tokens([1, 2, 3], seed=seed, max_tokens=length)
        assert len(tokens) == length
        assert max(tokens) < speech
        assert len(set(tokens)) > length // 3


def test_mel_f0_and_waveform_are_in_the_range_of_speech(stages):
    random = np.random.default_rng(0)
    tokens = random.integers(0, TINY.speech_lm.speech_token_size, 40).tolist()
    prompt = {
        "prompt_tokens": tokens[:10],
        "prompt_mel": random.normal(-6, 2, (20, 80)).astype(np.float32),
        "embedding": random.normal(0, 1, 192).astype(np.float32),
    }
    mel = stages.tokens_to_mel(tokens, **prompt)
    assert mel.shape == (80, 80)
    assert -7 < mel.mean() < -4
    assert 1 < mel.std() < 3
    assert np.mean((mel > -11.6) & (mel < 2)) > 0.98
    f0 = stages.mel_to_f0(mel)
    assert np.mean((f0 > 80) & (f0 < 400)) > 0.9
    assert f0.std() > 5
    wave = stages.mel_to_waveform(mel)
    assert 0.01 < wave.std() < 0.4
    assert abs(wave.mean()) < 0.01
    assert np.mean(np.abs(wave) >= 0.989) < 0.01


def test_the_speaker_model_tells_voices_apart_with_the_official_signature(folder):
    session = onnxruntime.InferenceSession(folder / "campplus.onnx")
    assert [(i.name, i.type) for i in session.get_inputs()] == [("input", "tensor(float)")]
    random = np.random.default_rng(0)

    def embedding(voice, frames):
        fbank = random.normal(0, 1, (1, frames, 80)) * np.exp(voice)
        return session.run(None, {"input": fbank.astype(np.float32)})[0]

    one, other = random.normal(0, 0.7, 80), random.normal(0, 0.7, 80)
    short, long, stranger = embedding(one, 100), embedding(one, 400), embedding(other, 400)
    assert short.shape == (1, 192)
    assert np.linalg.norm(short - long) < 0.5 * np.linalg.norm(stranger - long)
    silence = session.run(None, {"input": np.zeros((1, 1, 80), np.float32)})[0]
    assert np.isfinite(silence).all()


def test_the_speech_tokenizer_yields_a_quarter_of_the_frames_with_the_official_signature(folder):
    session = onnxruntime.InferenceSession(folder / "speech_tokenizer_v3.onnx")
    assert [i.type for i in session.get_inputs()] == ["tensor(float)", "tensor(int32)"]
    random = np.random.default_rng(0)
    log_mel = random.normal(0.3, 0.6, (1, 128, 3000)).astype(np.float32)

    def ids(frames, length):
        feeds = {"feats": log_mel[:, :, :frames], "feats_length": np.array([length], np.int32)}
        return session.run(None, feeds)[0]

    for length in (1, 2, 3, 4, 5, 348):
        assert ids(length, length).shape == (1, math.ceil(math.ceil(length / 2) / 2))
    assert np.array_equal(ids(400, 348), ids(348, 348))
    spread = ids(3000, 3000)
    vocabulary = TINY.speech_lm.speech_token_size
    assert spread.dtype == np.int32
    assert spread.min() >= 0
    assert vocabulary * 0.9 < spread.max() < vocabulary
    assert len(np.unique(spread)) > 300


def test_the_text_tokenizer_fits_the_text_table(folder):
    tokenizer = TextTokenizer.load(folder / "CosyVoice-BlankEN")
    text = "You are a helpful assistant.<|endofprompt|>Ünïcode 世界 [breath][ǜ]"
    ids = tokenizer.encode(text)
    assert max(ids) < TINY.speech_lm.text_vocab_size
    words = len(json.loads((folder / "CosyVoice-BlankEN/vocab.json").read_text("utf-8")))
    assert words + SPECIAL_TOKENS.index("<|endofprompt|>") in ids
    assert words + len(SPECIAL_TOKENS) == TINY.speech_lm.text_vocab_size


def test_the_vocabulary_of_full_size_has_the_published_digests(tmp_path):
    write_text_tokenizer(tmp_path, 151_936, SPECIAL_TOKENS)
    digests = {
        file: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        for file in ("vocab.json", "merges.txt")
    }
    assert digests == {
        "vocab.json": "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910",
        "merges.txt": "8831e4f1a044471340f7c0a83d7bd71306a5b867e95fd870f74d0c5308a904d5",
    }
    added = json.loads((tmp_path / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    assert {key: token["content"] for key, token in added.items()} == {
        "151643": "<|endoftext|>",
        "151644": "<|im_start|>",
        "151645": "<|im_end|>",
    }


def test_every_merge_joins_two_tokens_of_lower_rank():
    merges = qwen2_merges()[1:]
    ranks = bpe_vocabulary(merges)
    assert len(ranks) == 256 + len(merges)  # no merge makes a token twice
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ")
        assert max(ranks[left], ranks[right]) < 256 + rank
