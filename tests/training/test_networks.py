"""The demo voice's training: exact resumption, token ids, and a falling loss for every network."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from training import corpus as corpus_module
from training.corpus import Corpus
from training.flow import Flow, FlowTask, sample_mel
from training.flow_tuning import DRAWS, FlowTuningTask, draw_ids
from training.lm_rows import RowMaker
from training.mel_recogniser import MelRecogniser, MelRecogniserTask
from training.pairs import Pairs
from training.phonemes import SILENCE, token_labels
from training.sizes import SPEECH_IDS, speech_lm_config
from training.speaker_encoder import voice_vector
from training.speech_lm import SpeechLMTask, predict_tokens
from training.speech_tokenizer import (
    CODES,
    SpeechTokenizer,
    TokenizerTask,
    warp_frequency,
)
from training.spelling import Spelling, learn_merges, write_tokenizer
from training.token_ids import (
    SILENT_IDS,
    IdTable,
    TokenCorpus,
    encode_shards,
    phoneme_of_ids,
)
from training.trainer import Settings, load_averaged, train
from training.vocoder import F0Task, VocoderTask, periodicity
from training.vocoder_tuning import VocoderTuningTask, generate_mels

TOKENS = (60, 45, 30)  # of the three texts of every shard


def _write_shard(path, seed):
    """Harmonic tones with pauses: a corpus in the real format without the speech generator."""
    rng = np.random.default_rng(seed)
    arrays, index = {n: [] for n in ("audio", "mel", "log_mel", "f0", "phase", "units")}, []
    for tokens in TOKENS:
        frames = 2 * tokens
        f0 = np.where(np.arange(frames) % 40 < 30, rng.uniform(120, 220), 0.0)
        phase = np.cumsum(np.maximum(np.repeat(f0, 480), 40)) / 24000
        tone = sum(np.sin(2 * np.pi * h * phase) / h for h in (1, 2, 3))
        audio = 0.2 * tone * np.repeat(f0 > 0, 480) + 1e-3 * rng.standard_normal(frames * 480)
        units = np.where(np.arange(int(tokens * 1.6)) % 16 < 12, 83, 3)
        x = audio.astype(np.float32)
        arrays["audio"].append((x * 32767).astype(np.int16))
        arrays["mel"].append(corpus_module.mel_spectrogram(x).astype(np.float16))
        log_mel = corpus_module.whisper_log_mel(corpus_module.resample(x, 24000, 16000))
        arrays["log_mel"].append(log_mel.T.astype(np.float16))
        arrays["f0"].append(f0.astype(np.float32))
        arrays["phase"].append((phase[479::480] % 1).astype(np.float32))
        arrays["units"].append(units.astype(np.uint8))
        index.append(
            {
                "text": "A tone.",
                "speaker": "tone",
                "tokens": tokens,
                "units": len(units),
                "phonemes": [0],
            }
        )
    path.mkdir(parents=True)
    for name, parts in arrays.items():
        np.save(path / f"{name}.npy", np.concatenate(parts))
    (path / "index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("corpus")
    for seed, name in enumerate(("train-0000", "train-0001", "heldout-0000")):
        _write_shard(folder / name, seed)
    return folder


@pytest.fixture(scope="module")
def token_folder(folder, tmp_path_factory):
    tokens = tmp_path_factory.mktemp("tokens")
    torch.manual_seed(0)
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    table.save(tokens / "table.npz")
    encode_shards(SpeechTokenizer().eval(), table, folder, tokens)
    return tokens


def test_an_utterance_has_two_mel_frames_and_four_log_mel_frames_per_token(folder):
    corpus = Corpus(folder, "train")
    assert len(corpus) == 2 * len(TOKENS)
    for utterance in corpus:
        n = utterance.tokens
        assert utterance.audio.shape == (960 * n,)
        assert utterance.mel.shape == (2 * n, 80) and utterance.log_mel.shape == (4 * n, 128)
        assert utterance.f0.shape == utterance.phase.shape == (2 * n,)


def test_a_missing_split_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no train shard"):
        Corpus(tmp_path, "train")


def test_labels_follow_the_units_and_blanks_join_the_next_phoneme(folder):
    utterance = Corpus(folder, "heldout")[0]
    labels = token_labels(utterance)
    assert labels.shape == (utterance.tokens,)
    assert set(labels) - {SILENCE} and len(set(labels) - {SILENCE}) == 1


def _settings(steps):
    return Settings(
        steps=steps, peak_rate=1e-3, warmup=2, report_every=1, save_every=2, evaluate_every=100
    )


def test_a_run_that_was_interrupted_ends_with_the_same_weights(folder, tmp_path):
    def task():
        torch.manual_seed(0)
        return F0Task(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, frames=16)

    whole = train(task(), tmp_path / "whole", _settings(6))
    first = _settings(6)

    class Stopped(F0Task):
        def losses(self, rng, step):
            if step == 4:
                raise KeyboardInterrupt
            return super().losses(rng, step)

    torch.manual_seed(0)
    interrupted = Stopped(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, frames=16)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, tmp_path / "parts", first)
    resumed = train(task(), tmp_path / "parts", first)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/curve.jsonl").open()]
    assert steps == [1, 2, 3, 4, 5, 6, 6]


def test_the_rate_warms_up_and_falls_to_its_floor():
    settings = Settings(steps=1000, peak_rate=1.0, warmup=10, floor=0.05)
    assert settings.rate(0) == pytest.approx(0.1, rel=1e-3)
    assert settings.rate(500) == pytest.approx(0.525)
    assert settings.rate(1000) == settings.rate(5000) == pytest.approx(0.05)


def _falls(task, steps=12, rate=1e-3):
    optimizer = torch.optim.AdamW(task.network.parameters(), rate)
    values = []
    for _ in range(steps):
        torch.manual_seed(0)
        loss = task.losses(np.random.default_rng(0), 0)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    return values[-1] < values[0]


def test_the_speech_tokenizer_learns_one_batch(folder):
    torch.manual_seed(0)
    task = TokenizerTask(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, seconds=1)
    assert _falls(task)
    assert set(task.evaluate(task.network)) >= {"phonemes_right", "codes", "repeats"}


def test_the_vocoder_learns_one_batch(folder):
    torch.manual_seed(0)
    task = VocoderTask(Corpus(folder, "train"), Corpus(folder, "heldout"), steps=10)
    assert _falls(task, steps=6, rate=1e-4)


def test_the_flow_learns_one_batch_and_samples_a_mel(folder, token_folder):
    corpus, heldout = (TokenCorpus(folder, token_folder, s) for s in ("train", "heldout"))
    table = IdTable.load(token_folder / "table.npz")
    task = FlowTask(corpus, heldout, table, {"tone": voice_vector("tone")})
    assert _falls(task, steps=6)
    ids = torch.from_numpy(heldout.ids(0))
    embedding = torch.from_numpy(voice_vector("tone"))
    noise = np.random.default_rng(0).normal(0, 1, (80, 2 * len(ids))).astype(np.float32)
    mel = sample_mel(task.network, ids, embedding, noise)
    assert mel.shape == (80, 2 * len(ids)) and np.isfinite(mel).all()


def test_the_mel_recogniser_learns_one_batch(folder):
    task = MelRecogniserTask(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, tokens=40)
    assert _falls(task)
    assert 0 <= task.evaluate(task.network)["phonemes_right"] <= 1


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    text = tmp_path_factory.mktemp("text")
    write_tokenizer(text, learn_merges(["A tone.", "Another tone."], count=20))
    return Spelling(text)


@pytest.fixture(scope="module")
def lm(spelling):
    torch.manual_seed(0)
    network = SpeechLM(speech_lm_config(spelling.rows)).eval()
    with torch.no_grad():
        network.head.weight.normal_(0, 0.2)
    return network


def test_ids_drawn_for_a_corpus_lie_beside_its_own_and_are_kept(
    folder, token_folder, spelling, lm, tmp_path
):
    corpus = TokenCorpus(folder, token_folder, "train")
    draw_ids(lm, RowMaker(spelling), corpus, tmp_path / "drawn.npy")
    drawn = np.load(tmp_path / "drawn.npy")
    assert drawn.shape == (sum(corpus.tokens), DRAWS)
    assert drawn.min() >= 0 and drawn.max() < SPEECH_IDS
    # The likeliest ids of one text alone hold all that was drawn for it.
    row = RowMaker(spelling).joined(Pairs.of_corpus(corpus), [1])
    likely = predict_tokens(lm, [row])[0][:, :SPEECH_IDS].topk(30).indices.numpy()[:-1]
    start = corpus.tokens[0]
    for token, choices in enumerate(likely):
        assert set(drawn[start + token]) <= set(choices)
    (tmp_path / "drawn.npy").write_bytes(b"kept")
    draw_ids(lm, RowMaker(spelling), corpus, tmp_path / "drawn.npy")
    assert (tmp_path / "drawn.npy").read_bytes() == b"kept"


def test_the_flow_is_tuned_on_true_mixed_and_drawn_ids(folder, token_folder):
    corpus, heldout = (TokenCorpus(folder, token_folder, s) for s in ("train", "heldout"))
    table = IdTable.load(token_folder / "table.npz")
    draws = np.full((sum(corpus.tokens), DRAWS), 7, np.int16)
    task = FlowTuningTask(corpus, heldout, table, draws, MelRecogniser())
    rng = np.random.default_rng(0)
    shares = [np.mean(task._ids(2, rng) == 7) for _ in range(200)]
    assert 60 <= sum(share < 0.05 for share in shares) <= 100  # the tokenizer's own
    assert 40 <= sum(share == 1 for share in shares) <= 80
    assert {"velocity", "phoneme"} <= set(task.losses(rng, 0))
    assert _falls(task, steps=6)
    assert not any(p.requires_grad for p in task._recogniser.parameters())


def test_a_speaker_with_little_speech_is_drawn_by_the_fourth_root_of_it(tmp_path):
    _write_shard(tmp_path / "train-0000", 0)
    corpus = Corpus(tmp_path, "train")
    corpus.tokens = np.array([1600] * (len(corpus) - 1) + [100 * (len(corpus) - 1)])
    corpus.speakers = np.array(["main"] * (len(corpus) - 1) + ["further"])
    chances = corpus.chances()
    assert chances.sum() == pytest.approx(1)
    assert chances[-1] / chances[:-1].sum() == pytest.approx(1 / 2)


def test_the_flow_starts_at_the_mean_log_mel(folder, token_folder):
    corpus = TokenCorpus(folder, token_folder, "train")
    table = IdTable.load(token_folder / "table.npz")
    network: Flow = FlowTask(corpus, corpus, table, {"tone": voice_vector("tone")}).network
    mean = np.concatenate([u.mel for u in corpus.corpus]).astype(np.float32).mean(0)
    x = torch.randn(1, 80, 8)
    velocity = network.estimator(x, torch.ones(1, 1, 8), x, torch.zeros(1), x[..., 0], x)
    assert torch.allclose(velocity[0, :, 3], torch.from_numpy(mean), atol=1e-5)


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
        _write_shard(tmp_path / "corpus" / name, seed)
    torch.manual_seed(0)
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    encode_shards(SpeechTokenizer().eval(), table, tmp_path / "corpus", tmp_path)
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


def test_an_unwarped_frequency_axis_is_unchanged():
    log_mel = np.random.default_rng(0).random((7, 128)).astype(np.float32)
    assert np.array_equal(warp_frequency(log_mel, 1.0), log_mel)


def test_a_clean_tone_is_periodic_and_noise_is_not():
    f0 = np.full(50, 200.0, np.float32)
    tone = np.sin(2 * np.pi * 200 * np.arange(50 * 480) / 24000)
    noise = np.random.default_rng(0).standard_normal(50 * 480)
    assert periodicity(tone, f0) > 0.99 and abs(periodicity(noise, f0)) < 0.1


def test_loading_a_run_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_averaged(tmp_path, torch.nn.Linear(1, 1))


def test_the_speech_lm_learns_one_batch(tmp_path):
    write_tokenizer(tmp_path, learn_merges(["A tone.", "Another tone."], count=20))
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    rng = np.random.default_rng(0)
    ids = [rng.integers(100, 2000, n).astype(np.int16) for n in (20, 24, 30)]
    times = [np.array(t, np.int16).reshape(-1, 2) for t in ([[2, 5], [6, 20]], [], [[0, 30]])]
    pairs = Pairs(["A tone.", "Another tone.", "Tone?"], ids, times)
    task = SpeechLMTask(pairs, pairs, Spelling(tmp_path), table, np.arange(SPEECH_IDS) % 9)
    with torch.no_grad():
        first = task.evaluate(task.network)["cross_entropy"]
    assert first == pytest.approx(np.log(SPEECH_IDS + 200), rel=0.1)
    assert _falls(task, steps=4)


def test_pairs_are_read_back_in_order(tmp_path):
    shards = ([["One.", [1, 2], [[0, 2]]]], [["Two.", [3], []], ["Three.", [4, 5], [[0, 1]]]])
    for number, pairs in enumerate(shards):
        (tmp_path / f"pairs-{number:04d}.json").write_text(json.dumps(pairs))
    read = Pairs.load(tmp_path)
    assert list(read.texts) == ["One.", "Two.", "Three."]
    assert [list(ids) for ids in read.ids] == [[1, 2], [3], [4, 5]]
    assert [times.tolist() for times in read.times] == [[[0, 2]], [], [[0, 1]]]
    assert len(Pairs.load(tmp_path, max_shards=1) + read) == 4
    with pytest.raises(FileNotFoundError, match="holds no pairs"):
        Pairs.load(tmp_path / "nowhere")


def test_the_vocoder_is_tuned_on_the_flows_mels_beside_the_audio(folder, token_folder, tmp_path):
    torch.manual_seed(0)
    corpus = TokenCorpus(folder, token_folder, "train")
    generated = tmp_path / "generated"
    generate_mels(Flow().eval(), corpus, generated, count=3)
    task = VocoderTuningTask(corpus.corpus, Corpus(folder, "heldout"), 10, generated)
    rng = np.random.default_rng(0)
    examples = [task._example(rng) for _ in range(40)]
    assert all(len(mel) == 2 * utterance.tokens for utterance, mel in examples)
    made = [utterance.text for utterance, mel in examples if not np.array_equal(mel, utterance.mel)]
    assert 10 < len(made) < 30 and len(set(made)) <= 3
    assert _falls(task, steps=4, rate=1e-4)


def test_mels_that_were_made_are_kept(folder, token_folder, tmp_path):
    corpus = TokenCorpus(folder, token_folder, "train")
    (tmp_path / "generated").mkdir()
    generate_mels(Flow().eval(), corpus, tmp_path / "generated", count=1)
    assert not list((tmp_path / "generated").iterdir())
