"""The bundle of the embedded demo, made once per version in the user's cache folder.

The checkpoint in `voice/` goes through the ordinary export and the clips in `prompts/` through the
ordinary front end, so the demo shows what any other checkpoint would do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.bundle.atomic import folder_lock, output_error, partial_name
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.bundle.stale_files import clean_up_after_the_dead
from cosyvoice_cpu.bundle.verification_cache import cache_folder
from cosyvoice_cpu.errors import BundleError, MissingExtraError

VOICE = Path(__file__).parent / "voice"
PROMPTS = Path(__file__).parent / "prompts"
MAX_SECONDS = 40.0  # of audio with prompt; a shorter ladder than the default is made sooner

Progress = Callable[[str, float], None]
"""(what is under way, share of it that is done, 0..1)."""
Tell = Callable[[str], None]
"""Takes a sentence for the user."""


def demo_bundle(progress: Progress | None = None, tell: Tell | None = None) -> Path:
    """The folder of the demo's bundle, which is made first if this user has none yet.

    It is whole or absent; of two processes that need it at once, one makes it and the other waits.
    Raises: MissingExtraError if it has to be made and torch or onnx are missing, OutputError if
    there is nowhere to write it.
    """
    progress, tell = progress or (lambda what, done: None), tell or (lambda sentence: None)
    name = f"demo-{__version__}-{_digest()[:16]}"
    with contextlib.suppress(RuntimeError):  # no home folder
        made = cache_folder() / "demo" / name
        if _is_whole(made):
            return made
    parent = _writable_parent(tell)
    bundle = parent / name
    with folder_lock(parent):
        if not _is_whole(bundle):
            tell("making the demo voice; this happens once")
            clean_up_after_the_dead(bundle)
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
        prepared = speaker_from_clip(stages, clip.stem, clip, transcript)
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
    if not bundle.is_dir():
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


def _writable_parent(tell: Tell) -> Path:
    """The cache's folder for demos, or one in the temporary folder where that can't be written."""
    with contextlib.suppress(OSError, RuntimeError):
        parent = cache_folder() / "demo"
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            return parent
    parent = _temporary_parent()
    tell(f"the cache folder can't be written; the demo voice goes to {parent}")
    return parent


def _temporary_parent() -> Path:
    """A folder of this user alone: in a shared temporary folder anybody can take a name first."""
    base = Path(tempfile.gettempdir())
    if sys.platform == "win32":
        return Path(tempfile.mkdtemp(prefix="cosyvoice-cpu-"))
    folder = base / f"cosyvoice-cpu-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.getuid()
            and not status.st_mode & 0o022
        ):
            return folder
        return Path(tempfile.mkdtemp(prefix="cosyvoice-cpu-"))
    except OSError as error:
        raise output_error(folder, error) from error
