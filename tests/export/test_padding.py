"""Padding to a ladder's size changes nothing: at, under and over every step, against torch."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks_golden import CHECKPOINT, relative_error
from support.networks_golden import stages as reference

from cosyvoice_cpu.decoding.solver import evaluation_times
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

RNG_SEED = 5
TOP = 300  # mel frames
TIMES = np.array(evaluation_times([reference().synthesis.solver]), np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> BundleStages:
    path = tmp_path_factory.mktemp("padding") / "bundle"
    export_checkpoint(CHECKPOINT, path, max_seconds=TOP / 50, front_end=False)
    return BundleStages.load(path)


def around(sizes: list[int]) -> list[int]:
    """Each size, one less and, unless it is the top, one more."""
    lengths = {length for size in sizes for length in (size - 1, size, size + 1)}
    return sorted(length for length in lengths if length <= sizes[-1])


@pytest.mark.parametrize("streaming", [False, True])
def test_velocity_around_every_step_of_the_ladder_is_torchs(
    bundle: BundleStages, streaming: bool
) -> None:
    rng = np.random.default_rng(RNG_SEED)
    sizes = bundle.manifest.components["flow_estimator"].shapes.sizes
    assert sizes == [100, 150, 200, 250, 300]
    for step, frames in enumerate([2, 51, *around(sizes)]):
        x, mu, cond = (rng.standard_normal((2, 80, frames)).astype(np.float32) for _ in range(3))
        speaker = rng.standard_normal((2, 80)).astype(np.float32)
        mask = np.ones((2, 1, frames), np.float32)
        t = np.full(2, TIMES[step % 10], np.float32)
        got = bundle.flow_velocity(x, mask, mu, t, speaker, cond, streaming=streaming)
        want = reference().flow_velocity(x, mask, mu, t, speaker, cond, streaming=streaming)
        assert relative_error(got, want) <= 1e-4, frames


@pytest.mark.parametrize("finalize", [True, False])
def test_waveform_around_every_step_of_the_ladder_is_torchs(
    bundle: BundleStages, finalize: bool
) -> None:
    rng = np.random.default_rng(RNG_SEED)
    sizes = bundle.manifest.components["vocoder"].shapes.sizes
    assert sizes == [50, 100, 150, 200, 250, 300]
    for frames in [9, *around(sizes)]:
        mel = (rng.standard_normal((80, frames)) * 2 - 6).astype(np.float32)
        source = reference().f0_to_source(reference().mel_to_f0(mel, finalize=finalize))
        got = bundle.mel_to_waveform(mel, finalize=finalize, source=source)
        want = reference().mel_to_waveform(mel, finalize=finalize, source=source)
        assert relative_error(got, want) <= 1e-4, frames


def test_rows_of_different_lengths_in_one_call_are_torchs(bundle: BundleStages) -> None:
    rng = np.random.default_rng(RNG_SEED)
    x, mu, cond = (rng.standard_normal((3, 80, 120)).astype(np.float32) for _ in range(3))
    speaker = rng.standard_normal((3, 80)).astype(np.float32)
    mask = np.ones((3, 1, 120), np.float32)
    mask[1, :, 70:] = 0
    t = TIMES[[4, 4, 7]]
    got = bundle.flow_velocity(x, mask, mu, t, speaker, cond)
    want = reference().flow_velocity(x, mask, mu, t, speaker, cond)
    frames = np.broadcast_to(mask > 0, got.shape)
    assert relative_error(got[frames], want[frames]) <= 1e-4


def test_a_time_between_the_solvers_steps_is_refused(bundle: BundleStages) -> None:
    x = np.zeros((1, 80, 20), np.float32)
    speaker, mask = np.zeros((1, 80), np.float32), np.ones((1, 1, 20), np.float32)
    with pytest.raises(
        UsageError, match=r"t = 0\.33 is none of the \d+ times of this bundle's solvers"
    ):
        bundle.flow_velocity(x, mask, x, np.array([0.33], np.float32), speaker, x)


def test_more_frames_than_the_ladder_holds_are_refused_with_the_remedy(
    bundle: BundleStages,
) -> None:
    x = np.zeros((2, 80, TOP + 1), np.float32)
    speaker, mask = np.zeros((2, 80), np.float32), np.ones((2, 1, TOP + 1), np.float32)
    with pytest.raises(SynthesisError, match="301 mel frames exceed") as caught:
        bundle.flow_velocity(x, mask, x, np.zeros(2, np.float32), speaker, x)
    assert "--max-seconds" in caught.value.hint
    with pytest.raises(SynthesisError, match="301 mel frames exceed"):
        bundle.mel_to_waveform(np.zeros((80, TOP + 1), np.float32))


def test_decoding_past_the_first_cache_buffer_equals_a_full_recompute(
    bundle: BundleStages,
) -> None:
    """The KV cache grows at 512 positions; nothing before may be lost."""
    speech = np.random.default_rng(RNG_SEED).integers(0, 500, 520).tolist()
    text = [5, 6, 7]
    whole = bundle.speech_lm_logits(text, speech)
    utterance = bundle.speech_lm_session()
    rows = [utterance.prefill(text, [], []), *(utterance.step(token) for token in speech)]
    assert relative_error(np.stack(rows), whole) <= 1e-4
