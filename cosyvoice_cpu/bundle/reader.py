"""Opening a bundle: everything is checked before ONNX Runtime sees a byte.

In this order: the manifest is parsed; every listed file is a regular file inside its component's
folder, with one name and the listed size; a component's folder holds nothing else; every graph
refers to listed files only; every file has the listed digest. Nothing is written to the bundle, so
it may be read-only and opened by many processes at once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cosyvoice_cpu.bundle.digests import sha256_of_files
from cosyvoice_cpu.bundle.loaded_files import LoadedFiles, states_of
from cosyvoice_cpu.bundle.manifest import (
    COMPONENT_NAMES,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SPEAKERS_FOLDER,
    Component,
    ComponentName,
    FileEntry,
    Manifest,
    parse_manifest,
)
from cosyvoice_cpu.bundle.onnx_scan import scan_onnx
from cosyvoice_cpu.bundle.paths import READ_ONLY, check_file, check_folder
from cosyvoice_cpu.bundle.verification_cache import look_up, state_of, store
from cosyvoice_cpu.errors import BundleError, ManifestError


@dataclass(frozen=True)
class Bundle:
    """A checked bundle: `path` is absolute and free of links, `manifest` says what is inside."""

    path: Path
    manifest: Manifest
    # None for one that is being made: its files are still to change.
    loaded: LoadedFiles | None = field(default=None, kw_only=True, compare=False, repr=False)
    # Whether its files have the digests of the manifest.
    checked: bool = field(default=False, kw_only=True, compare=False, repr=False)

    def component(self, name: ComponentName) -> Component:
        """The manifest's entry of a component. Raises: BundleError if the bundle has none."""
        try:
            return self.manifest.components[name]
        except KeyError:
            raise BundleError(
                f"{self.path} has no component {name}",
                "export the checkpoint again with this component",
            ) from None

    def file(self, component: ComponentName, name: str) -> Path:
        """The path of file `name` of a component. Raises: BundleError unless it is listed."""
        listed = f"{component}/{name}"
        if any(entry.path == listed for entry in self.component(component).files):
            return self.path / component / name
        raise BundleError(f"{self.path} lists no file {listed}", "export the checkpoint again")

    @contextlib.contextmanager
    def unchanged(self, name: ComponentName, graph: str | None = None) -> Iterator[None]:
        """For a block that opens files of a component: they are those that were checked.

        With the file name of a `graph`, the block opens no other graph.
        Raises: BundleError before or after the block, and in place of what it raises, if the bundle
        was replaced or changed since it was loaded.
        """
        if self.loaded is None:
            yield
            return
        paths = [entry.path for entry in self.component(name).files]
        if graph:
            paths = [p for p in paths if p == f"{name}/{graph}" or not p.endswith(".onnx")]
        try:
            self.loaded.require_unchanged(paths)
            yield
        finally:
            self.loaded.require_unchanged(paths)

    @property
    def speakers_folder(self) -> Path:
        """Where the bundle's own speakers are; it may be absent."""
        return self.path / SPEAKERS_FOLDER


