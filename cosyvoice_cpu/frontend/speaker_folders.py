"""Speakers as files in folders: find, list, add, remove.

A bundle has its own `speakers/` folder; where the bundle is read-only, another one is given, which
comes first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import folder_lock, output_error
from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend.prompt_spec import PromptSpec
from cosyvoice_cpu.frontend.speakers import SUFFIX, Speaker, check_name


def list_speakers(folders: Sequence[Path]) -> dict[str, Path]:
    """Name to file of the speakers in `folders`, sorted; of two with a name the first counts.

    Files are not opened. Missing folders are empty; links, hidden files and other files are not
    speakers.
    Raises: SpeakerError if a folder can't be read.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise SpeakerError(
                f"{folder} can't be read ({error.strerror})", "choose another --speakers folder"
            ) from error
        for path in paths:
            if path.suffix == SUFFIX and not path.name.startswith(".") and not path.is_symlink():
                found.setdefault(unicodedata.normalize("NFC", path.name.removesuffix(SUFFIX)), path)
    return dict(sorted(found.items()))


def find_speaker(
    folders: Sequence[Path], name: str | None, spec: PromptSpec | None = None
) -> Speaker:
    """The speaker called `name`; None means the only one there is.

    Raises: SpeakerError if it is missing, damaged, or does not fit `spec`, and for None if there
    is none or a choice.
    """
    known = list_speakers(folders)
    if name is None:
        if not known:
            _refuse_link(folders, None)
        if len(known) != 1:
            fact = "there are several speakers" if known else "there is no speaker"
            raise SpeakerError(fact, _choice(known))
        name = next(iter(known))
    path = known.get(check_name(name))
    if path is None:
        _refuse_link(folders, name)
        raise SpeakerError(f"there is no speaker {name!r}", _choice(known))
    return Speaker.load(path, spec)


def _refuse_link(folders: Sequence[Path], name: str | None) -> None:
    """Raises: SpeakerError if a link stands in the place of the speaker `name`; None is any."""
    for folder in folders:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.is_symlink() and name in (None, path.name.removesuffix(SUFFIX)):
                raise SpeakerError(
                    f"{path} is a symbolic link, which is not followed",
                    "copy the speaker file itself (cp -L), as out of a hub's cache",
                )


def add_speaker(folder: Path, speaker: Speaker, *, overwrite: bool = False) -> Path:
    """Write `speaker` into `folder`, made if absent, and return its file.

    Raises: SpeakerError if the name is taken and `overwrite` is off, OutputError if the folder
    can't be written.
    """
    path = folder / (check_name(speaker.name) + SUFFIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    with folder_lock(folder):
        if path.exists() and not overwrite:
            raise SpeakerError(
                f"there already is a speaker {speaker.name!r} in {folder}",
                "choose another name, or remove the old one with --remove",
            )
        speaker.save(path)
    return path


def remove_speaker(folders: Sequence[Path], name: str) -> Path:
    """Delete the first file of speaker `name` and return its path; a damaged file goes too.

    Raises: SpeakerError if there is none, OutputError if it can't be deleted.
    """
    known = list_speakers(folders)
    path = known.get(check_name(name))
    if path is None:
        raise SpeakerError(f"there is no speaker {name!r}", _choice(known))
    try:
        path.unlink()
    except OSError as error:
        raise output_error(path, error) from error
    return path


def _choice(known: dict[str, Path]) -> str:
    if not known:
        return "make one with `cosyvoice-cpu cache-speaker`, or give a clip with --audio"
    return f"choose one with --speaker: {', '.join(known)}"
