"""Which bundle a command works on, and which folders hold its speakers."""

from __future__ import annotations

from pathlib import Path

from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.demo import DEMO_BUNDLE


def chosen_bundle(bundle: Path | None) -> Path:
    """`bundle`, or the embedded demo's."""
    return bundle if bundle is not None else DEMO_BUNDLE


def speaker_folders(bundle: Bundle, speakers: Path | None) -> list[Path]:
    """Where speakers are looked for, the folder that the user gave first."""
    return [speakers, bundle.speakers_folder] if speakers else [bundle.speakers_folder]
