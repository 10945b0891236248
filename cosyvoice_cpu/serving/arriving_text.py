"""A text that arrives in pieces, taken apart into sentences as they become certain."""

from __future__ import annotations

from cosyvoice_cpu.frontend.sentence_ends import find_bounded_sentences
from cosyvoice_cpu.frontend.writing_systems import has_speech


class ArrivingText:
    """What has arrived and is not given out yet."""

    def __init__(self) -> None:
        self._rest = ""

    def add(self, text: str) -> list[str]:
        """The sentences that `text` completes.

        One is complete when the next one has begun: "3." may go on with "14", and "Stop!" with
        "he cried". What has no letter or digit is left out.
        """
        parts = list(find_bounded_sentences(self._rest + text))
        known = len(parts)
        while known and not parts[known - 1].strip():
            known -= 1
        complete, unsure = parts[: max(0, known - 1)], parts[max(0, known - 1) :]
        self._rest = "".join(unsure)
        return _spoken(complete)

    def end(self) -> list[str]:
        """The last sentences: nothing follows."""
        parts = list(find_bounded_sentences(self._rest))
        self._rest = ""
        return _spoken(parts)


def _spoken(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if has_speech(part)]
