"""ONNX Runtime sessions as this project uses them.

Float weights stay where they are: without prepacking ONNX Runtime reads them from the mapped file,
so all sizes of a ladder, all sessions and all processes share one copy, and a session opens in
milliseconds. Integer weights are a quarter of the size and gain more from the kernel's own layout,
so they are repacked, and their ladder keeps one size open. `COSYVOICE_CPU_PREPACK=1` repacks
everything (`docs/performance.md` has the figures of both).

Activations come from one arena that all sessions of the process share: stages and sizes take turns,
so its size is that of the largest, not of their sum (three flow and two vocoder sizes open at full
size: 200 MB instead of 531 MB).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from cosyvoice_cpu.bundle.manifest import Component
from cosyvoice_cpu.errors import BundleError

PREPACK_VARIABLE = "COSYVOICE_CPU_PREPACK"
_OPEN_SIZES = 3  # graphs of one ladder kept open: the size of the last requests and its neighbours
_INTEGER_PRECISIONS = ("int8", "int4")
_ERROR_LEVEL = 3  # ONNX Runtime's severity; its warnings are about things that users can't change


class _Recording:
    """Where sessions write their kernels' times, and those that do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sessions: list[tuple[Path, Any]] = []


_recording: _Recording | None = None


@contextmanager
def recorded_sessions(folder: Path) -> Iterator[list[tuple[Path, Any]]]:
    """Sessions opened in this block, by any thread, record what each kernel takes.

    Yields the growing list of (graph, session); `session.end_profiling()` names its JSON file,
    which is in `folder`. For profiling: engines open their sessions deep inside, when first used.
    """
    global _recording  # noqa: PLW0603
    _recording = _Recording(folder)
    try:
        yield _recording.sessions
    finally:
        _recording = None


def holds_integers(component: Component) -> bool:
    """Whether the component's products run in integer kernels, which want their own layout."""
    return component.precision.startswith(_INTEGER_PRECISIONS)


def open_session(path: Path, threads: int, *, prepack: bool, fold: bool = True) -> Any:
    """An `onnxruntime.InferenceSession` on `path`.

    `prepack` lets the engine keep repacked copies of the weights, which INT4 and INT8 block
    kernels can't do without. `fold` off keeps weights that are stored half from being expanded in
    memory once per session. Raises: BundleError if the engine refuses the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_LEVEL
    # Sessions take turns; one that spins while another computes doubles the time per token.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if _share_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    if not (prepack or os.environ.get(PREPACK_VARIABLE) == "1"):
        options.add_session_config_entry("session.disable_prepacking", "1")
    recording = _recording
    if recording:
        options.enable_profiling = True
        options.profile_file_prefix = str(recording.folder / path.stem)
    try:
        session = ort.InferenceSession(
            str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[] if fold else ["ConstantFolding"],
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise BundleError(
            f"{path} can't be loaded by ONNX Runtime {ort.__version__}: {reason}",
            "update onnxruntime, or export the checkpoint again",
        ) from error
    if recording:
        recording.sessions.append((path, session))
    return session


@cache
def _share_arena() -> bool:
    """Register the process-wide arena; False where another library has configured its own."""
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    try:
        ort.create_and_register_allocator(memory, None)
    except RuntimeError:
        return False
    return True


class SessionLadder:
    """The graphs of a ladder, opened when first needed; the last few sizes stay open."""

    def __init__(
        self, open_size: Callable[[str, int | None], Any], *, private_weights: bool = False
    ) -> None:
        """With `private_weights` each size costs the weights again, so only one stays open."""
        self._open_size = open_size
        self._most = 1 if private_weights else _OPEN_SIZES
        self._sessions: OrderedDict[tuple[str, int | None], Any] = OrderedDict()

    def get(self, variant: str, size: int | None) -> Any:
        """The session of `variant` for `size` (None: the graph for any length)."""
        key = (variant, size)
        if key not in self._sessions:
            while len(self._sessions) >= self._most:
                self._sessions.popitem(last=False)
            self._sessions[key] = self._open_size(variant, size)
        self._sessions.move_to_end(key)
        return self._sessions[key]
