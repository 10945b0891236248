"""What each mode puts before the target text, and what of the speaker it uses.

| mode          | before the target's ids              | speech LM prompt | flow prompt           |
|---------------|--------------------------------------|------------------|-----------------------|
| zero-shot     | prefix, mark, speaker's transcript   | speaker's tokens | speaker's tokens, mel |
| cross-lingual | prefix, mark                         | none             | speaker's tokens, mel |
| instruct      | prefix, blank, instruction, mark     | none             | speaker's tokens, mel |

A speaker with an embedding alone has neither prompt and speaks as in cross-lingual.

The original leaves the prefix and the mark to the user, who forgets them; here they are added, once
and to every piece of a long text. In cross-lingual mode the original has them in the target text;
here they go in as prompt text, which gives the speech LM the same ids in the same order, while the
length limits, which are ratios of the target's ids, count the words to be spoken alone.

Source: CosyVoice cosyvoice/cli/frontend.py (frontend_zero_shot, frontend_cross_lingual,
frontend_instruct2, frontend_sft) and example.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import SpeakerError, TextError, UsageError

Mode = Literal["zero-shot", "cross-lingual", "instruct"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Voice(Protocol):
    """What a speaker file holds. An embedding alone leaves tokens and mel empty."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    @property
    def prompt_text_ids(self) -> Iterable[int]:
        """Text ids of the clip's transcript, without any prefix; none if it was not given."""
        ...

    @property
    def prompt_tokens(self) -> Iterable[int]:
        """Speech tokens [N] of the clip."""
        ...

    @property
    def prompt_mel(self) -> Floats:
        """Log-mel [frames, mel bins] of the clip, frames = N * frames per token."""
        ...

    @property
    def embedding(self) -> Floats:
        """CAM++ embedding [192], not normalized."""
        ...


LONGEST_SYSTEM_PROMPT = 1000  # characters, each at most four ids of the speech LM's positions


@dataclass(frozen=True, eq=False)
class Prompt:
    """All that stands before the target; the same for every piece of a text."""

    mode: Mode
    text: str  # system prompt with its mark, "" for none
    transcript_ids: tuple[int, ...]  # go between the ids of `text` and the target's
    speech_ids: tuple[int, ...]  # speech LM prompt
    tokens: tuple[int, ...]  # flow prompt
    mel: Floats  # [frames, mel bins]
    embedding: Floats  # [192]


def build_prompt(
    text: str,
    voice: Voice,
    *,
    mode: str | None = None,
    instruct: str | None = None,
    system_prefix: str,
    end_of_prompt: str,
) -> tuple[Prompt, str]:
    """The prompt, and `text` without a prefix of its own.

    Without `mode`: instruct if there is an instruction, zero-shot if the speaker has a transcript,
    else cross-lingual. A prefix that the user typed is not added again: before a cross-lingual text
    it replaces ours, around an instruction it is ours.
    Raises: UsageError if mode and instruction contradict each other, SpeakerError if the speaker
    lacks what the mode needs, TextError if the end-of-prompt mark stands where it can't.
    """
    transcript_ids = tuple(int(text_id) for text_id in voice.prompt_text_ids)
    tokens = tuple(int(token) for token in voice.prompt_tokens)
    lacks = "prompt clip" if not tokens else "transcript" if not transcript_ids else None
    chosen = _choose_mode(voice.name, lacks, mode, instruct)
    system = f"{system_prefix}{end_of_prompt}" if system_prefix else ""
    if chosen == "cross-lingual":
        own, text = _split_at_mark(text, end_of_prompt)
        system = own or system
    else:
        _refuse_mark(text, end_of_prompt)
    if chosen == "instruct":
        system = _instruction(instruct or "", system_prefix, end_of_prompt)
    if len(system) > LONGEST_SYSTEM_PROMPT:
        raise TextError(
            f"the instruction before the text has {len(system)} characters; "
            f"{LONGEST_SYSTEM_PROMPT} are possible",
            "say in a sentence or two how to speak",
        )
    clones = chosen == "zero-shot"
    prompt = Prompt(
        mode=chosen,
        text=system,
        transcript_ids=transcript_ids if clones else (),
        speech_ids=tokens if clones else (),
        tokens=tokens,
        mel=voice.prompt_mel,
        embedding=voice.embedding,
    )
    return prompt, text


def _choose_mode(name: str, lacks: str | None, mode: str | None, instruct: str | None) -> Mode:
    """The mode asked for, or the one that fits; `lacks` is what zero-shot needs and is missing."""
    known = check_mode(mode, instruct)
    if known is None:
        if instruct is not None:
            return "instruct"
        return "cross-lingual" if lacks else "zero-shot"
    if known == "zero-shot" and lacks:
        raise SpeakerError(
            f"speaker {name!r} has no {lacks}, which zero-shot needs",
            "cache it again with --audio and --transcript, or use --mode cross-lingual",
        )
    return known


def check_mode(mode: str | None, instruct: str | None) -> Mode | None:
    """`mode`, or None. Raises: UsageError if it is unknown or contradicts the instruction."""
    if mode is None:
        return None
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}", f"modes: {', '.join(MODES)}")
    if mode == "instruct" and instruct is None:
        raise UsageError("mode instruct needs an instruction", "give one, or choose another mode")
    if mode != "instruct" and instruct is not None:
        raise UsageError(f"an instruction has no place in mode {mode}", "leave one of the two away")
    return mode


def _instruction(instruct: str, system_prefix: str, end_of_prompt: str) -> str:
    """The prompt text of an instruction, typed with or without prefix and mark."""
    wish = instruct.strip().removesuffix(end_of_prompt).removeprefix(system_prefix).strip()
    if not wish:
        raise UsageError("the instruction is empty", "say how to speak, or choose another mode")
    if end_of_prompt in wish:
        raise TextError(
            f"the instruction holds {end_of_prompt!r} before its end", "leave the mark away"
        )
    return f"{system_prefix} {wish}{end_of_prompt}" if system_prefix else f"{wish}{end_of_prompt}"


def _split_at_mark(text: str, mark: str) -> tuple[str, str]:
    """(all up to and with the mark, the rest); "" and `text` without a mark."""
    before, found, after = text.partition(mark)
    if not found:
        return "", text
    if mark in after:
        raise TextError(f"the text holds {mark!r} twice", "leave one of them away")
    return before.strip() + mark, after


def _refuse_mark(text: str, mark: str) -> None:
    if mark in text:
        raise TextError(
            f"the text holds {mark!r}, which ends the prompt and is added for you",
            "leave it away; a prefix of your own goes with --mode cross-lingual",
        )
