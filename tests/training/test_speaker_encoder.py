"""The speaker encoder's graph and the vectors that it learns."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch

from training.speaker_encoder import (
    SpeakerEncoder,
    save_speaker_encoder,
    voice_vector,
)


def _session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def test_the_speaker_encoder_graph_equals_its_network(tmp_path):
    torch.manual_seed(0)
    network = SpeakerEncoder(width=32).eval()
    path = tmp_path / "campplus.onnx"
    save_speaker_encoder(network, path)
    fbank = np.random.default_rng(0).normal(0, 1, (1, 300, 80)).astype(np.float32)
    embedding = _session(path).run(None, {"input": fbank})[0]
    expected = network(torch.from_numpy(fbank)).detach().numpy()
    assert embedding.shape == (1, 192)
    assert np.abs(embedding - expected).max() < 0.02 * np.abs(expected).max()  # int8 weights


def test_the_vectors_of_two_voices_are_nearly_orthogonal():
    names = ["kokoro-af_bella", "kokoro-bf_isabella", *(f"voice-{n}" for n in range(30))]
    vectors = np.stack([voice_vector(name) for name in names])
    cosines = vectors @ vectors.T - np.eye(len(names))
    assert np.abs(cosines).max() < 0.35 and np.array_equal(vectors[5], voice_vector("voice-3"))
