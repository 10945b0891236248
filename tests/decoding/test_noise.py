"""The fixed noises against the original's arrays and, where torch is installed, against torch."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.places import DATA

from cosyvoice_cpu.decoding import noise
from cosyvoice_cpu.errors import SynthesisError

REFERENCE = np.load(DATA / "synthesis_reference.npz")
OTHERS = {"flow_noise_frames": 15000, "in_channels": 80, "harmonics": 9}
FULL_SIZE = noise.harmonic_noise_skip(
    flow_vocab_size=6561, mel_bins=80, spk_embed_dim=192, f0_channels=512, **OTHERS
)


def test_the_flow_noise_is_the_originals_within_float32_rounding():
    expected = REFERENCE["flow_noise_first8"]
    assert np.abs(noise.flow_noise(8, 80, 15000) - expected).max() < 2e-6


def test_the_flow_noise_of_more_frames_begins_with_that_of_fewer():
    assert np.array_equal(
        noise.flow_noise(400, 80, 15000)[:, :123], noise.flow_noise(123, 80, 15000)
    )


def test_the_flow_noise_ends_after_300_seconds():
    assert noise.flow_noise(15000, 80, 15000).shape == (80, 15000)
    with pytest.raises(SynthesisError) as caught:
        noise.flow_noise(15001, 80, 15000)
    assert caught.value.what == "15001 mel frames exceed the 15000 of the fixed flow noise"
    assert caught.value.hint == "shorten the text or the prompt"


def test_the_harmonic_noise_of_a_small_checkpoint_is_exact():
    skip = noise.harmonic_noise_skip(
        flow_vocab_size=500, mel_bins=80, spk_embed_dim=192, f0_channels=64, **OTHERS
    )
    expected = REFERENCE["harmonic_noise_first96"]
    assert np.array_equal(noise.harmonic_noise(96, skip, 9, 7_200_000), expected)


def test_the_harmonic_noise_of_the_full_size_checkpoint_is_exact():
    first = noise.harmonic_noise(1, FULL_SIZE, 9, 7_200_000)[0, :3]
    assert first.tolist() == np.float32([0.92282599, 0.47744751, 0.82705182]).tolist()
    thirty_seconds = np.ascontiguousarray(noise.harmonic_noise(720000, FULL_SIZE, 9, 7_200_000))
    assert hashlib.sha256(thirty_seconds.tobytes()).hexdigest().startswith("f8b54fcd496cdcd0")


def test_the_harmonic_noise_does_not_depend_on_how_it_was_asked_for():
    skip = 12345
    pieces = [
        noise.harmonic_noise(samples, skip, 9, 7_200_000).copy() for samples in (7, 200_000, 90_001)
    ]
    noise._harmonic_stream.cache_clear()
    whole = noise.harmonic_noise(200_000, skip, 9, 7_200_000)
    for piece in pieces:
        assert np.array_equal(piece, whole[: len(piece)])


def test_threads_that_grow_the_harmonic_noise_together_see_the_same_rows():
    skip, lengths = 777, [50_000 * (k % 7 + 1) for k in range(28)]
    with ThreadPoolExecutor(8) as pool:
        pieces = list(
            pool.map(lambda samples: noise.harmonic_noise(samples, skip, 9, 7_200_000), lengths)
        )
    whole = noise.harmonic_noise(max(lengths), skip, 9, 7_200_000)
    for samples, piece in zip(lengths, pieces, strict=True):
        assert piece.shape == (samples, 9)
        assert np.array_equal(piece, whole[:samples])


def test_the_noises_cannot_be_changed_by_a_caller():
    for array in (noise.flow_noise(4, 80, 15000), noise.harmonic_noise(4, 0, 9, 7_200_000)):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0


def test_the_harmonic_noise_ends_after_300_seconds():
    with pytest.raises(SynthesisError) as caught:
        noise.harmonic_noise(7_200_001, FULL_SIZE, 9, 7_200_000)
    assert "7200001 samples exceed the 7200000" in caught.value.what


@pytest.mark.parametrize(
    ("vocabulary", "mel_bins", "embedding", "channels"),
    [(500, 80, 192, 64), (37, 20, 33, 24), (41, 81, 16, 16)],
)
def test_the_words_skipped_are_those_that_torch_draws(vocabulary, mel_bins, embedding, channels):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.randn(1, mel_bins, 15000)
    torch.nn.Embedding(vocabulary, mel_bins)
    torch.nn.Linear(embedding, mel_bins)
    torch.nn.Conv1d(80, channels, 4)
    for _ in range(4):
        torch.nn.Conv1d(channels, channels, 3)
    torch.nn.Linear(channels, 1)
    torch.rand(1, 9)
    expected = torch.rand(1, 500, 9)[0].numpy()

    skip = noise.harmonic_noise_skip(
        flow_vocab_size=vocabulary,
        mel_bins=mel_bins,
        spk_embed_dim=embedding,
        f0_channels=channels,
        **OTHERS,
    )
    assert np.array_equal(noise.harmonic_noise(500, skip, 9, 7_200_000), expected)


def test_all_flow_noise_agrees_with_torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    expected = torch.randn(1, 80, 15000)[0].numpy()
    assert np.abs(noise.flow_noise(15000, 80, 15000) - expected).max() < 2e-6
