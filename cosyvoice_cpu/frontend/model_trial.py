"""The first run of a checkpoint's two ONNX models: in a process of its own, within limits.

What a graph of a few hundred bytes computes, and how much memory it takes, shows only when an
engine opens and runs it. At export that happens here once, so that a model without end or measure
ends this process and not the user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from cosyvoice_cpu.errors import CosyVoiceError, SpeakerError
from cosyvoice_cpu.frontend.fbank import BINS
from cosyvoice_cpu.frontend.mel import WHISPER_BINS
from cosyvoice_cpu.frontend.onnx_models import FrontEndModels

SECONDS = 300  # of time and of processor time; the official models need about 10
_BASE_BYTES = 2 << 30  # above what the interpreter and its libraries have reserved
_COPIES = 4  # of a model's file while it loads: parsed, kept, repacked
_FRAMES = 300  # 3 s
_HINT = "take the ONNX models of the official checkpoint; these may do harm"


def try_models(speaker_encoder: Path, speech_tokenizer: Path) -> None:
    """Open and run both models once.

    Raises: SpeakerError naming the model that fails, does not end, or takes too much memory.
    """
    paths = [str(speaker_encoder), str(speech_tokenizer)]
    root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        outcome = subprocess.run(
            [sys.executable, "-m", "cosyvoice_cpu.frontend.model_trial", *paths],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": search},
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SpeakerError(
            f"{speaker_encoder} or {speech_tokenizer.name} did not end within {SECONDS} s", _HINT
        ) from None
    if outcome.returncode == 0:
        return
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        said = json.loads(outcome.stdout.splitlines()[-1])
        raise SpeakerError(said["what"], said["hint"])
    raise SpeakerError(
        f"{speaker_encoder} or {speech_tokenizer.name} ended the process that tried them "
        f"(exit code {outcome.returncode})",
        _HINT,
    )


def _limit(paths: list[Path]) -> None:
    """Bound this process's memory and processor time, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    largest = max(path.stat().st_size for path in paths)
    with contextlib.suppress(OSError, ValueError):
        reserved = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = reserved + _BASE_BYTES + _COPIES * largest
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def _run(paths: list[Path]) -> None:
    models = FrontEndModels(*paths)
    rng = np.random.default_rng(0)
    models.embed(rng.normal(size=(_FRAMES, BINS)).astype(np.float32))
    models.tokenize(rng.normal(size=(WHISPER_BINS, _FRAMES)).astype(np.float32))


def main() -> int:
    """Run the models that the arguments name; an error goes to stdout as one JSON object."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    _limit(paths)
    try:
        _run(paths)
    except CosyVoiceError as error:
        print(json.dumps({"what": error.what, "hint": error.hint}))
        return 1
    except MemoryError:
        what = f"{paths[0]} or {paths[1].name} takes more memory than it may"
        print(json.dumps({"what": what, "hint": _HINT}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
