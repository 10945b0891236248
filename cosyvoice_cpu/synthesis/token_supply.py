"""The speech tokens of a streamed text: when they are drawn, judged and handed on.

What was heard can't be taken back. So the first piece's tokens go on as they are drawn, but once
the first chunk is on its way two seconds of them are held back: a loop or an endless silence shows
within that time, and ends the piece before it is heard. A piece that ends sooner is judged before
anything of it goes on. Later pieces are drawn whole, judged and drawn again as in
`Pipeline.speak`, while the pieces before them are spoken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import islice

from cosyvoice_cpu.decoding.length_guard import attempt_seed, find_running_trouble, find_trouble
from cosyvoice_cpu.decoding.token_loop import token_limits
from cosyvoice_cpu.frontend.reading import Pause
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.pieces import Piece, TextPieces
from cosyvoice_cpu.synthesis.report import StageClock
from cosyvoice_cpu.synthesis.request import Request
from cosyvoice_cpu.synthesis.retries import Speech, draw_speech, make_speech, nothing_spoken

HELD_SECONDS = 2.0  # of speech tokens, once the first chunk is on its way
_GROUP = 5  # tokens that go on together: judging costs a millisecond


@dataclass(frozen=True)
class PieceEnd:
    """Behind the last tokens, mel or samples of a piece; a pause is a piece without any."""

    text: str = ""
    tokens: int = 0
    sentences: int = 0
    retries: int = 0
    warnings: tuple[str, ...] = ()
    pause: float = 0.0  # seconds
    ends_text: bool = False


Tokens = list[int] | PieceEnd


class TokenSupply:
    """The speech LM of one streamed request."""

    def __init__(
        self,
        stages: Stages,
        pieces: TextPieces,
        request: Request,
        clock: StageClock,
        *,
        spoken_seconds: Callable[[], float],
        cancelled: Callable[[], bool],
    ) -> None:
        """`spoken_seconds` of audio were given so far, for the request's progress."""
        self._stages, self._pieces, self._request = stages, pieces, request
        self._audio, self._synthesis = stages.audio, stages.synthesis
        self._clock, self._spoken_seconds, self._cancelled = clock, spoken_seconds, cancelled

    def tokens(self) -> Generator[Tokens, None, None]:
        """Groups of tokens, and the end of each piece or pause.

        Raises: Cancelled once `cancelled` says so, SynthesisError for a piece without speech.
        """
        number = 0
        while (item := self._next()) is not None:
            if isinstance(item, Pause):
                yield PieceEnd(pause=item.seconds, ends_text=self._pieces.ended)
                continue
            self._pieces.tell("speech_lm", item, self._spoken_seconds())
            if number == 0:
                speech = yield from self._as_drawn(item)
            else:
                with self._clock.stage("frontend"):
                    parts = self._pieces.parts(item)
                speech = self._whole(item, number, can_be_cut=bool(parts))
                if parts and len(speech.tokens) >= self._pieces.room:
                    self._pieces.put_back(parts)
                    continue
                yield speech.tokens
            yield self._end_of(item, speech)
            number += 1

    def _as_drawn(self, piece: Piece) -> Generator[list[int], None, Speech]:
        """The first piece, whose sound is waited for."""
        prompt = self._request.prompt
        token_rate, silent = self._audio.token_rate, self._synthesis.silent_tokens
        source = draw_speech(
            *(self._stages, prompt, self._pieces.prompt_ids, piece.ids),
            seed=attempt_seed(self._request.seed, 0, 0),
            room=self._pieces.room,
            cancelled=self._cancelled,
        )
        soon, held = self._first_tokens(), int(HELD_SECONDS * token_rate)
        drawn: list[int] = []
        handed, trouble, more = 0, None, True
        while more and trouble is None:
            with self._clock.stage("speech_lm"):
                group = list(islice(source, _GROUP))
            drawn += group
            more = len(group) == _GROUP
            trouble = find_running_trouble(drawn, token_rate=token_rate, silent=silent)
            ready = max(soon if len(drawn) >= soon else 0, len(drawn) - held)
            if more and trouble is None and ready > handed:
                yield drawn[handed:ready]
                handed = ready
        if not handed:  # nothing was heard of it
            speech = self._whole(piece, 0, can_be_cut=False, first=drawn)
            yield speech.tokens
            return speech
        if more:
            assert trouble is not None
            warning = f"piece 1: {trouble.fact}; ended before that"
            return Speech(drawn[:handed], 0, trouble, (warning,))
        _, most = token_limits(self._synthesis, len(piece.ids))
        most = min(most, self._pieces.room)
        trouble = find_trouble(
            drawn,
            text_ids=len(piece.ids),
            max_tokens=most,
            token_rate=token_rate,
            silent=silent,
        )
        yield drawn[handed:]
        return Speech(drawn, 0, trouble, (f"piece 1: {trouble.fact}",) if trouble else ())

    def _first_tokens(self) -> int:
        """Tokens until the flow can compute the first chunk that holds speech."""
        prompt, synthesis, audio = self._request.prompt, self._synthesis, self._audio
        end = (len(prompt.mel) // synthesis.chunk_frames + 1) * synthesis.chunk_frames
        known = math.ceil(end / audio.frames_per_token) + synthesis.pre_lookahead_tokens
        return known - len(prompt.tokens)

    def _whole(
        self, piece: Piece, number: int, *, can_be_cut: bool, first: list[int] | None = None
    ) -> Speech:
        """Judged, and drawn again where it is not plausible."""
        with self._clock.stage("speech_lm"):
            return make_speech(
                *(self._stages, self._request.prompt, self._pieces.prompt_ids, piece.ids),
                seed=self._request.seed,
                piece=number,
                room=self._pieces.room,
                can_be_cut=can_be_cut,
                retries=self._request.retries,
                first=first,
                cancelled=self._cancelled,
            )

    def _end_of(self, piece: Piece, speech: Speech) -> PieceEnd:
        """Raises: SynthesisError for a piece without speech."""
        if not speech.tokens:
            raise nothing_spoken("no speech", piece.text, speech.retries)
        if set(speech.tokens) <= set(self._synthesis.silent_tokens):
            raise nothing_spoken("nothing but silence", piece.text, speech.retries)
        return PieceEnd(
            text=piece.text,
            tokens=len(speech.tokens),
            sentences=1,
            retries=speech.retries,
            warnings=(*self._pieces.take_warnings(), *speech.warnings),
            ends_text=self._pieces.ended,
        )

    def _next(self) -> Piece | Pause | None:
        with self._clock.stage("frontend"):
            return self._pieces.next()
