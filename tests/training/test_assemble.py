"""The runs' networks as one official checkpoint folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.networks.reference.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from cosyvoice_cpu.networks.reference_stages import ReferenceStages
from training.assemble import LARGEST_VOICE, assemble
from training.flow import Flow
from training.measure import load_voice
from training.sizes import SPEECH_IDS, VOCODER, speech_lm_config
from training.speaker_encoder import SpeakerEncoder, save_speaker_encoder
from training.speech_tokenizer import CODES, SpeechTokenizer
from training.spelling import MERGES, Spelling, write_tokenizer
from training.token_ids import IdTable
from training.weight_norm import without_weight_norm


def _merges():
    """As many merges as the voice has, of nonsense words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"{a} {b}" for a in letters for b in letters][:MERGES]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state folder whose runs have just begun."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    state = tmp_path_factory.mktemp("state")
    write_tokenizer(state / "text", _merges())
    networks = {
        "speech_lm": SpeechLM(speech_lm_config(Spelling(state / "text").rows)),
        "flow": Flow(),
        "vocoder": without_weight_norm(Vocoder(VOCODER)),
        "f0": without_weight_norm(F0Predictor(VOCODER)),
        "speech_tokenizer": SpeechTokenizer(),
    }
    for name, network in networks.items():
        (state / name).mkdir()
        checkpoint = {"step": 7, "average": network.state_dict()}
        torch.save(checkpoint, state / name / "checkpoint.pt")
    (state / "tokens").mkdir()
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    table.save(state / "tokens" / "table.npz")
    (state / "speaker_encoder").mkdir()
    save_speaker_encoder(SpeakerEncoder(), state / "speaker_encoder" / "campplus.onnx")
    return state


@pytest.fixture(scope="module")
def voice(state):
    steps = assemble(state, state / "voice")
    assert set(steps.values()) == {7}
    return state / "voice"


def test_the_voice_opens_as_an_official_checkpoint_and_fits_its_limit(voice):
    checkpoint = open_checkpoint(voice)
    assert checkpoint.config.speech_lm.speech_token_size == SPEECH_IDS
    assert sum(p.stat().st_size for p in voice.rglob("*") if p.is_file()) <= LARGEST_VOICE


def test_the_voice_says_what_its_networks_say(state, voice):
    own, _ = load_voice(state)
    opened = ReferenceStages.load(voice)
    text, speech = [5, 300, 17], [40, 2, 1999]
    a, b = (s.speech_lm_logits(text, speech) for s in (own, opened))
    assert np.abs(a - b).max() < 0.01 * np.abs(a).max()  # half precision
    prompt = np.zeros((0, 80), np.float32)
    embedding = np.ones(192, np.float32)
    c, d = (
        s.flow_condition(speech, prompt_tokens=[], prompt_mel=prompt, embedding=embedding)
        for s in (own, opened)
    )
    assert np.abs(c["mu"] - d["mu"]).max() < 0.01 * np.abs(c["mu"]).max()
    mel = np.random.default_rng(0).normal(-5, 2, (80, 12)).astype(np.float32)
    e, f = (s.mel_to_f0(mel) for s in (own, opened))
    assert np.abs(e - f).max() < 0.02 * np.abs(e).max()
    source = own.f0_to_source(e)
    g, h = (s.mel_to_waveform(mel, source=source) for s in (own, opened))
    assert g.shape == (12 * 480,) and np.abs(g - h).max() < 0.02 * np.abs(g).max()


def test_a_run_that_has_not_begun_is_missed(state, tmp_path):
    (tmp_path / "text").mkdir()
    write_tokenizer(tmp_path / "text", _merges())
    with pytest.raises(FileNotFoundError, match="speech_lm"):
        assemble(tmp_path, tmp_path / "voice")
    assert not (tmp_path / "voice").exists()
