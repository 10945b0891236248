"""The files of a loaded bundle, which must stay those that were checked.

Graphs open when a request first needs their size, minutes or days after the bundle was loaded. Has
its folder been replaced meanwhile, the path leads to another model, which fits in every name. So
each file's state is kept, and looked at before and after whatever opens it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cosyvoice_cpu.bundle.digests import sha256_of
from cosyvoice_cpu.bundle.paths import check_file
from cosyvoice_cpu.bundle.verification_cache import FileState, state_of
from cosyvoice_cpu.errors import BundleError


class LoadedFiles:
    """States of files by path relative to the bundle `root`."""

    def __init__(self, root: Path, states: Mapping[str, FileState]) -> None:
        self._root = root
        self._states = dict(states)

    def require_unchanged(self, paths: Iterable[str]) -> None:
        """Raises: BundleError unless each file is the one that was loaded, or has its content.

        A file that was touched, or replaced by a copy, is read once to see that.
        """
        for path in paths:
            known = self._states[path]
            state = self._state(path, known.sha256)
            if state == known:
                continue
            if state is None or not self._same_content(path, state):
                raise BundleError(
                    f"{self._root} was replaced or changed since it was loaded"
                    f" ({path} is another file or gone)",
                    "load the bundle again; put a new one under a new name, or by a rename",
                )
            self._states[path] = state

    def _state(self, path: str, sha256: str) -> FileState | None:
        try:
            return state_of(check_file(self._root / path), sha256)
        except BundleError:
            return None

    def _same_content(self, path: str, state: FileState) -> bool:
        try:
            same = sha256_of(self._root / path) == state.sha256
        except BundleError:
            return False
        return same and self._state(path, state.sha256) == state


def states_of(
    statuses: Mapping[str, os.stat_result], digests: Mapping[str, str]
) -> dict[str, FileState]:
    """The states of files with these statuses and digests, by path."""
    return {path: state_of(status, digests[path]) for path, status in statuses.items()}
