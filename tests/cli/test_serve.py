"""The command: what it refuses, and how it stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from support.command_line import PROGRAM, call, lines, run

TIMEOUT = 60.0
LONG = "The baker opened his shop before the sun came up. " * 10


@contextmanager
def started(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address. It is killed in the end, if it still runs."""
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0", "--threads", "1", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.match(r"listening on (\S+)", line):
                yield process, found[1]
                break
        else:
            raise AssertionError("it does not listen")
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def test_it_does_not_listen_beyond_this_machine_without_a_key() -> None:
    outcome = call("serve", "--host", "0.0.0.0")
    assert outcome.code == 2
    assert outcome.stderr == lines(
        "without an API key this does not listen on 0.0.0.0, which others can reach",
        "set COSYVOICE_CPU_SERVE_API_KEY, or leave --host at 127.0.0.1",
    )


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = call("serve", "--port", str(port))
    assert outcome.code == 1
    assert outcome.stderr == lines(
        f"can't listen on 127.0.0.1, port {port} (Address already in use)",
        "choose another port, or end the program that has it",
    )


def test_a_host_that_is_not_there_is_said() -> None:
    outcome = call("serve", "--host", "203.0.113.7", "--api-key", "long enough")
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: can't listen on 203.0.113.7, port 8000 (")


def test_without_the_extra_the_remedy_is_named() -> None:
    without = (
        sys.executable,
        "-c",
        "import sys\nsys.modules['starlette'] = None\nfrom cosyvoice_cpu.cli import main\nmain()",
    )
    outcome = run("serve", program=without)
    assert outcome.code == 1
    assert outcome.stderr == lines(
        "serve needs a web server", 'install it with: pip install "cosyvoice-cpu[serve]"'
    )


def test_what_it_goes_by_is_printed_without_the_key() -> None:
    process = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSYVOICE_CPU_SERVE_API_KEY": "sesame-sesame"},
    )
    assert process.stderr is not None
    printed = []
    for line in process.stderr:
        printed.append(line.strip())
        if line.startswith("listening on"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 0, rest
    assert "api-key: set" in printed
    assert "queue: 8" in printed
    assert "sesame" not in "".join(printed) + rest


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_first_signal_lets_a_request_end_and_the_second_ends_it() -> None:
    body = {"input": LONG, "response_format": "pcm"}
    with started() as (process, url):
        with httpx2.stream("POST", f"{url}/v1/audio/speech", json=body, timeout=TIMEOUT) as answer:
            parts = answer.iter_bytes()
            next(parts)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx2.RemoteProtocolError):
                b"".join(parts)
        assert process.wait(10.0) == 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_after_the_first_signal_nothing_new_is_taken_and_all_is_said() -> None:
    body = {"input": "The baker opened his shop.", "response_format": "pcm"}
    with (
        started() as (process, url),
        httpx2.Client(base_url=url, timeout=TIMEOUT) as client,
        client.stream("POST", "/v1/audio/speech", json=body) as answer,
    ):
        process.send_signal(signal.SIGTERM)
        assert len(answer.read()) > 10_000
        assert process.wait(TIMEOUT) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/health")
