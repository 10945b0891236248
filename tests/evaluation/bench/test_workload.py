"""Requests: lengths by the model's own rates, and the same inputs everywhere."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from cosyvoice_cpu.bundle.manifest import Audio
from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings
from cosyvoice_cpu.checkpoint.sizes import FULL
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

AUDIO, SYNTHESIS = audio_settings(FULL), synthesis_settings(COSYVOICE3, FULL)
# CosyVoice-300M: 50 tokens a second, 22.05 kHz, hop 256.
FIRST_GENERATION = Audio(sample_rate=22050, token_rate=50.0, mel_frames_per_token=22050 / 256 / 50)


@pytest.mark.parametrize(
    "lengths", [{"seconds": 0.5}, {"prompt_seconds": 0}, {"seconds": 299}, {"decode_tokens": 0}]
)
def test_a_request_that_no_model_takes_is_refused(lengths):
    with pytest.raises(UsageError):
        Workload(**lengths)


def test_a_request_has_as_many_tokens_frames_and_samples_as_its_model_makes():
    request = Request(Workload(10.0, 5.0), AUDIO, SYNTHESIS)
    assert (request.tokens, request.prompt_tokens) == (250, 125)
    assert (request.target_frames, request.frames) == (500, 750)
    assert request.samples == 240_000
    assert request.utterance.prompt_mel.shape == (250, 80)


def test_rates_that_are_no_whole_numbers_give_whole_frames_and_samples():
    request = Request(Workload(10.0, 5.0), FIRST_GENERATION, SYNTHESIS)
    assert (request.tokens, request.prompt_tokens) == (500, 250)
    assert request.frames == 1291  # 15 s of 86.13 frames
    assert request.target_frames == 861
    assert request.samples == 861 * 256


def test_a_bundle_and_its_checkpoint_get_the_same_request(tiny_checkpoint, tiny_bundle):
    torch_row = EngineSpec("a", "reference", str(tiny_checkpoint))
    bundle_row = EngineSpec("b", "bundle", str(tiny_bundle))
    assert torch_row.request(Workload()) == bundle_row.request(Workload())


def test_equal_requests_have_equal_inputs_in_any_process():
    one, other = (Request(Workload(seconds=2.0), AUDIO, SYNTHESIS).utterance for _ in range(2))
    assert one.tokens == other.tokens
    np.testing.assert_array_equal(one.prompt_mel, other.prompt_mel)


def test_a_small_vocabulary_has_all_ids_of_the_request():
    few = msgspec.structs.replace(SYNTHESIS, speech_vocabulary=10)
    utterance = Request(Workload(), AUDIO, few).utterance
    assert max(*utterance.tokens, *utterance.prompt_tokens) < 10
