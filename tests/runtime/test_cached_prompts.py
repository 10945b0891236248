"""Whole speech behind a prompt that was solved before: what it is, and when it is there."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from support.flow_voices import a_voice, speech
from support.networks_golden import CHECKPOINT, relative_error
from support.networks_golden import stages as reference

from cosyvoice_cpu.component_runner import repeatable_call
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.evaluation.distances import mel_error_db
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.networks.reference import flow_estimator
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.system.cache_folder import CACHE_VARIABLE
from cosyvoice_cpu.utterances import random_utterances

MEL = 1e-3
CHUNK = 50  # mel frames
CACHED = msgspec.structs.replace(reference().synthesis.solver, prompt="cached")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cached") / "bundle"
    export_checkpoint(CHECKPOINT, folder, max_seconds=12, front_end=False)
    return folder


@pytest.fixture
def stages(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return BundleStages.load(bundle)


def see_a_prompt_of(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the torch reference's first `frames` frames see themselves alone, chunk by chunk."""

    def mask(present: torch.Tensor, chunk: int | None) -> torch.Tensor:
        assert chunk is None
        index = torch.arange(present.shape[1])
        end = torch.where(index < frames, (index // CHUNK + 1) * CHUNK, present.shape[1])
        return (index[None] < end[:, None])[None, None]

    monkeypatch.setattr(flow_estimator, "attention_mask", mask)


# The last tokens of a prompt that is no whole number of chunks are solved with the target.
@pytest.mark.parametrize(("prompt", "kept"), [(0, 0), (20, 0), (28, 50), (43, 50), (61, 100)])
@pytest.mark.parametrize("length", [1, 20, 90])
def test_it_is_the_reference_whose_prompt_sees_itself_alone(
    stages, monkeypatch, prompt: int, kept: int, length: int
) -> None:
    voice, tokens = a_voice(prompt), speech(length)
    see_a_prompt_of(kept, monkeypatch)
    want = reference().tokens_to_mel(tokens, **voice)
    for _ in range(2):  # the second one finds the prompt solved
        got = stages.tokens_to_mel(tokens, **voice, preset=CACHED)
        assert relative_error(got, want) <= MEL


def test_tokens_that_are_only_looked_ahead_to_give_no_frames(stages) -> None:
    voice, tokens = a_voice(43), speech(40)
    whole = stages.tokens_to_mel(tokens, **voice, preset=CACHED)
    begun = stages.tokens_to_mel(tokens, **voice, preset=CACHED, finalize=False)
    ahead = stages.audio.frames_of(stages.synthesis.pre_lookahead_tokens)
    assert begun.shape[1] == whole.shape[1] - ahead
    with pytest.raises(SynthesisError, match="leave no mel frame behind the 86 of the prompt"):
        stages.tokens_to_mel([], **voice, preset=CACHED)


def test_a_stream_solves_alike_whatever_whole_speech_does_with_the_prompt(stages) -> None:
    voice, tokens = a_voice(50), speech(60)
    mels = []
    for preset in (stages.synthesis.solver, CACHED):
        stream = stages.flow_stream(**voice, preset=preset)
        mels.append(np.concatenate([stream.push(tokens), stream.finish()], axis=1))
        mels.append(stages.tokens_to_mel(tokens, **voice, preset=preset, streaming=True))
    assert np.array_equal(mels[0], mels[2])
    assert np.array_equal(mels[1], mels[3])


def test_a_prompt_that_was_kept_for_streams_serves_whole_speech(stages, bundle) -> None:
    voice = a_voice(50)
    assert not stages.has_prompt(*voice.values(), CACHED)
    want = stages.tokens_to_mel(speech(30), **voice, preset=CACHED)
    assert stages.has_prompt(*voice.values(), CACHED)  # in memory
    assert not BundleStages.load(bundle).has_prompt(*voice.values(), CACHED)
    stages.prefill_prompt(*voice.values())
    later = BundleStages.load(bundle)
    assert later.has_prompt(*voice.values(), CACHED)
    got = later.tokens_to_mel(speech(30), **voice, preset=CACHED)
    assert np.array_equal(got, want)


def test_more_frames_than_there_are_positions_for_are_refused(stages) -> None:
    voice, longest = a_voice(50), stages.max_frames
    tokens = speech(longest // 2 - 49)
    words = f"{longest + 2} mel frames exceed the bundle's longest graph of {longest}"
    with pytest.raises(SynthesisError, match=words):
        stages.tokens_to_mel(tokens, **voice, preset=CACHED)
    assert stages.tokens_to_mel(tokens[1:], **voice, preset=CACHED).shape[1] == longest - 100
    stream = stages.flow_stream(**voice)
    with pytest.raises(SynthesisError, match=words):
        stream.push(tokens)
        stream.finish()


def test_noise_can_t_be_chosen_for_half_of_the_frames(stages) -> None:
    voice, tokens = a_voice(25), speech(10)
    noise = np.zeros((80, 70), np.float32)
    with pytest.raises(UsageError, match="was solved from the model's own noise"):
        stages.tokens_to_mel(tokens, **voice, preset=CACHED, noise=noise)


def test_the_torch_reference_keeps_no_prompts() -> None:
    with pytest.raises(UsageError, match="only bundles keep what they computed of a prompt"):
        reference().tokens_to_mel(speech(5), **a_voice(25), preset=CACHED)


def test_the_embedded_voice_sounds_nearly_as_without_the_cache() -> None:
    stages = BundleStages.load(DEMO_BUNDLE)
    speaker = Speaker.load(min((DEMO_BUNDLE / "speakers").iterdir()))
    voice = {
        "prompt_tokens": list(speaker.prompt_tokens),
        "prompt_mel": speaker.prompt_mel,
        "embedding": speaker.embedding,
    }
    tokens = list(speaker.prompt_tokens)[:60]
    solver = stages.synthesis.solver
    whole, cached = (
        stages.tokens_to_mel(tokens, **voice, preset=msgspec.structs.replace(solver, prompt=name))
        for name in ("solved", "cached")
    )
    streamed = stages.tokens_to_mel(tokens, **voice, streaming=True)
    assert 0 < mel_error_db(whole, cached) < 0.5 * mel_error_db(whole, streamed)


def test_its_steps_can_be_timed(stages) -> None:
    presets = {**stages.synthesis.solver_presets, "cached": CACHED}
    stages.synthesis = msgspec.structs.replace(stages.synthesis, solver_presets=presets)
    utterance = random_utterances(stages.manifest, prompt=30, tokens=20)[0]
    call = repeatable_call(stages, "solver_step", utterance, 2, "cached")
    assert call().shape == (80, 40)  # of the target alone
    solved: list[int] = []
    solve = stages.tokens_to_mel
    stages.tokens_to_mel = lambda *args, preset, **rest: (
        solved.append(preset.steps) or solve(*args, preset=preset, **rest)
    )
    repeatable_call(stages, "solver_step", utterance, 23, "cached")()
    assert solved == [10, 10, 3]
    plain = repeatable_call(stages, "solver_step", utterance, 2, "default")
    assert plain().shape == (2, 80, 100)
