"""Holds a server to what it promises: first audio, clients that leave, rough clients, overload.

Each command starts `cosyvoice-cpu serve` on the embedded demo in a process of its own; with --json
it prints one object.

python -m tools.stress_server first-audio    beside the library's own, in pairs
python -m tools.stress_server leave          how long the work goes on without its client
python -m tools.stress_server rough          random leaves, malformed bodies, slow readers
python -m tools.stress_server overload       four times what the machine can do
python -m tools.stress_server throughput     audio per second, with 1 or more workers
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from statistics import median
from typing import Annotated, Any

import httpx2
import psutil
import typer

TIMEOUT = 120.0
TEXT = "The baker opened his shop before the sun came up. "
LONG = TEXT * 12
SPEECH = "/v1/audio/speech"
_MALFORMED = (b"", b"{", b"\xff" * 50, b"[]", b'{"input": 5}', b'{"input": ""}', b"x" * 2_000_000)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_AUDIO_SECONDS = "cosyvoice_audio_seconds_total "
_WAIT = 0.75  # first sounds: others need some of the processor, too
_WARM_REQUESTS = 2  # that open what is opened once

app = typer.Typer(add_completion=False, no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True)
class Target:
    """A server, and the process that it is."""

    url: str
    process: psutil.Process

    @property
    def address(self) -> tuple[str, int]:
        """For raw sockets."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def memory_mb(self) -> float:
        """Anonymous memory: what is mapped from files is not its own."""
        info = self.process.memory_info()
        return float(info.rss - info.shared) / 1e6

    def computing(self) -> float:
        """Processor seconds so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def started(*options: str) -> Iterator[Target]:
    """A warm server with `options`."""
    command = [sys.executable, "-m", "cosyvoice_cpu", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.match(r"listening on (\S+)", line):
                break
        else:
            raise RuntimeError("the server does not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        target = Target(found[1], psutil.Process(process.pid))
        while httpx2.get(f"{target.url}/ready", timeout=TIMEOUT).status_code != 200:
            time.sleep(0.05)
        for _ in range(_WARM_REQUESTS):
            first_audio(target, TEXT)
        yield target
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def first_audio(target: Target, text: str) -> float:
    """Seconds from the request to its first bytes of audio; the rest is read as well.

    By the standard library's client, which takes less of the processor that the server needs.
    Raises: Refusal.
    """
    begun = time.perf_counter()
    with closing(HTTPConnection(*target.address, timeout=TIMEOUT)) as connection:
        body = json.dumps({"input": text, "response_format": "pcm"})
        connection.request("POST", SPEECH, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Refusal(answer.status, answer.getheader("Retry-After"))
        answer.read1(1 << 16)
        seconds = time.perf_counter() - begun
        answer.read()
    return seconds


class Refusal(Exception):
    """Another status than 200, and when to ask again."""


@app.command("first-audio")
def first_audio_command(pairs: int = 20, threads: int = 1, as_json: JsonOption = False) -> None:
    """The library and the server by turns, each in its own process."""
    from cosyvoice_cpu.demo import DEMO_BUNDLE
    from cosyvoice_cpu.frontend.speaker_folders import list_speakers
    from cosyvoice_cpu.synthesis.synthesizer import Synthesizer

    synthesizer = Synthesizer.load(DEMO_BUNDLE, threads)
    voice = next(iter(list_speakers([DEMO_BUNDLE / "speakers"])))

    def alone() -> float:
        begun = time.perf_counter()
        stream = synthesizer.stream(TEXT, voice, workers=0)
        next(stream)
        seconds = time.perf_counter() - begun
        for _ in stream:
            pass
        return seconds

    found = []
    with started("--threads", str(threads)) as target:
        for _ in range(_WARM_REQUESTS):
            alone()
        for _ in range(pairs):
            found.append((alone(), first_audio(target, TEXT)))
    library, server = zip(*found, strict=True)
    behind = [after - before for before, after in found]
    _print(
        as_json,
        pairs=pairs,
        library_s=median(library),
        server_s=median(server),
        behind_s=median(behind),
    )


@app.command()
def leave(times: int = 5, as_json: JsonOption = False) -> None:
    """A client leaves in the middle of a long text: until when does the process compute?"""
    with started() as target:
        found = []
        for _ in range(times):
            connection = request(target, LONG)
            connection.recv(1)  # the first sound is there
            connection.close()
            left = time.perf_counter()
            found.append(_until_idle(target) - left)
    _print(as_json, times=times, median_s=median(found), longest_s=max(found))


def _until_idle(target: Target) -> float:
    """When the process last computed: it has not for half a second after that."""
    busy, seen = time.perf_counter(), target.computing()
    while time.perf_counter() - busy < 0.5:
        time.sleep(0.02)
        if (now := target.computing()) > seen:
            busy, seen = time.perf_counter(), now
    return busy


def request(target: Target, text: str, body: bytes | None = None) -> socket.socket:
    """A connection on which a request was sent, and nothing is read."""
    connection = socket.create_connection(target.address, TIMEOUT)
    if body is None:
        body = json.dumps({"input": text, "response_format": "pcm"}).encode()
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with suppress(OSError):  # refused before all of it was sent
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def _rough(target: Target, kind: int, draw: random.Random) -> str:
    """One client of a kind, and what came of it."""
    if kind == 0:
        with request(target, "", draw.choice(_MALFORMED)) as connection:
            return _status(connection)
    with request(target, TEXT) as connection:
        if kind == 1:  # leaves at some moment, perhaps while it is in the queue
            connection.settimeout(draw.uniform(0.01, 2.0))
            with suppress(TimeoutError):
                connection.recv(1 << 14)
            return "left"
        status = _status(connection)
        end = b""
        while end != _LAST_CHUNK and (part := connection.recv(1 << 14)):
            end = (end + part)[-len(_LAST_CHUNK) :]
            if kind == 2:  # a slow reader
                time.sleep(0.02)
            if status != "200":
                break
        return status


def _status(connection: socket.socket) -> str:
    line = connection.recv(15).decode("latin-1")
    return line.split()[1] if line else "nothing"


def rough_clients(target: Target, requests: int, together: int, seed: int) -> dict[str, Any]:
    """Figures of `requests` clients of all kinds, `together` at a time."""
    draw = random.Random(seed)
    memory: list[float] = []

    def one(number: int) -> str:
        outcome = _rough(target, number % 4, random.Random(draw.random()))
        memory.append(target.memory_mb())
        return outcome

    before = target.process.num_fds()
    with ThreadPoolExecutor(together) as pool:
        outcomes = Counter(pool.map(one, range(requests)))
    share = max(1, requests // 6)
    _until_idle(target)
    answers = first_audio(target, TEXT) > 0
    _until_idle(target)  # its connection is closed by then
    return {
        "requests": requests,
        "outcomes": dict(outcomes),
        "answers_after_all": answers,
        "memory_first_mb": median(memory[:share]),
        "memory_last_mb": median(memory[-share:]),
        "descriptors_before": before,
        "descriptors_after": target.process.num_fds(),
    }


@app.command()
def rough(
    requests: int = 300, together: int = 6, seed: int = 0, as_json: JsonOption = False
) -> None:
    """Malformed bodies, clients that leave at any moment, slow readers, and good clients."""
    with started("--queue", "16", "--max-wait", "3600") as target:
        _print(as_json, **rough_clients(target, requests, together, seed))


@app.command()
def overload(
    seconds: float = 120.0,
    times: float = 4.0,
    max_wait: Annotated[
        float | None, typer.Option(help="The server's; by default 3/4 of what a first sound takes.")
    ] = None,
    seed: int = 0,
    as_json: JsonOption = False,
) -> None:
    """Requests at random moments, on average `times` as many as the server can serve."""
    if max_wait is None:
        with started() as target:
            max_wait = round(_WAIT * _unloaded(target)[0], 2)
    with started("--max-wait", str(max_wait)) as target:
        unloaded, whole = _unloaded(target)
        draw = random.Random(seed)
        accepted: list[float] = []
        outcomes: Counter[str] = Counter()

        def one() -> None:
            try:
                accepted.append(first_audio(target, TEXT))
                outcomes["200"] += 1
            except Refusal as refusal:
                status, hint = refusal.args
                outcomes[f"{status}" if hint else f"{status} without a hint"] += 1
            except (OSError, HTTPException) as error:
                outcomes[type(error).__name__] += 1

        begun = time.perf_counter()
        count = max(1, round(seconds * times / whole))
        _at_random(one, count, whole / times, draw)
        took = time.perf_counter() - begun
    _print(
        as_json,
        max_wait_s=max_wait,
        requests=count,
        every_s=whole / times,
        outcomes=dict(outcomes),
        first_audio_unloaded_s=unloaded,
        first_audio_s=median(accepted),
        first_audio_95_s=sorted(accepted)[int(0.95 * (len(accepted) - 1))],
        times_unloaded_95=sorted(accepted)[int(0.95 * (len(accepted) - 1))] / unloaded,
        busy=outcomes["200"] * whole / took,
    )


@app.command()
def throughput(
    workers: int = 1,
    clients: int = 4,
    requests: int = 24,
    cpus: str | None = None,
    as_json: JsonOption = False,
) -> None:
    """Audio that `clients` get who ask again as soon as they have it all."""
    options = ["--workers", str(workers), "--queue", str(clients), "--max-wait", "3600"]
    with started(*options, *(("--cpus", cpus) if cpus else ())) as target:
        before = _audio_seconds(target)
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            firsts = list(pool.map(lambda _: first_audio(target, TEXT), range(requests)))
        took = time.perf_counter() - begun
        spoken = _audio_seconds(target) - before
    _print(
        as_json,
        workers=workers,
        clients=clients,
        audio_per_second=spoken / took,
        first_audio_s=median(firsts),
    )


def _audio_seconds(target: Target) -> float:
    """That the server has made so far."""
    lines = httpx2.get(f"{target.url}/metrics", timeout=TIMEOUT).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(_AUDIO_SECONDS))


def _unloaded(target: Target, requests: int = 5) -> tuple[float, float]:
    """Seconds to the first audio and to the end of a request that is alone."""
    firsts, wholes = [], []
    for _ in range(requests):
        begun = time.perf_counter()
        firsts.append(first_audio(target, TEXT))
        wholes.append(time.perf_counter() - begun)
    return median(firsts), median(wholes)


def _at_random(work: Callable[[], None], count: int, every: float, draw: random.Random) -> None:
    """Start `count` threads, `every` seconds apart on average, and wait for all."""
    threads = []
    start = time.perf_counter()
    for _ in range(count):
        time.sleep(max(0.0, start - time.perf_counter()))
        threads.append(threading.Thread(target=work))
        threads[-1].start()
        start += draw.expovariate(1 / every)
    for thread in threads:
        thread.join(TIMEOUT)


def _print(as_json: bool, **figures: Any) -> None:
    rounded = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in figures.items()
    }
    if as_json:
        print(json.dumps(rounded, indent=2))
        return
    for name, value in rounded.items():
        print(f"{name:<24}{value}")


if __name__ == "__main__":
    app()
