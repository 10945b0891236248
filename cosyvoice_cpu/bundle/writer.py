"""Making a bundle: in a hidden folder beside its place, complete, then renamed.

    with BundleWriter(output, overwrite=False) as writer:
        save_graph(writer.path_for("vocoder", "vocoder.onnx"))
        writer.finish(generation=..., components={"vocoder": ComponentDraft(...)}, ...)

Whatever ends the block early (an error, Ctrl-C, SIGTERM) removes the hidden folder. A kill that
can't be caught leaves it; the next writer of the same output removes it.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.bundle.atomic import (
    fsync_file,
    fsync_folder,
    hold,
    is_disk_full,
    partial_name,
)
from cosyvoice_cpu.bundle.digests import sha256_of_files
from cosyvoice_cpu.bundle.manifest import (
    COMPONENT_NAMES,
    FORMAT,
    FORMAT_VERSION,
    MANIFEST_NAME,
    SPEAKERS_FOLDER,
    Audio,
    Component,
    ComponentName,
    FileEntry,
    Manifest,
    Quality,
    Shapes,
    Source,
    Synthesis,
    dump_manifest,
)
from cosyvoice_cpu.bundle.paths import unsafe_path
from cosyvoice_cpu.bundle.reader import Bundle, check_structure
from cosyvoice_cpu.bundle.stale_files import remove_stale_files, replaced_name
from cosyvoice_cpu.errors import BundleError

Handler = Callable[[int, FrameType | None], object] | int | None
"""What `signal.signal` takes and gives."""


@dataclass(frozen=True)
class ComponentDraft:
    """A component's manifest entry but for its files, which `BundleWriter.finish` finds."""

    precision: str
    engine: str
    shapes: Shapes
    recipe: str | None = None
    parity: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, component: Component) -> ComponentDraft:
        """The draft that would make `component` again, for a copy into another bundle."""
        return cls(
            precision=component.precision,
            engine=component.engine,
            shapes=component.shapes,
            recipe=component.recipe,
            parity=component.parity,
        )


