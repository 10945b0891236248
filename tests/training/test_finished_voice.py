"""A finished voice stands for the runs that made it."""

from __future__ import annotations

import shutil

import torch
from support.training_examples import TOKENS

from cosyvoice_cpu.networks.reference.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from training.discriminators import DISCRIMINATORS
from training.finished_voice import EMBEDDED, write_runs
from training.flow import Flow
from training.sizes import VOCODER
from training.token_ids import TokenCorpus
from training.trainer import load_averaged
from training.weight_norm import without_weight_norm


def test_its_networks_are_runs_and_its_tokenizer_encodes_the_corpus(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "corpus")
    write_runs(EMBEDDED, tmp_path)
    corpus = TokenCorpus(tmp_path / "corpus", tmp_path / "tokens", "train")
    assert [len(corpus.ids(n)) for n in range(3)] == list(TOKENS)
    vocoder = without_weight_norm(Vocoder(VOCODER))
    assert load_averaged(tmp_path / "vocoder_tuning", vocoder) == 0
    load_averaged(tmp_path / "flow", Flow())
    load_averaged(tmp_path / "f0", without_weight_norm(F0Predictor(VOCODER)).float())
    stored = torch.load(EMBEDDED / "hift.pt", weights_only=True)
    assert torch.equal(vocoder.get_parameter("conv_pre.bias").half(), stored["conv_pre.bias"])


def test_discriminators_beside_the_voice_go_with_it(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "corpus")
    voice = tmp_path / "voice" / "checkpoint"
    shutil.copytree(EMBEDDED, voice)
    write_runs(voice, tmp_path)
    assert not (tmp_path / DISCRIMINATORS).exists()
    (voice.parent / DISCRIMINATORS).write_bytes(b"learned")
    write_runs(voice, tmp_path)
    assert (tmp_path / DISCRIMINATORS).read_bytes() == b"learned"


def test_runs_that_exist_are_kept(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "corpus")
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "checkpoint.pt").write_bytes(b"mine")
    write_runs(EMBEDDED, tmp_path)
    assert (tmp_path / "flow" / "checkpoint.pt").read_bytes() == b"mine"
