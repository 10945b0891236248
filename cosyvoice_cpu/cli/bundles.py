"""Which bundle a command works on, and which folders hold its speakers."""

from __future__ import annotations

from pathlib import Path

from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.cli.messages import note, progress_bar


def chosen_bundle(bundle: Path | None) -> Path:
    """`bundle`, or the embedded demo's, which is made at its first use."""
    if bundle is not None:
        return bundle
    from cosyvoice_cpu.demo.embedded import demo_bundle

    with progress_bar() as progress:
        return demo_bundle(progress, note)


def speaker_folders(bundle: Bundle, speakers: Path | None) -> list[Path]:
    """Where speakers are looked for, the folder that the user gave first."""
    return [speakers, bundle.speakers_folder] if speakers else [bundle.speakers_folder]