def open_bundle(path: Path, *, trust: bool = False, recheck: bool = False) -> Bundle:
    """Check the bundle at `path` and open it.

    `trust` leaves out the digests. Neither digests nor graphs of a component are read again while
    its files are as the verification cache has them from a complete check, unless `recheck`.
    Links and sizes are checked in any case.
    Raises: BundleError, or ManifestError for the manifest, naming the file and what is wrong.
    """
    root = Path(os.path.realpath(path))  # unlike Path.resolve, no error for a circle of links
    _check_root(root, path)
    manifest = read_manifest(root)
    statuses = _check_listed(root, manifest)
    unchanged = set() if trust or recheck else _unchanged(root, manifest, statuses)
    _scan_graphs(root, manifest, unchanged)
    if not trust:
        _check_digests(root, manifest, statuses, unchanged)
    digests = {
        entry.path: entry.sha256 for part in manifest.components.values() for entry in part.files
    }
    loaded = LoadedFiles(root, states_of(statuses, digests))
    return Bundle(root, manifest, loaded=loaded, checked=not trust)


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of the folder `bundle`, without a look at the other files.

    Raises: ManifestError if it is missing, or not valid.
    """
    path = bundle / MANIFEST_NAME
    if not path.is_symlink() and not path.exists():
        raise ManifestError(
            f"{bundle} is not a bundle: it has no {MANIFEST_NAME}",
            "make one with `cosyvoice-cpu export`",
        )
    check_file(path)
    try:
        with open(os.open(path, READ_ONLY), "rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(
            f"{path} can't be read ({error.strerror})", "check the file's permissions"
        ) from error
    return parse_manifest(text, path)


def check_structure(root: Path, manifest: Manifest) -> None:
    """Check everything but the digests. Raises: BundleError naming the first file at fault."""
    _check_listed(root, manifest)
    _scan_graphs(root, manifest, unchanged=set())


def _check_listed(root: Path, manifest: Manifest) -> dict[str, os.stat_result]:
    """The status of each listed file by its manifest path; there must be no other files."""
    statuses: dict[str, os.stat_result] = {}
    for name in COMPONENT_NAMES:
        component = manifest.components.get(name)
        if component is not None:
            check_folder(root / name)
            for entry in component.files:
                statuses[entry.path] = check_file(root / entry.path, entry.size)
        _refuse_unlisted(root / name, component.files if component else [])
    return statuses


def _scan_graphs(root: Path, manifest: Manifest, unchanged: set[str]) -> None:
    """Read every graph's references, but for components that were checked before as they are.

    One changed file is enough to read its whole component again: a graph that did not change may
    refer to weights that did.
    """
    for name, component in manifest.components.items():
        if unchanged.issuperset(entry.path for entry in component.files):
            continue
        sizes = {entry.path.split("/")[1]: entry.size for entry in component.files}
        for file in sizes:
            if file.casefold().endswith(".onnx"):
                scan_onnx(root / name / file, sizes)


def _unchanged(root: Path, manifest: Manifest, statuses: Mapping[str, os.stat_result]) -> set[str]:
    """Manifest paths of the files that are as they were at the last complete check."""
    checked = look_up(root)
    return {
        entry.path
        for component in manifest.components.values()
        for entry in component.files
        if checked.get(entry.path) == state_of(statuses[entry.path], entry.sha256)
    }


def _check_root(root: Path, given: Path) -> None:
    if os.path.isdir(root):  # unlike Path.is_dir, False for a name that is too long
        return
    if os.path.exists(root):
        raise BundleError(f"{given} is not a folder", "a bundle is a folder; give its path")
    hint = "make one with `cosyvoice-cpu export`"
    for aside in sorted(root.parent.glob(f".{root.name}.replaced-*")):
        hint = f"an interrupted overwrite left it as {aside}; rename that back to {root.name}"
    raise BundleError(f"there is no bundle {given}", hint)


def _refuse_unlisted(folder: Path, entries: list[FileEntry]) -> None:
    listed = {entry.path.split("/")[1] for entry in entries}
    try:
        present = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise BundleError(
            f"{folder} can't be read ({error.strerror})", "check the folder's permissions"
        ) from error
    for name in present:
        if name not in listed:
            raise BundleError(
                f"{folder / name} is not listed in the manifest",
                "remove it, or copy the bundle again",
            )


def _check_digests(
    root: Path,
    manifest: Manifest,
    statuses: Mapping[str, os.stat_result],
    unchanged: set[str],
) -> None:
    entries = [entry for part in manifest.components.values() for entry in part.files]
    states = {entry.path: state_of(statuses[entry.path], entry.sha256) for entry in entries}
    changed = [entry for entry in entries if entry.path not in unchanged]
    digests = sha256_of_files(root / entry.path for entry in changed)
    for entry, digest in zip(changed, digests, strict=True):
        path = root / entry.path
        if digest != entry.sha256:
            raise BundleError(
                f"{path} does not match its manifest entry"
                f" (sha256 {digest[:16]}…, expected {entry.sha256[:16]}…)",
                "copy the bundle again, or rebuild it with `cosyvoice-cpu export`",
            )
        if state_of(check_file(path, entry.size), digest) != states[entry.path]:
            raise BundleError(
                f"{path} changed while it was checked", "wait for the other program, then try again"
            )
    if changed:
        store(root, states)
