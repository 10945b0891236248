"""A text as the pieces that it is spoken in, read while it is spoken.

The pieces are chosen to fit behind the prompt into the model's longest input. The first piece of a
long text is short, so that a book's first sentence is heard as soon as a lone one. The pauses in a
text stand between pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosyvoice_cpu.decoding.token_loop import token_limits
from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.frontend import writing_systems
from cosyvoice_cpu.frontend.reading import Note, Pause
from cosyvoice_cpu.frontend.sentences import LONGEST, merge_sentences, split_sentences
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.postprocessing import EDGE_FRAMES
from cosyvoice_cpu.synthesis.request import Request

Encode = Callable[[str], list[int]]

EXPECTED_SECONDS_PER_UNIT = 0.24  # for a text id, or a Han character
_READ_AHEAD = 2  # pieces
_DONE_BEFORE = {"speech_lm": 0.0, "flow": 0.35, "vocoder": 0.9}  # share of a piece's work


@dataclass(frozen=True)
class Piece:
    """Some sentences of the text, and their ids."""

    text: str
    ids: list[int]

    @property
    def units(self) -> int:
        """Length as `split_sentences` counts it."""
        return len(self.text) if writing_systems.counts_in_characters(self.text) else len(self.ids)


class TextPieces:
    """The pieces and pauses of one request, in order; used by one thread at a time."""

    def __init__(self, stages: Stages, encode: Encode, request: Request) -> None:
        """Raises: SynthesisError if the prompt leaves no room."""
        self.room = _room(stages, request)  # speech tokens that fit behind the prompt
        self._rates, self._synthesis = stages.audio, stages.synthesis
        self._encode, self._request = encode, request
        self._waiting: deque[Piece | Pause] = deque()  # what is known of the text to come
        self._warnings: list[str] = []
        self._read_characters = 0
        self._done = 0.0

    def prepare(self) -> None:
        """Read up to the first piece. Raises: TextError if there is nothing to say."""
        text, prompt = self._request.text, self._request.prompt
        system_ids = self._encode(prompt.text) if prompt.text else []
        self.prompt_ids = [*system_ids, *prompt.transcript_ids]
        longest = int(self.room / self._rates.token_rate / EXPECTED_SECONDS_PER_UNIT)
        self._source = self._pieces(min(LONGEST, max(1, longest)))
        first = next((item for item in self._from_source() if isinstance(item, Piece)), None)
        if not text.strip():
            raise TextError("the text is empty", "give at least one word")
        if first is None:
            raise TextError(
                f"there is nothing to speak in {quote(text)}", "give at least one letter or digit"
            )

    def next(self) -> Piece | Pause | None:
        """What comes next; reads two pieces ahead, so that the last one is known as such."""
        while len(self._waiting) < _READ_AHEAD:
            if next(self._from_source(), None) is None:
                break
        return self._waiting.popleft() if self._waiting else None

    def put_back(self, parts: list[Piece]) -> None:
        """Let `parts` come next, in the place of a piece that was too long."""
        self._waiting.extendleft(reversed(parts))

    @property
    def ended(self) -> bool:
        """Whether nothing follows what `next` gave last."""
        return not self._waiting

    def take_warnings(self) -> list[str]:
        """What was noticed of the text since this was asked last."""
        taken, self._warnings = self._warnings, []
        return taken

    def parts(self, piece: Piece) -> list[Piece]:
        """Shorter pieces of `piece`, if it may outgrow the room and can be cut; else none."""
        _, most = token_limits(self._synthesis, len(piece.ids))
        if most <= self.room:
            return []
        longest = piece.units * 4 // 5  # sentences are gathered to two thirds of it: about a half
        parts = split_sentences(piece.text, self._count, longest=max(1, longest))
        return [Piece(part, self._encode(part)) for part in parts] if len(parts) > 1 else []

    def tell(self, stage: str, piece: Piece, spoken_seconds: float) -> None:
        """Tell the request's progress that `stage` of `piece` begins."""
        if self._request.progress is None:
            return
        known = [piece, *(item for item in self._waiting if isinstance(item, Piece))]
        ahead = sum(item.units for item in known)
        unread = max(0, len(self._request.text) - self._read_characters)
        left = ahead * (1 + unread / max(1, sum(len(item.text) for item in known)))
        seconds = left * EXPECTED_SECONDS_PER_UNIT / self._request.speed
        share = _DONE_BEFORE[stage] * piece.units * EXPECTED_SECONDS_PER_UNIT / self._request.speed
        done = (spoken_seconds + share) / (spoken_seconds + seconds)
        self._done = max(self._done, min(1.0, done))  # the estimates may turn out too low
        self._request.progress(stage, self._done, spoken_seconds + seconds)

    def _from_source(self) -> Iterator[Piece | Pause]:
        """Puts the next pieces in line, one a step."""
        for item in self._source:
            if isinstance(item, Piece) and not writing_systems.has_speech(item.text):
                self._warnings.append(f"not spoken, no letter or digit: {quote(item.text)}")
                continue
            self._waiting.append(item)
            yield item

    def _pieces(self, longest: int) -> Iterator[Piece | Pause]:
        """Pieces of what lies between two pauses, and the pauses."""
        items = self._request.read(self._request.text)
        pauses: list[Pause] = []

        def sentences() -> Iterator[str]:
            for item in items:
                if isinstance(item, Pause):
                    pauses.append(item)
                    return
                if isinstance(item, Note):
                    self._warnings.append(item.text)
                else:
                    self._read_characters += len(item.text)
                    yield item.text

        soon = True  # the first piece, until there is one
        while True:
            for part in merge_sentences(sentences(), self._count, longest=longest, soon=soon):
                yield Piece(part, self._encode(part))
                soon = False
            if not pauses:
                return
            yield pauses.pop()

    def _count(self, text: str) -> int:
        return len(self._encode(text))


def _room(stages: Stages, request: Request) -> int:
    """Speech tokens that fit behind the prompt; the vocoder sees the mel at its new speed."""
    audio, most = stages.audio, stages.max_frames
    prompt_frames = len(request.prompt.mel)
    frames = min(most - prompt_frames, int((most - 2 * EDGE_FRAMES) * request.speed))
    room = audio.tokens_within(frames)
    if room < audio.token_rate:
        prompt_s, most_s = (float(count / audio.frame_rate) for count in (prompt_frames, most))
        raise SynthesisError(
            f"the speaker's clip of {prompt_s:.1f} s leaves less than a"
            f" second of the {most_s:.1f} s that this bundle takes",
            "cache the speaker with a shorter clip, or export with a larger --max-seconds",
        )
    return room


def quote(text: str) -> str:
    """The beginning of `text` on one line, for messages."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
