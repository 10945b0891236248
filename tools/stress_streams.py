"""Streams that are cancelled, listened to slowly, dropped, and spoken side by side.

    python -m tools.stress_streams [BUNDLE] --cancel 200 --threads 1

Prints a line for each part. Exit code 1 if a thread or a descriptor stays, if the memory in use is
more than 3 % larger behind the cancelled streams than before, if closing takes longer than two
seconds, or if a stream beside others is not what it is alone. As many streams as --warm says are
cancelled before: graphs open, arenas and heaps take their size.

In use is what is left when the C library has returned what it keeps for later. Resident memory
holds that, too; it depends on the moment of the last cancellation and goes up and down by a tenth,
so its course is shown and not judged.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from cosyvoice_cpu import Synthesizer
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.synthesis.audio import Audio, join
from cosyvoice_cpu.system.heaps import give_back_freed, share_one_heap
from cosyvoice_cpu.system.memory import resident_memory

_TEXT = "We walked along the river and talked about the summer. " * 4
_SIDE_BY_SIDE = 4
_LONGEST_CLOSE = 2.0  # seconds
_GROWTH = 1.03


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.stress_streams")
    parser.add_argument("bundle", nargs="?", type=Path, default=DEMO_BUNDLE)
    parser.add_argument("--cancel", type=int, default=200, metavar="N")
    parser.add_argument("--warm", type=int, default=50, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    share_one_heap()
    synthesizer = Synthesizer.load(arguments.bundle, threads=arguments.threads)
    speaker = min(path.stem for path in (arguments.bundle / "speakers").iterdir())
    whole = synthesizer.speak(_TEXT, speaker, streaming=True)
    seconds = whole.report.seconds_computing if whole.report else whole.seconds
    _cancel(synthesizer, speaker, arguments.warm, seconds, random.Random(1))
    problems = [
        *_cancelled(synthesizer, speaker, arguments.cancel, seconds),
        *_slow(synthesizer, speaker, whole),
        *_side_by_side(synthesizer, speaker),
    ]
    for problem in problems:
        print(f"failed: {problem}")
    return 1 if problems else 0


def _cancel(
    synthesizer: Synthesizer, speaker: str, count: int, seconds: float, moments: random.Random
) -> tuple[list[float], list[float]]:
    """Close `count` streams at random moments of the `seconds` that one takes: the seconds that
    closing took, and the resident megabytes of the process behind each.
    """
    process = psutil.Process()
    memory, closing = [], []
    for number in range(count):
        stream = synthesizer.stream(_TEXT, speaker, workers=1 + number % 3)
        took: list[float] = []

        def close(stream: object = stream, took: list[float] = took) -> None:
            started = time.perf_counter()
            stream.close()  # type: ignore[attr-defined]
            took.append(time.perf_counter() - started)

        timer = threading.Timer(moments.uniform(0.0, seconds), close)
        timer.start()
        for _ in stream:
            pass
        timer.join()
        closing += took
        memory.append(process.memory_info().rss / 1e6)
    return closing, memory


def _cancelled(synthesizer: Synthesizer, speaker: str, count: int, seconds: float) -> list[str]:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    before = _in_use_mb()
    closing, memory = _cancel(synthesizer, speaker, count, seconds, random.Random(0))
    after = _in_use_mb()
    course = ", ".join(f"{np.mean(part):.0f}" for part in np.array_split(memory, min(10, count)))
    print(
        f"{count} streams cancelled: closing took {np.median(closing):.3f} s, at most"
        f" {max(closing):.3f} s; memory in use {before:.1f} MB before, {after:.1f} MB behind them"
        f" (resident meanwhile: {course}); {threading.active_count() - threads} threads and"
        f" {len(os.listdir('/proc/self/fd')) - files} descriptors more"
    )
    problems = []
    if threading.active_count() != threads or len(os.listdir("/proc/self/fd")) > files:
        problems.append("threads or descriptors stayed")
    if after > before * _GROWTH:
        problems.append("memory grew")
    if max(closing) > _LONGEST_CLOSE:
        problems.append("closing took too long")
    return problems


def _in_use_mb() -> float:
    """Anonymous memory without what the C library keeps for later."""
    gc.collect()
    give_back_freed()
    anonymous_mb = resident_memory().anonymous_mb
    assert anonymous_mb is not None  # Linux tells
    return anonymous_mb


def _slow(synthesizer: Synthesizer, speaker: str, whole: Audio) -> list[str]:
    """A listener who plays in real time, and one who vanishes."""
    threads = threading.active_count()
    blocks = []
    clock = threading.Event()  # never set: a wait that nothing ends early
    for block in synthesizer.stream(_TEXT, speaker):
        blocks.append(block)
        clock.wait(block.seconds)
    equal = np.array_equal(join(blocks).samples, whole.samples)
    stream = synthesizer.stream(_TEXT, speaker, workers=3)
    next(stream)
    del stream
    left = threading.active_count() - threads
    print(f"slow listener: {'equal' if equal else 'different'}; vanished: {left} threads more")
    return [] if equal and not left else ["a slow or a vanished listener changed something"]


def _side_by_side(synthesizer: Synthesizer, speaker: str) -> list[str]:
    texts = [_TEXT[: 60 + 50 * number] for number in range(_SIDE_BY_SIDE)]
    alone = [synthesizer.speak(text, speaker, streaming=True).samples for text in texts]
    together: list[Audio | None] = [None] * len(texts)

    def speak(number: int) -> None:
        together[number] = join(list(synthesizer.stream(texts[number], speaker)))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal = [
        audio is not None and np.array_equal(audio.samples, want)
        for audio, want in zip(together, alone, strict=True)
    ]
    print(f"{len(texts)} streams side by side: {sum(equal)} equal what they are alone")
    return [] if all(equal) else ["streams side by side differ"]


if __name__ == "__main__":
    sys.exit(main())
