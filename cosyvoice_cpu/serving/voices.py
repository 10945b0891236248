"""The voices that clients may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.frontend.speakers import check_name
from cosyvoice_cpu.serving.errors import RequestError

_MOST_NAMES = 20  # in a message


class Voices:
    """The speakers in some folders; of two with a name the first counts."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = list(folders)

    def names(self) -> list[str]:
        """Sorted. Raises: SpeakerError if a folder can't be read."""
        return list(list_speakers(self._folders))

    def name_of(self, wanted: str | None) -> str:
        """The voice that `wanted` names; None and "" are the first one.

        Raises: RequestError if there is none.
        """
        known = self.names()
        if not known:
            raise RequestError(
                "this server has no voice",
                "make one with `cosyvoice-cpu cache-speaker`",
                status=503,
            )
        if not wanted:
            return known[0]
        try:
            name = check_name(wanted)
        except SpeakerError:
            name = ""
        if name not in known:
            shown = ", ".join(known[:_MOST_NAMES]) + (", ..." if len(known) > _MOST_NAMES else "")
            raise RequestError(
                f"there is no voice {wanted[:64]!r}",
                f"voices: {shown}",
                param="voice",
                code="voice_not_found",
            )
        return name
