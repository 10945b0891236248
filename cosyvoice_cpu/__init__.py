"""CosyVoice speech synthesis on a CPU.

    from cosyvoice_cpu import Synthesizer
    audio = Synthesizer.load("bundle/").speak("Hello.", speaker="anna", seed=0)
    audio.save("hello.wav")

Importing this package imports neither torch nor onnx.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cosyvoice_cpu._version import __version__

# The Linux packages of ONNX Runtime 1.32 write a device id to the user's cache when they are
# imported, and upload events. The variable is read at that import, whichever module makes it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["Audio", "Speaker", "Synthesizer", "__version__"]

if TYPE_CHECKING:
    from cosyvoice_cpu.synthesis.synthesizer import Audio, Speaker, Synthesizer


def __getattr__(name: str) -> Any:
    # Deferred: `cosyvoice-cpu --help` should not wait for ONNX Runtime.
    if name in {"Audio", "Speaker", "Synthesizer"}:
        from cosyvoice_cpu.synthesis import synthesizer

        return getattr(synthesizer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
