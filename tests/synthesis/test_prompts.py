"""Where the system prefix stands in each mode, and how often."""

from __future__ import annotations

import numpy as np
import pytest
from support.table_stages import Anna

from cosyvoice_cpu.errors import SpeakerError, TextError, UsageError
from cosyvoice_cpu.synthesis.prompts import build_prompt

PREFIX, MARK = "You are a helpful assistant.", "<|endofprompt|>"


CLIP_ONLY = Anna(prompt_text_ids=())
EMBEDDING_ONLY = Anna(
    prompt_text_ids=(), prompt_tokens=(), prompt_mel=np.zeros((0, 80), np.float32)
)


def build(text, voice=None, **options):
    voice = voice or Anna()
    return build_prompt(text, voice, system_prefix=PREFIX, end_of_prompt=MARK, **options)


def test_zero_shot_puts_prefix_and_transcript_before_the_text():
    prompt, text = build("Hello.", mode="zero-shot")
    assert (prompt.text, text) == (f"{PREFIX}{MARK}", "Hello.")
    assert prompt.transcript_ids == (21, 22)
    assert prompt.speech_ids == prompt.tokens == (4, 5, 6)
    assert prompt.mel.shape == (6, 80)


def test_cross_lingual_puts_the_prefix_alone_before_the_text_and_no_tokens_into_the_lm():
    prompt, text = build("Hallo.", mode="cross-lingual")
    assert (prompt.text, text) == (f"{PREFIX}{MARK}", "Hallo.")
    assert (prompt.transcript_ids, prompt.speech_ids, prompt.tokens) == ((), (), (4, 5, 6))


def test_instruct_puts_the_instruction_before_the_text_and_no_tokens_into_the_lm():
    prompt, text = build("你好。", instruct="请用广东话表达。")
    assert prompt.mode == "instruct"
    assert (prompt.text, text) == (f"{PREFIX} 请用广东话表达。{MARK}", "你好。")
    assert (prompt.transcript_ids, prompt.speech_ids, prompt.tokens) == ((), (), (4, 5, 6))


def test_a_speaker_with_an_embedding_alone_has_no_prompt_but_the_prefix():
    prompt, _ = build("Hello.", EMBEDDING_ONLY)
    assert (prompt.mode, prompt.text) == ("cross-lingual", f"{PREFIX}{MARK}")
    assert (prompt.speech_ids, prompt.tokens, prompt.mel.shape) == ((), (), (0, 80))


def test_the_mode_follows_from_what_is_there():
    assert build("Hello.")[0].mode == "zero-shot"
    assert build("Hello.", CLIP_ONLY)[0].mode == "cross-lingual"
    assert build("Hello.", CLIP_ONLY, instruct="Softly.")[0].mode == "instruct"


@pytest.mark.parametrize(
    "typed",
    [
        "请大声说。",
        "  请大声说。 ",
        f"请大声说。{MARK}",
        f"{PREFIX} 请大声说。{MARK}",
        f"{PREFIX}请大声说。",
    ],
)
def test_an_instruction_typed_with_prefix_or_mark_does_not_get_them_twice(typed):
    assert build("好。", instruct=typed)[0].text == f"{PREFIX} 请大声说。{MARK}"


def test_a_cross_lingual_text_with_its_own_prefix_keeps_that_one():
    prompt, text = build(f" {PREFIX} 请用四川话。{MARK}你好。", CLIP_ONLY)
    assert (prompt.text, text) == (f"{PREFIX} 请用四川话。{MARK}", "你好。")


def test_a_generation_without_a_prefix_gets_none():
    without = {"system_prefix": "", "end_of_prompt": MARK}
    assert build_prompt("Hi.", Anna(), **without)[0].text == ""
    assert build_prompt("Hi.", CLIP_ONLY, **without)[0].text == ""
    instructed, _ = build_prompt("Hi.", Anna(), instruct="Softly.", **without)
    assert instructed.text == f"Softly.{MARK}"


@pytest.mark.parametrize("options", [{"mode": "zero-shot"}, {"instruct": "Softly."}])
def test_the_mark_in_a_text_that_is_no_place_for_it_is_refused(options):
    with pytest.raises(TextError) as caught:
        build(f"{PREFIX}{MARK}Hello.", **options)
    assert caught.value.what == (
        f"the text holds '{MARK}', which ends the prompt and is added for you"
    )
    assert caught.value.hint == (
        "leave it away; a prefix of your own goes with --mode cross-lingual"
    )


def test_the_mark_twice_is_refused_wherever_it_stands():
    with pytest.raises(TextError, match=r"the text holds .* twice"):
        build(f"{MARK}Hello.{MARK}", mode="cross-lingual")
    with pytest.raises(TextError, match=r"the instruction holds .* before its end"):
        build("Hello.", instruct=f"Softly.{MARK}Please.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sing"}, "unknown mode 'sing'"),
        ({"mode": "instruct"}, "mode instruct needs an instruction"),
        ({"mode": "zero-shot", "instruct": "Softly."}, "has no place in mode zero-shot"),
        ({"instruct": f" {PREFIX} {MARK}"}, "the instruction is empty"),
    ],
)
def test_requests_that_contradict_themselves_are_wrong_usage(options, message):
    with pytest.raises(UsageError, match=message):
        build("Hello.", **options)


@pytest.mark.parametrize(
    ("voice", "lacks"), [(CLIP_ONLY, "transcript"), (EMBEDDING_ONLY, "prompt clip")]
)
def test_zero_shot_says_what_the_speaker_lacks(voice, lacks):
    with pytest.raises(SpeakerError) as caught:
        build("Hello.", voice, mode="zero-shot")
    assert caught.value.what == f"speaker 'anna' has no {lacks}, which zero-shot needs"