class BundleWriter:
    """Context manager that builds a bundle and puts it in place in one step.

    `needed_bytes`, where the caller knows them, are compared with the free space before any work.
    Raises on entry: BundleError if `output` exists, if with `overwrite` it is not a bundle, or if
    its folder is missing, closed, or on a disk that is too small.
    """

    def __init__(self, output: Path, overwrite: bool = False, needed_bytes: int = 0) -> None:
        self.output = output
        self._target = Path(os.path.realpath(output))
        self._overwrite = overwrite
        self._needed_bytes = needed_bytes
        self._partial = self._target.parent / partial_name(self._target.name)
        self._hold: int | None = None
        self._restore: dict[signal.Signals, Handler] = {}

    def path_for(self, component: ComponentName, file: str) -> Path:
        """Where to write `file` of `component`; the component's folder exists afterwards.

        Raises: BundleError if a bundle may not hold that name.
        """
        if component not in COMPONENT_NAMES:
            raise BundleError(
                f"unknown component {component!r}", f"known: {', '.join(COMPONENT_NAMES)}"
            )
        if reason := unsafe_path(f"{component}/{file}", component):
            raise BundleError(f"the path '{component}/{file}' {reason}", "choose another file name")
        folder = self._partial / component
        folder.mkdir(exist_ok=True)
        return folder / file

    def copy_component(self, bundle: Bundle, name: ComponentName) -> ComponentDraft:
        """Copy a component of an open bundle as it is; the draft to give to `finish`.

        Raises: BundleError if the bundle has no such component, or changed since it was opened.
        """
        component = bundle.component(name)
        with bundle.unchanged(name):
            for entry in component.files:
                file = entry.path.split("/")[1]
                shutil.copyfile(bundle.file(name, file), self.path_for(name, file))
        return ComponentDraft.of(component)

    def speakers_folder(self) -> Path:
        """The new bundle's `speakers/` folder, made if absent."""
        folder = self._partial / SPEAKERS_FOLDER
        folder.mkdir(exist_ok=True)
        return folder

    def preview(
        self,
        *,
        generation: str,
        source: Source,
        audio: Audio,
        components: Mapping[ComponentName, ComponentDraft],
        synthesis: Synthesis,
        quality: Quality,
        created_by: str = f"cosyvoice-cpu {__version__}",
    ) -> Bundle:
        """What `finish` would make, to be tried in the hidden folder before it is finished.

        Raises: as `finish`.
        """
        manifest = Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            generation=generation,
            created_by=created_by,
            source=source,
            audio=audio,
            components={
                name: self._complete(name, components[name])
                for name in COMPONENT_NAMES
                if name in components
            },
            synthesis=synthesis,
            quality=quality,
        )
        self._refuse_unknown_files(manifest)
        check_structure(self._partial, manifest)
        return Bundle(self._partial, manifest)

    def finish(
        self,
        *,
        generation: str,
        source: Source,
        audio: Audio,
        components: Mapping[ComponentName, ComponentDraft],
        synthesis: Synthesis,
        quality: Quality,
        created_by: str = f"cosyvoice-cpu {__version__}",
    ) -> Manifest:
        """Hash every file, write the manifest, and rename the bundle into place.

        Raises: BundleError if a file stands outside the given components, a component has no file,
        a graph refers to a file outside its folder, or the disk is full; ManifestError if a value
        is outside its range.
        """
        manifest = self.preview(
            generation=generation,
            source=source,
            audio=audio,
            components=components,
            synthesis=synthesis,
            quality=quality,
            created_by=created_by,
        ).manifest
        (self._partial / MANIFEST_NAME).write_bytes(dump_manifest(manifest))
        self._flush()
        self._rename_into_place()
        return manifest

    def _complete(self, name: ComponentName, draft: ComponentDraft) -> Component:
        folder = self._partial / name
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        if not paths:
            raise BundleError(f"component {name} has no file", "write its files before `finish`")
        files = [
            FileEntry(path=f"{name}/{path.name}", size=path.stat().st_size, sha256=digest)
            for path, digest in zip(paths, sha256_of_files(paths), strict=True)
        ]
        return Component(
            precision=draft.precision,
            engine=draft.engine,
            recipe=draft.recipe,
            shapes=draft.shapes,
            files=files,
            parity=dict(draft.parity),
        )

    def _refuse_unknown_files(self, manifest: Manifest) -> None:
        known = {*manifest.components, SPEAKERS_FOLDER}
        for path in self._partial.iterdir():
            if path.name not in known:
                raise BundleError(
                    f"{path.name} is in the new bundle but in no component given to `finish`",
                    "give every component that has files",
                )

    def _flush(self) -> None:
        for folder, _, files in os.walk(self._partial):
            for name in files:
                fsync_file(Path(folder, name))
            fsync_folder(Path(folder))

    def _rename_into_place(self) -> None:
        """Put the new bundle under its name; an old one is out of the way for two renames only."""
        self._check_target()  # another writer may have been faster
        aside = self._target.parent / replaced_name(self._target.name)
        replaces = self._target.exists()
        try:
            if replaces:
                os.rename(self._target, aside)
            os.rename(self._partial, self._target)
        except BaseException:
            if aside.exists() and not self._target.exists():
                os.rename(aside, self._target)
            raise
        fsync_folder(self._target.parent)
        if replaces:
            shutil.rmtree(aside, ignore_errors=True)

    def __enter__(self) -> BundleWriter:
        try:
            remove_stale_files(self._target)
            self._check_target()
            self._check_space()
            self._partial.mkdir()
        except OSError as error:
            raise BundleError(
                f"{self.output} can't be written ({error.strerror})", "choose another place"
            ) from error
        self._hold = hold(self._partial)
        self._take_signals()
        return self

    def _check_target(self) -> None:
        if not self._target.parent.is_dir():
            raise BundleError(
                f"{self.output} can't be written: there is no folder {self._target.parent}",
                "create the folder first",
            )
        if self._target.is_symlink():  # what is left of links that lead in a circle
            raise BundleError(f"{self.output} is a link to itself", "give another name")
        if not _is_utf8(self._target):  # ONNX has no other paths
            raise BundleError(
                f"{self.output} can't be written: the path is not UTF-8", "give another name"
            )
        if self._target.exists() and not _is_empty_folder(self._target):
            if not self._overwrite:
                raise BundleError(f"{self.output} exists", "give another name, or --overwrite")
            if not _is_bundle(self._target):
                raise BundleError(
                    f"{self.output} exists and is not a bundle, so it is not overwritten",
                    "give another name, or remove it yourself",
                )

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if free < self._needed_bytes:
            raise BundleError(
                f"{self.output} needs {_megabytes(self._needed_bytes)},"
                f" {_megabytes(free)} are free on its disk",
                "free some space, or choose another place",
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ignore_signals()
        written = _bytes_in(self._partial) if error and is_disk_full(error) else None
        try:
            if self._partial.exists():
                shutil.rmtree(self._partial, ignore_errors=True)
        finally:
            if self._hold is not None:
                os.close(self._hold)
            self._give_back_signals()
        if isinstance(error, OSError) and written is None:
            where = f"{error.filename}: " if error.filename else ""
            raise BundleError(
                f"{self.output} can't be made ({where}{error.strerror or error})",
                "look after that file, or choose another place",
            ) from error
        if written is not None:
            needed = f" of {_megabytes(self._needed_bytes)}" if self._needed_bytes else ""
            raise BundleError(
                f"{self.output} can't be written: the disk was full after"
                f" {_megabytes(written)}{needed}",
                "free some space, or choose another place",
            ) from error

    def _take_signals(self) -> None:
        """Let SIGTERM end the block as Ctrl-C does, and a second signal not disturb the clean-up.

        What the program handles itself is left alone.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        for number, usual in (
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGINT, signal.default_int_handler),
        ):
            if signal.getsignal(number) is usual:
                self._restore[number] = signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._ignore_signals()
        raise KeyboardInterrupt

    def _ignore_signals(self) -> None:
        for number in self._restore:
            signal.signal(number, signal.SIG_IGN)

    def _give_back_signals(self) -> None:
        for number, handler in self._restore.items():
            signal.signal(number, handler)
        self._restore.clear()


def _is_bundle(folder: Path) -> bool:
    """Whether `folder` holds a manifest of this format, readable or not: what may be replaced."""
    try:
        return FORMAT.encode() in (folder / MANIFEST_NAME).read_bytes()[:4096]
    except OSError:
        return False


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
