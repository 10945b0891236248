"""Worker processes: what they say, how they die, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from support import scripted_worker
from support.scripted_worker import BLOCK, COMMAND, RATE, sound
from support.served import TIMEOUT, ScriptedSynthesizer, serving, until

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import BundleError, CosyVoiceError, SynthesisError, TextError
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.serving.worker_messages import Setup
from cosyvoice_cpu.serving.worker_pool import WorkerLostError, WorkerPool
from cosyvoice_cpu.synthesis.audio import join
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills and pipes are POSIX's")
SETUP = Setup("scripted", 1, None, False)


def held() -> tuple[int, int, int]:
    """Children, threads and descriptors of this process."""
    own = psutil.Process()
    return len(own.children()), threading.active_count(), own.num_fds()


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    before = held()
    with WorkerPool(SETUP, 2, COMMAND) as opened:
        yield opened
    until(lambda: held() == before)


def words(pool: WorkerPool, text: str, seat: int = 0) -> list[np.ndarray]:
    return [audio.samples for audio in pool.seat(seat).stream(text, "anna")]


def kill(pool: WorkerPool, seat: int = 0) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was killed before, and nobody sits there yet
        os.kill(pool.seat(seat).pid, signal.SIGKILL)


@pytest.mark.parametrize("way", ["stream", "pieces"])
def test_audio_and_its_report_come_as_they_are(pool: WorkerPool, way: str) -> None:
    audios = list(getattr(pool.seat(0), way)("one two", "anna", seed=3))
    np.testing.assert_array_equal(join(audios).samples, np.append(sound("one"), sound("two")))
    assert [audio.sample_rate for audio in audios] == [RATE, RATE]
    reports = [audio.report for audio in audios if audio.report]
    assert [report.ends_text for report in reports] == [False, True]
    assert reports[0].warnings == ("a warning",)
    assert reports[0].seconds_audio == BLOCK / RATE


def test_an_error_comes_as_it_was_raised_and_the_process_lives_on(pool: WorkerPool) -> None:
    for text, kind, what in [
        ("unreadable", TextError, "there is nothing to speak"),
        ("one fail", SynthesisError, "nothing but silence came"),
        ("one crash", RuntimeError, "ValueError: a bug"),
    ]:
        with pytest.raises(kind, match=what) as raised:
            words(pool, text)
        assert getattr(raised.value, "hint", "x")
    assert len(words(pool, "one")) == 1
    assert pool.restarts == 0


def test_requests_on_one_seat_take_turns(pool: WorkerPool) -> None:
    first, second = (pool.seat(0).stream(text, None) for text in ("a b", "c d"))
    heard = [next(stream).samples[0] for stream in (first, second, first, second)]
    assert heard == [sound(word)[0] for word in "acbd"]


def test_a_dead_worker_fails_its_own_requests_and_is_replaced(pool: WorkerPool) -> None:
    other = pool.seat(1).stream("one two", None)
    next(other)
    rests = pool.seat(0).stream("one two", None)
    next(rests)
    dead = pool.seat(0).pid
    with pytest.raises(WorkerLostError, match=r"spoke this ended \(signal 9\)") as lost:
        words(pool, "one die")
    assert lost.value.hint == "ask again: another one has taken its place"
    with pytest.raises(WorkerLostError):
        next(rests)
    assert len(list(other)) == 1
    assert len(words(pool, "one two")) == 2
    assert pool.restarts == 1
    assert pool.seat(0).pid != dead


def test_a_worker_that_is_killed_while_it_rests_is_replaced(pool: WorkerPool) -> None:
    kill(pool)
    until(lambda: pool.restarts == 1)
    assert len(words(pool, "one")) == 1


def test_a_stream_that_is_closed_ends_at_once_and_its_worker_goes_on(
    pool: WorkerPool, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    stream = pool.seat(0).stream(f"one wait:{pipe} never", None)
    next(stream)
    ended = threading.Event()

    def read() -> None:
        assert list(stream) == []
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    with pipe.open("wb"):  # opens when the worker waits
        stream.close()
        assert ended.wait(TIMEOUT)
    thread.join()
    assert len(words(pool, "one")) == 1


def test_a_stream_that_is_dropped_is_closed(pool: WorkerPool) -> None:
    stream = pool.seat(0).stream("one two", None)
    next(stream)
    del stream
    assert not pool.seat(0)._process._replies


def test_what_keeps_a_worker_from_loading_is_raised() -> None:
    before = held()
    with pytest.raises(BundleError, match="there is no bundle missing"):
        WorkerPool(Setup("missing", 1, None, False), 2, COMMAND)
    with pytest.raises(
        WorkerLostError, match=r"a worker process ended \(exit code 0\) before it had"
    ):
        WorkerPool(Setup("broken", 1, None, False), 2, COMMAND)
    with pytest.raises(BundleError, match="there is no bundle"):
        WorkerPool(Setup("/nowhere", 1, None, False), 1)
    until(lambda: held() == before)


def test_workers_end_with_a_server_that_is_killed() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(scripted_worker.__file__).parents[1])!r})\n"
        "from support.scripted_worker import COMMAND\n"
        "from cosyvoice_cpu.serving.worker_messages import Setup\n"
        "from cosyvoice_cpu.serving.worker_pool import WorkerPool\n"
        "pool = WorkerPool(Setup('scripted', 1, None, False), 2, COMMAND)\n"
        "print(*pool.pids, flush=True)\n"
        "input()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    workers = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
    assert len(workers) == 2
    server.kill()
    server.communicate()
    gone, alive = psutil.wait_procs(workers, TIMEOUT)
    assert (len(gone), alive) == (2, [])


def test_signals_to_the_whole_group_leave_workers_to_their_server(pool: WorkerPool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pool.seat(0).pid, number)
    assert len(words(pool, "one")) == 1
    assert pool.restarts == 0


def test_fifty_requests_with_workers_killed_now_and_then_all_end(voices: Path) -> None:
    before = held()
    chance = random.Random(0)
    text = "the quick brown fox jumps over the lazy dog"
    whole = np.concatenate([sound(word) for word in text.split()])
    pcm = (whole * 32767).astype(np.int16)
    with (
        WorkerPool(SETUP, 2, COMMAND) as pool,
        serving(ScriptedSynthesizer(), [voices], pool=pool, workers=2, queue=50) as served,
    ):
        kills = {number: chance.randrange(2) for number in range(4, 50, 9)}

        def ask(number: int) -> tuple[int, bytes]:
            if number in kills:
                kill(pool, kills[number])
            body = {"input": text, "voice": "anna", "response_format": "pcm"}
            if number % 3 == 0:
                body["stream"] = False  # type: ignore[assignment]
            if number == 25:
                body["input"] = f"{text} die"
                body["stream"] = False  # type: ignore[assignment]
            with served.client() as client:
                answer = client.post("/v1/audio/speech", json=body)
                return answer.status_code, answer.content

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(_or_cut(ask), range(50)))
        with served.client() as client:
            metrics = client.get("/metrics").text
    until(lambda: held()[0] == before[0] and held()[2] <= before[2])
    assert threading.active_count() == before[1]
    good = [content for status, content in answers if status == 200]
    assert len(good) >= 30
    for content in good:
        np.testing.assert_allclose(np.frombuffer(content, np.int16), pcm, atol=1)
    lost = [content for status, content in answers if status == 503]
    assert answers[25][0] == 503
    assert all(b"worker process" in content and b"worker_lost" in content for content in lost)
    assert len(good) + len(lost) + sum(status == 0 for status, _ in answers) == 50
    restarts = next(line for line in metrics.splitlines() if line.startswith("cosyvoice_worker_re"))
    assert float(restarts.split()[1]) >= 3
    assert "cosyvoice_worker_processes 2.0" in metrics


def _or_cut(ask):  # type: ignore[no-untyped-def]
    """`ask`, with status 0 for an answer that is cut off: its status had gone before the worker."""
    import httpx2

    def asked(number: int) -> tuple[int, bytes]:
        try:
            return ask(number)
        except httpx2.RemoteProtocolError:
            return 0, b""

    return asked


def test_a_worker_of_a_bundle_speaks_what_the_library_does() -> None:
    text, voice = "Good morning.", "hibari-heart-1"
    alone = Synthesizer.of_bundle(BundleStages.load(DEMO_BUNDLE, 1))
    with WorkerPool(Setup(str(DEMO_BUNDLE), 1, None, False), 1) as pool:
        streamed = join(list(pool.seat(0).stream(text, voice, seed=3)))
        whole = join(list(pool.seat(0).pieces(text, voice, seed=3)))
    np.testing.assert_array_equal(
        streamed.samples, alone.speak(text, voice, seed=3, streaming=True).samples
    )
    np.testing.assert_array_equal(whole.samples, alone.speak(text, voice, seed=3).samples)


def test_a_worker_computes_with_the_engines_that_were_chosen() -> None:
    setup = Setup(str(DEMO_BUNDLE), 1, None, False, {"vocoder": "no such engine"})
    with WorkerPool(setup, 1) as pool, pytest.raises(CosyVoiceError, match="'no such engine'"):
        list(pool.seat(0).pieces("Hi.", "hibari-heart-1"))
