"""The bundle of the embedded demo, made once per version in the user's cache folder.

The checkpoint in `voice/` goes through the ordinary export and the clips in `prompts/` through the
ordinary front end, so the demo shows what any other checkpoint would do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.bundle.atomic import folder_lock, output_error, partial_name
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.bundle.stale_files import remove_stale_files
from cosyvoice_cpu.errors import BundleError, MissingExtraError
from cosyvoice_cpu.progress import Notify, Progress, no_notice, no_progress
from cosyvoice_cpu.system.cache_folder import (
    cache_folder,
    private_temporary_folder,
    writable_folder,
)

VOICE = Path(__file__).parent / "voice"
PROMPTS = Path(__file__).parent / "prompts"
MAX_SECONDS = 40.0  # of audio with prompt; a shorter ladder than the default is made sooner


def demo_bundle(progress: Progress = no_progress, notify: Notify = no_notice) -> Path:
    """The folder of the demo's bundle, which is made first if this user has none yet.

    It is whole or absent; of two processes that need it at once, one makes it and the other waits.
    Raises: MissingExtraError if it has to be made and torch or onnx are missing, OutputError if
    there is nowhere to write it.
    """
    name = f"demo-{__version__}-{_digest()[:16]}"
    cache = cache_folder()
    if cache and _is_whole(cache / "demo" / name):  # perhaps in a cache that is read-only by now
        return cache / "demo" / name
    parent = _writable_parent(notify)
    bundle = parent / name
    with folder_lock(parent):
        if not _is_whole(bundle):
            notify("making the demo voice; this happens once")
            remove_stale_files(bundle)
            shutil.rmtree(bundle, ignore_errors=True)
            with _work_folder(parent, name) as work:
                _make(work / "bundle", progress)
                os.rename(work / "bundle", bundle)
    return bundle


def _make(bundle: Path, progress: Progress) -> None:
    from cosyvoice_cpu.export.exporter import export_checkpoint
    from cosyvoice_cpu.frontend.speaker_folders import add_speaker
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages
    from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip
    from cosyvoice_cpu.system.threads import resolve_threads

    try:
        export_checkpoint(
            VOICE, bundle, max_seconds=MAX_SECONDS, threads=resolve_threads(), progress=progress
        )
    except MissingExtraError as error:
        raise MissingExtraError(
            f"the demo voice has to be made first, and {error.what}",
            'pip install "cosyvoice-cpu[export]", or give a finished bundle with --bundle',
        ) from error
    progress("speakers", 0.0)
    stages = BundleStages.load(bundle)
    for clip in sorted(PROMPTS.glob("*.flac")):
        # Without transcript a clip speaks cross-lingual: the demo's speech LM is better that way.
        written = clip.with_suffix(".txt")
        transcript = written.read_text(encoding="utf-8").strip() if written.exists() else ""
        prepared = speaker_from_clip(stages.bundle, clip.stem, clip, transcript)
        add_speaker(stages.bundle.speakers_folder, prepared.speaker)
    progress("speakers", 1.0)


def _digest() -> str:
    """Of all that the bundle is made from: other weights make another bundle."""
    digest = hashlib.sha256()
    for folder in (VOICE, PROMPTS):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _is_whole(bundle: Path) -> bool:
    """Whether there is a bundle that opens. A damaged one is ours to make again."""
    if not os.path.isdir(bundle):  # unlike Path.is_dir, False also where access is denied
        return False
    try:
        open_bundle(bundle)
    except BundleError:
        return False
    return True


@contextlib.contextmanager
def _work_folder(parent: Path, name: str) -> Iterator[Path]:
    work = parent / partial_name(name)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _writable_parent(notify: Notify) -> Path:
    """The cache's folder for demos, or a folder in the temporary one where that can't be written.

    Raises: OutputError if neither can be written.
    """
    if parent := writable_folder("demo"):
        return parent
    try:
        parent = private_temporary_folder()
    except OSError as error:
        raise output_error(Path(error.filename or tempfile.gettempdir()), error) from error
    notify(f"the cache folder can't be written; the demo voice goes to {parent}")
    return parent
