"""The voices that clients may name, and those that they add and remove.

What clients add goes into one folder that the operator names; the bundle's own speakers can be
neither replaced nor removed. Names are checked as `cache-speaker` does, so none leads elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.errors import AudioError, BundleError, SpeakerError, TextError
from cosyvoice_cpu.frontend.prepare import PreparedSpeaker
from cosyvoice_cpu.frontend.speaker_folders import add_speaker, list_speakers, remove_speaker
from cosyvoice_cpu.frontend.speakers import check_name
from cosyvoice_cpu.serving.errors import RequestError

_MOST_NAMES = 20  # in a message

MakeSpeaker = Callable[[str, bytes, str], PreparedSpeaker]
"""A speaker of a name, a clip's file and its transcript; `synthesizer.speaker_from_clip`."""


@dataclass(frozen=True)
class Uploads:
    """Where clients' voices go, how many there may be, and what makes them."""

    folder: Path
    make: MakeSpeaker
    most: int = 100


class Voices:
    """The speakers in some folders; of two with a name the first counts."""

    def __init__(self, folders: Sequence[Path], uploads: Uploads | None = None) -> None:
        """`uploads` None refuses to add and remove; its folder is one of `folders`."""
        self._folders = list(folders)
        self._uploads = uploads
        self._lock = threading.Lock()  # between the count and the new file

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
        name = _valid(wanted)
        if name not in known:
            shown = ", ".join(known[:_MOST_NAMES]) + (", ..." if len(known) > _MOST_NAMES else "")
            raise RequestError(
                f"there is no voice {wanted[:64]!r}",
                f"voices: {shown}",
                param="voice",
                code="voice_not_found",
            )
        return name

    def check_new(self, name: str) -> str:
        """`name`, if a voice may be added under it. Raises: RequestError."""
        uploads = self._require_uploads()
        try:
            name = check_name(name)
        except SpeakerError as error:
            raise RequestError(error.what, error.hint, param="name") from error
        if name in self.names():
            raise RequestError(
                f"there is a voice {name!r} already",
                "choose another name",
                param="name",
                status=409,
            )
        if len(list_speakers([uploads.folder])) >= uploads.most:
            raise RequestError(
                f"{uploads.most} voices are kept, and no more may be", "delete one", status=409
            )
        return name

    def add(self, name: str, clip: bytes, transcript: str) -> PreparedSpeaker:
        """Make a voice of a clip and keep it. It computes for a second or more.

        Raises: RequestError for what is wrong with name, clip or transcript.
        """
        uploads = self._require_uploads()
        try:
            prepared = uploads.make(self.check_new(name), clip, transcript)
        except AudioError as error:
            raise RequestError(error.what, error.hint, param="audio_sample") from error
        except TextError as error:
            raise RequestError(error.what, error.hint, param="ref_text") from error
        except BundleError as error:
            raise RequestError(
                "this server's model can't make voices", "its bundle has no front end", status=501
            ) from error
        with self._lock:
            self.check_new(name)
            add_speaker(uploads.folder, prepared.speaker)
        return prepared

    def remove(self, name: str) -> str:
        """Delete a voice that a client added, and return its name. Raises: RequestError."""
        uploads = self._require_uploads()
        valid = _valid(name)
        if valid not in list_speakers([uploads.folder]):
            if valid in self.names():
                raise RequestError(
                    f"the voice {valid!r} belongs to the model", "it stays", status=403
                )
            raise RequestError(
                f"there is no voice {name[:64]!r}", code="voice_not_found", status=404
            )
        remove_speaker([uploads.folder], valid)
        return valid

    def _require_uploads(self) -> Uploads:
        if self._uploads is None:
            raise RequestError(
                "this server keeps no voices of clients",
                "its operator allows them with --speakers DIR",
                status=403,
            )
        return self._uploads


def _valid(name: str) -> str:
    """`name` as `check_name` has it, "" for what can't be one."""
    try:
        return check_name(name)
    except SpeakerError:
        return ""
