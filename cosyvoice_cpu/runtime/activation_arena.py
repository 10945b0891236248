"""The arena from which all sessions of ONNX Runtime take their activations, and its return.

Stages and sizes take turns, so one arena of the largest is enough. It grows to what the largest run
took and keeps that: 300 MB at full size after ten seconds of speech. What a stage leaves is given
back when it is done (`give_back`), a stream that is cancelled included (`at_end_of`); within a
stage, from one solver step to the next, it is kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort

_SHRINKS = "memory.enable_memory_arena_shrinkage"  # of a run: at its end, free what nobody uses
_CPU = "cpu:0"
# y = Identity(x) of one float: opset 13, IR version 8.
_IDENTITY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@cache
def share_arena() -> bool:
    """Register the process-wide arena; False where another library has configured its own."""
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    try:
        ort.create_and_register_allocator(memory, None)
    except RuntimeError:
        return False
    return True


def give_back() -> None:
    """Return to the system what no run is using. From any thread, at any time."""
    if not share_arena():
        return
    session, options = _shrinking_session()
    session.run(["y"], {"x": np.zeros(1, np.float32)}, options)


def at_end_of(stream: object) -> Callable[[], object]:
    """Give back once `stream` is dropped, or what is returned is called, whichever comes first."""
    end = weakref.finalize(stream, give_back)
    end.atexit = False
    return end


@cache
def _shrinking_session() -> tuple[Any, Any]:
    """A session on the arena, and the options of a run of it that shrinks the arena."""
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = 1
    session_options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(_IDENTITY, session_options, providers=["CPUExecutionProvider"])
    run_options = ort.RunOptions()
    run_options.add_run_config_entry(_SHRINKS, _CPU)
    return session, run_options
