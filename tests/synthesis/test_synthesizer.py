"""Whole requests on the torch networks of a tiny checkpoint of random weights."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from support.table_stages import GENERATION, Anna

from cosyvoice_cpu.decoding.solver import cosine_preset
from cosyvoice_cpu.errors import SpeakerError, TextError, UsageError
from cosyvoice_cpu.frontend.reading import Pause
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from cosyvoice_cpu.synthesis.audio import join
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer

LONG = "It was the best of times. " * 20


class Recording:
    """Stages that keep what the speech LM was asked, and limit its answers to the minimum."""

    def __init__(self, stages):
        self._stages = stages
        self.lm_calls = []

    def stream_speech_tokens(self, text_ids, **arguments):
        self.lm_calls.append({"text_ids": list(text_ids), **arguments})
        arguments["max_tokens"] = arguments["min_tokens"]  # random weights never stop
        return self._stages.stream_speech_tokens(text_ids, **arguments)

    def __getattr__(self, name):
        return getattr(self._stages, name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("torch")
    from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint

    folder = tmp_path_factory.mktemp("synthesizer") / "checkpoint"
    return make_synthetic_checkpoint(folder, size="tiny")


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return TextTokenizer.load(checkpoint / GENERATION.text_folder)


@pytest.fixture(scope="module")
def reference(checkpoint):
    from cosyvoice_cpu.stages import load_reference

    return load_reference(checkpoint)


@pytest.fixture
def stages(reference):
    return Recording(reference)


@pytest.fixture
def synthesizer(stages, reference, tokenizer):
    def find(name):
        if name in (None, "anna"):
            return Anna()
        raise SpeakerError(f"no speaker {name!r}", "speakers: anna")

    stages.synthesis = msgspec.structs.replace(
        reference.synthesis,
        solver_presets={"default": cosine_preset(reference.synthesis.solver, 2)},
    )
    return Synthesizer(stages, tokenizer.encode, find, GENERATION.special_tokens)


def test_a_text_becomes_finite_audio_of_the_right_length(synthesizer):
    audio = synthesizer.speak("Hello there.", "anna")
    assert audio.sample_rate == synthesizer.sample_rate == 24000
    assert audio.report is not None
    assert len(audio.samples) == audio.report.speech_tokens * 960
    assert np.isfinite(audio.samples).all()
    assert np.abs(audio.samples).max() <= 0.99
    assert audio.report.stages["frontend"] > 0
    assert audio.report.first_audio_s >= audio.report.seconds_computing * 0.99


def test_the_same_call_gives_the_same_audio_and_another_seed_gives_other_audio(synthesizer):
    first, again, other = (
        synthesizer.speak("Hello there.", seed=seed).samples for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_stream_joined_is_the_spoken_whole(synthesizer):
    pieces = list(synthesizer.pieces(LONG))
    whole = synthesizer.speak(LONG)
    assert len(pieces) > 1
    assert np.array_equal(join(pieces).samples, whole.samples)
    assert whole.report.sentences == len(pieces)


@pytest.mark.parametrize(
    ("options", "prompt_text", "uses_speech_prompt"),
    [
        ({}, "You are a helpful assistant.<|endofprompt|>", True),
        ({"mode": "cross-lingual"}, "You are a helpful assistant.<|endofprompt|>", False),
        ({"instruct": "Softly."}, "You are a helpful assistant. Softly.<|endofprompt|>", False),
    ],
)
def test_every_piece_of_a_long_text_gets_the_prefix_once(
    synthesizer, stages, tokenizer, options, prompt_text, uses_speech_prompt
):
    synthesizer.speak(LONG, **options)
    assert len(stages.lm_calls) > 1
    mark = tokenizer.end_of_prompt_id
    transcript = [21, 22] if uses_speech_prompt else []
    for call in stages.lm_calls:
        assert call["prompt_text_ids"] == tokenizer.encode(prompt_text) + transcript
        assert [*call["prompt_text_ids"], *call["text_ids"]].count(mark) == 1
        assert call["prompt_speech_ids"] == ((4, 5, 6) if uses_speech_prompt else ())


def test_a_prefix_typed_into_a_long_cross_lingual_text_stays_on_every_piece(
    synthesizer, stages, tokenizer
):
    own = "You are a helpful assistant. Slowly.<|endofprompt|>"
    synthesizer.speak(own + LONG, mode="cross-lingual")
    assert len(stages.lm_calls) > 1
    for call in stages.lm_calls:
        assert call["prompt_text_ids"] == tokenizer.encode(own)
        assert tokenizer.end_of_prompt_id not in call["text_ids"]


def test_the_speech_lm_reads_the_ids_that_the_original_would(synthesizer, stages, tokenizer):
    synthesizer.speak("Hello.", mode="cross-lingual", normalize=False)
    (call,) = stages.lm_calls
    together = tokenizer.encode("You are a helpful assistant.<|endofprompt|>Hello.")
    assert [*call["prompt_text_ids"], *call["text_ids"]] == together


def test_the_text_is_normalized_unless_told_otherwise_and_the_prefix_never(
    synthesizer, stages, tokenizer
):
    pytest.importorskip("wetext")
    synthesizer.speak("I have 5.")
    synthesizer.speak("I have 5.", normalize=False)
    words, plain = (call["text_ids"] for call in stages.lm_calls)
    assert words == tokenizer.encode("I have five.")
    assert plain == tokenizer.encode("I have 5.")
    assert stages.lm_calls[0]["prompt_text_ids"] == stages.lm_calls[1]["prompt_text_ids"]


def test_a_speaker_without_a_clip_speaks_from_its_embedding(synthesizer):
    voice = Anna(prompt_text_ids=(), prompt_tokens=(), prompt_mel=np.zeros((0, 80), np.float32))
    audio = synthesizer.speak("Hello there.", voice)
    assert len(audio.samples) == audio.report.speech_tokens * 960


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"the seed -1 is outside 0 to 2\^63 - 1"),
        ({"speed": 3.0}, r"the speed 3 is outside 0\.5 to 2"),
        ({"retries": -1}, r"-1 retries can't be made"),
        ({"mode": "choir"}, r"unknown mode 'choir'"),
    ],
)
def test_a_wrong_request_is_refused_by_the_call_not_by_the_first_piece(
    synthesizer, stages, options, message
):
    with pytest.raises(UsageError, match=message):
        synthesizer.stream("Hello.", **options)
    assert stages.lm_calls == []


def test_an_unknown_speaker_is_named(synthesizer):
    with pytest.raises(SpeakerError, match="no speaker 'bob'"):
        synthesizer.speak("Hello.", "bob")


@pytest.mark.parametrize(
    "mark", ["<endofprompt>", "<|EndOfPrompt|>", "< |end of prompt| >", "[end_of_prompt]"]
)
def test_a_misspelled_end_of_prompt_is_treated_as_the_true_one(
    synthesizer, stages, tokenizer, mark
):
    own = "You are a helpful assistant."
    with pytest.raises(TextError, match=r"holds '<\|endofprompt\|>'"):
        synthesizer.speak(f"{own}{mark}Hello there.")
    synthesizer.speak(f"{own}{mark}Hello there.", mode="cross-lingual")
    synthesizer.speak("Hello there.", instruct=f"Softly.{mark}")
    cross, instruct = stages.lm_calls
    assert cross["prompt_text_ids"] == tokenizer.encode(f"{own}<|endofprompt|>")
    assert instruct["prompt_text_ids"] == tokenizer.encode(f"{own} Softly.<|endofprompt|>")
    assert cross["text_ids"] == tokenizer.encode("Hello there.")


def test_both_apostrophes_give_the_same_ids_and_audio(synthesizer, stages):
    first, second = (synthesizer.speak(f"I don{mark}t know.") for mark in "'\u2019")
    assert np.array_equal(first.samples, second.samples)
    assert stages.lm_calls[0]["text_ids"] == stages.lm_calls[1]["text_ids"]


def test_language_lexicon_and_markup_reach_the_reader(synthesizer):
    def shown(text, **options):
        return list(synthesizer.show(text, **options))

    pytest.importorskip("wetext")
    assert shown("Der Bus kommt in 25 Minuten.", language="en")[0].endswith("five Minuten.")
    assert shown("**SQL**", lexicon={"SQL": "sequel"}) == ["sequel"]
    assert shown("**SQL**", markup=False, normalize=False) == ["**SQL**"]
    assert shown("One. [pause 500ms] Two.") == ["One.", Pause(0.5), "Two."]
    with pytest.raises(UsageError, match="is no language code"):
        shown("Hi", language="english")
    with pytest.raises(TextError, match="is no mark of this model"):
        shown("Hi", lexicon={"a": "[QQ]"})


def test_an_unknown_mark_is_a_warning_of_the_audio(synthesizer):
    audio = synthesizer.speak("That is funny. [laugh] Really.")
    assert audio.report is not None
    assert audio.report.warnings[0].startswith("[laugh] is no mark of this model")
    assert "[laughter]" in audio.report.warnings[0]
