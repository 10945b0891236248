"""Where OpenVINO keeps what it compiled of a bundle, so that loading is slow only once.

    CACHE/openvino/VERSION-DIGEST/      a graph: its component's files, form, threads

The digest covers all that decides what is compiled, so nothing stale is found. Folders of another
version, and those that were not used for a month, go when the next one is made. A folder is filled
under another name and renamed, so it is whole or absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.bundle.stale_files import partial_folder
from cosyvoice_cpu.system.cache_folder import cache_folder, is_private

_KEPT_SECONDS = 30 * 24 * 3600


@contextlib.contextmanager
def compiled_folder(
    bundle: Bundle, component: ComponentName, form: Sequence[str], version: str
) -> Iterator[Path | None]:
    """The folder of a graph for the block, which reads what is there or fills it; None without
    a cache of this user's own.
    """
    digest = hashlib.sha256(" ".join(form).encode())
    for entry in bundle.component(component).files:
        digest.update(f"{entry.path} {entry.sha256} ".encode())
    root = _root()
    if root is None:
        yield None
        return
    target = root / f"{version}-{digest.hexdigest()[:32]}"
    if target.is_dir() and is_private(target.stat()):
        with contextlib.suppress(OSError):
            os.utime(target)
        yield target
        return
    with contextlib.ExitStack() as stack:
        try:
            _drop_stale(root, version)
            folder: Path | None = stack.enter_context(partial_folder(target))
        except OSError:
            folder = None
        yield folder
        if folder:
            with contextlib.suppress(OSError):  # another process was quicker
                folder.rename(target)


def _root() -> Path | None:
    """The folder of all; None if it can't be made, or others may write to it."""
    folder = cache_folder()
    if folder is None:
        return None
    root = folder / "openvino"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return root if is_private(root.stat()) else None
    except OSError:
        return None


def _drop_stale(root: Path, version: str) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for folder in root.iterdir():
        if folder.name.startswith("."):
            continue  # being filled
        if not folder.name.startswith(f"{version}-") or folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)
