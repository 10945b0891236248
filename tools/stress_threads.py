"""Many requests in many threads on one synthesizer: the same audio, flat memory, nothing left.

    python -m tools.stress_threads BUNDLE [--requests N] [--threads N] [--low-memory]

Each distinct request is spoken once alone; then all are spoken by threads that the interpreter
changes as often as it can, in another order each time, and compared sample by sample. Memory,
descriptors and threads of the process are looked at behind each request: the medians of the last
hundred must be those of the first hundred. Before these, as many requests as --warm says take
what eight threads at once take at most. Exit code 1 if something differs or grows.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import platform
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cosyvoice_cpu.bundle.manifest import SPEAKERS_FOLDER
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer
from cosyvoice_cpu.system.heaps import share_one_heap
from tools.failures import reports_failures

REQUESTS, THREADS, WARM = 1000, 8, 200
TEXTS = (
    *("Hi.", "Good morning.", "It is late.", "Not yet.", "One, two, three."),
    *("Where is the key?", "She came home by train.", "你好。", "今天下雨。", "谢谢你。"),
)
SEEDS = 4
_SWITCH_SECONDS = 1e-5
_COMPARED = 100  # requests at either end
_GROWTH = 0.02  # of memory, that is no growth

Request = tuple[str, str, int]  # text, speaker, seed


@dataclass(frozen=True)
class Footprint:
    """What the process holds behind one request."""

    memory_mb: float  # resident
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Footprint:
        """Of this process."""
        process = psutil.Process()
        with process.oneshot():
            memory = process.memory_info().rss / 1e6
            if sys.platform == "win32":
                return cls(memory, process.num_handles(), process.num_threads())
            return cls(memory, process.num_fds(), process.num_threads())

    @classmethod
    def median(cls, seen: Sequence[Footprint]) -> Footprint:
        """Of each figure by itself."""
        return cls(
            statistics.median(one.memory_mb for one in seen),
            statistics.median_high(one.descriptors for one in seen),
            statistics.median_high(one.threads for one in seen),
        )

    def grew_to(self, later: Footprint) -> bool:
        """Whether something is left behind."""
        memory = later.memory_mb > self.memory_mb * (1 + _GROWTH)
        return memory or later.descriptors > self.descriptors or later.threads > self.threads


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    requests: int
    distinct: int
    different: tuple[Request, ...]
    first: Footprint
    last: Footprint
    memory_mb: tuple[float, ...]  # medians of as many requests as are compared, one by one
    peak_mb: float
    seconds: float

    @property
    def is_good(self) -> bool:
        """Nothing differs and nothing grows."""
        return not self.different and not self.first.grew_to(self.last)


@contextmanager
def _impatient() -> Iterator[None]:
    """Threads change places as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def stress(
    synthesizer: Synthesizer,
    texts: Sequence[str],
    speakers: Sequence[str],
    count: int,
    threads: int,
    warm: int = 0,
) -> Outcome:
    """`count` requests in `threads` threads: each text with a few seeds, by the speakers in turn.

    Behind `warm` further ones, which are compared as well but not looked at.

    Raises: UsageError for fewer requests than can be compared, and whatever speaking raises.
    """
    drawn = itertools.product(texts, range(SEEDS))
    distinct = [
        (text, speaker, seed)
        for (text, seed), speaker in zip(drawn, itertools.cycle(speakers), strict=False)
    ]
    compared = min(_COMPARED, count // 2)
    if compared < threads:
        raise UsageError(f"{count} requests are too few for {threads} threads", "give more")
    alone = {request: _digest(synthesizer, request) for request in distinct}
    chance = random.Random(0)
    requests: list[Request] = []
    while len(requests) < warm + count:
        requests += chance.sample(distinct, len(distinct))
    seen: list[Footprint] = []
    lock = threading.Lock()

    def speak(request: Request) -> bool:
        same = _digest(synthesizer, request) == alone[request]
        footprint = Footprint.now()
        with lock:
            seen.append(footprint)
        return same

    started = time.perf_counter()
    with _impatient(), ThreadPoolExecutor(threads) as pool:
        same = list(pool.map(speak, requests[: warm + count]))
    del seen[:warm]
    return Outcome(
        requests=count,
        distinct=len(distinct),
        different=tuple(
            request for request, equal in zip(requests, same, strict=False) if not equal
        ),
        first=Footprint.median(seen[:compared]),
        last=Footprint.median(seen[-compared:]),
        memory_mb=tuple(
            Footprint.median(seen[start : start + compared]).memory_mb
            for start in range(0, count - compared + 1, compared)
        ),
        peak_mb=max(one.memory_mb for one in seen),
        seconds=time.perf_counter() - started,
    )


def _digest(synthesizer: Synthesizer, request: Request) -> bytes:
    text, speaker, seed = request
    samples = synthesizer.speak(text, speaker, seed=seed).samples
    return hashlib.sha256(samples.tobytes()).digest()


def to_text(outcome: Outcome) -> str:
    """Four lines for people, and one for each request that differed."""
    first, last = outcome.first, outcome.last
    lines = [
        f"{outcome.requests} requests ({outcome.distinct} distinct), Python"
        f" {platform.python_version()}: {len(outcome.different)} differ from those spoken alone",
        f"memory {first.memory_mb:.0f} MB, then {last.memory_mb:.0f} MB, at most"
        f" {outcome.peak_mb:.0f} MB; descriptors {first.descriptors}, then {last.descriptors};"
        f" threads {first.threads}, then {last.threads}",
        f"{outcome.seconds:.0f} s",
    ]
    course = ", ".join(f"{memory:.0f}" for memory in outcome.memory_mb)
    lines.append(f"memory by parts of the run: {course} MB")
    return "\n".join([*lines, *(f"differs: {request}" for request in outcome.different)])


@reports_failures
def main() -> int:
    """Run; exit code 1 if something differs or grows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"in all ({REQUESTS})")
    parser.add_argument("--warm", type=int, default=WARM, help=f"before these ({WARM})")
    parser.add_argument("--threads", type=int, default=THREADS, help=f"that speak ({THREADS})")
    parser.add_argument("--low-memory", action="store_true", help="one stage open at a time")
    given = parser.parse_args()
    share_one_heap()
    stages = BundleStages.load(given.bundle, threads=1, low_memory=given.low_memory)
    speakers = list(list_speakers([stages.bundle_path / SPEAKERS_FOLDER]))
    outcome = stress(
        *(Synthesizer.of_bundle(stages), TEXTS, speakers),
        *(given.requests, given.threads, given.warm),
    )
    print(to_text(outcome))
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
