"""A finished voice in the place of its runs: later stages go on from it without hours of training.

The runs of a voice are not kept with it, and a checkpoint folder holds what a later stage needs of
them: weights, and a tokenizer that gives the ids. Such runs have no optimizer, so they can be the
beginning of another stage and can't be trained further themselves.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.networks.reference.weights import load_networks
from training.discriminators import DISCRIMINATORS
from training.flow import Flow
from training.token_ids import encode_shards
from training.weight_norm import without_weight_norm

EMBEDDED = Path(__file__).parent.parent / "demo_voice" / "checkpoint"
"""The voice that the embedded demo is made from."""


def write_runs(voice: Path, state: Path) -> None:
    """Write the checkpoint folder `voice` as the runs `flow`, `vocoder_tuning` and `f0`, and the
    ids of the corpus as `tokens`; runs that exist are kept. The discriminators beside the folder,
    if there are any, go with them.

    Raises: CheckpointError, FileNotFoundError without a corpus.
    """
    checkpoint = open_checkpoint(voice)
    flow = Flow()
    halves = load_networks(checkpoint, "flow")
    flow.encoder, flow.estimator = halves["flow_encoder"], halves["flow_estimator"]
    vocoder = without_weight_norm(load_networks(checkpoint, "vocoder")["vocoder"])
    runs = {"flow": flow, "vocoder_tuning": vocoder, "f0": vocoder.f0_predictor}
    for name, network in runs.items():
        _write_run(network, state / name)
    taught = voice.parent / DISCRIMINATORS
    if taught.exists():
        shutil.copyfile(taught, state / DISCRIMINATORS)
    encode = TokenizerGraph(checkpoint.path(checkpoint.generation.speech_tokenizer_file))
    (state / "tokens").mkdir(exist_ok=True)
    encode_shards(encode, state / "corpus", state / "tokens")


class TokenizerGraph:
    """A checkpoint's speech tokenizer, one thread: log-mel [4 N, 128] to token ids [N]."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(str(path), options)

    def __call__(self, log_mel: NDArray[np.float16]) -> NDArray[np.int64]:
        feats = log_mel.astype(np.float32).T[None]
        length = np.array([len(log_mel)], np.int32)
        ids = self._session.run(None, {"feats": feats, "feats_length": length})[0]
        return np.asarray(ids, np.int64).reshape(-1)


def _write_run(network: nn.Module, folder: Path) -> None:
    path = folder / "checkpoint.pt"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".pt.part")
    torch.save({"step": 0, "average": network.state_dict()}, part)
    part.rename(path)
