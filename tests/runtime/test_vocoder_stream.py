"""The vocoder in pieces: the same samples as of the whole, whatever the pieces."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks_golden import stages as reference_stages

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.stage_api import VocoderStream

FRAMES = 180
TOLERANCE = 1e-4


@lru_cache(maxsize=1)
def demo() -> BundleStages:
    return BundleStages.load(DEMO_BUNDLE)


@lru_cache(maxsize=1)
def a_mel() -> np.ndarray:
    """Of a voice whose pitch and level move, so that a wrong phase or context shows."""
    rng = np.random.default_rng(0)
    slow = np.cumsum(rng.standard_normal((80, FRAMES)), axis=1) * 0.2
    return (slow - 6 + rng.standard_normal((80, FRAMES)) * 0.3).astype(np.float32)


@lru_cache(maxsize=4)
def whole(frames: int) -> np.ndarray:
    return demo().mel_to_waveform(a_mel()[:, :frames])


def joined(stream: VocoderStream, mel: np.ndarray, cuts: list[int]) -> np.ndarray:
    edges = [0, *sorted(cuts), mel.shape[1]]
    pieces = [stream.push(mel[:, a:b]) for a, b in pairwise(edges)]
    return np.concatenate([*pieces, stream.finish()])


def error(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, FRAMES), max_size=8))
def test_any_pieces_give_the_samples_of_the_whole(cuts: list[int]) -> None:
    got = joined(demo().vocoder_stream(), a_mel(), cuts)
    assert error(got, whole(FRAMES)) <= TOLERANCE


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 10, 35, 50])
def test_a_short_mel_frame_by_frame_is_the_whole(frames: int) -> None:
    got = joined(demo().vocoder_stream(), a_mel()[:, :frames], list(range(frames)))
    assert error(got, whole(frames)) <= TOLERANCE


def test_samples_are_given_as_soon_as_they_are_final() -> None:
    stream, ahead = demo().vocoder_stream(), demo().synthesis.vocoder_lookahead_frames
    given = 0
    for start in range(0, 60, 20):
        given += len(stream.push(a_mel()[:, start : start + 20]))
        assert given == (start + 20 - ahead) * 480
    assert given + len(stream.finish()) == 60 * 480


def test_a_context_of_one_frame_less_is_heard() -> None:
    stage = demo()._vocoder()
    kept = stage.past
    want = whole(FRAMES)
    cuts = list(range(0, FRAMES, 7))
    try:
        stage.past = kept - 4
        assert error(joined(demo().vocoder_stream(), a_mel(), cuts), want) > TOLERANCE / 100
        stage.past = kept
        assert error(joined(demo().vocoder_stream(), a_mel(), cuts), want) <= TOLERANCE
    finally:
        stage.past = kept


def test_what_a_stream_keeps_does_not_grow_with_the_speech() -> None:
    stream, sizes = demo().vocoder_stream(), []
    for _ in range(4):
        for start in range(0, 150, 25):
            stream.push(a_mel()[:, start : start + 25])
        sizes.append((stream._mel.shape, stream._source.shape))
    assert len(set(sizes)) == 1


def test_a_stream_without_frames_is_silent_and_an_ended_one_takes_no_more() -> None:
    stream = demo().vocoder_stream()
    assert len(stream.push(a_mel()[:, :0])) == len(stream.finish()) == len(stream.finish()) == 0
    with pytest.raises(ValueError, match="has ended"):
        stream.push(a_mel())


def test_a_piece_longer_than_the_ladder_is_taken_in_parts() -> None:
    stages = demo()
    top = stages._vocoder().max_frames
    assert top is not None
    mel = np.tile(a_mel(), (1, 1 + top // FRAMES))
    stream = stages.vocoder_stream()
    assert len(stream.push(mel)) + len(stream.finish()) == mel.shape[1] * 480


def test_the_reference_s_stream_is_its_whole_and_gives_as_much_at_a_time() -> None:
    stages, mel = reference_stages(), a_mel()[:, :60]
    got = joined(stages.vocoder_stream(), mel, [3, 20, 41])
    assert error(got, stages.mel_to_waveform(mel)) <= TOLERANCE
    streams = stages.vocoder_stream(), demo().vocoder_stream()
    for start in range(0, 60, 5):
        theirs, ours = (stream.push(mel[:, start : start + 5]) for stream in streams)
        assert len(theirs) == len(ours)
