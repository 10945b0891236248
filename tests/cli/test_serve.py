"""The command: what it refuses, and how it stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest
from support.command_line import PROGRAM, call, lines, run

TIMEOUT = 60.0
LONG = "The baker opened his shop before the sun came up. " * 10


@contextmanager
def started(
    *arguments: str, said: list[str] | None = None, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its address. It is killed in the end, if it still runs.

    What it prints before it listens is added to `said`.
    """
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
            if said is not None:
                said.append(line)
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


def test_a_file_gives_options_which_variables_and_the_command_line_replace(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text('queue = 3\nmax-wait = 4.5\napi_key = "only-for-tests"\nlog-text = true\n')
    variables = {"COSYVOICE_CPU_SERVE_CONFIG": str(config), "COSYVOICE_CPU_SERVE_MAX_WAIT": "6"}
    said: list[str] = []
    with started("--queue", "5", said=said, **variables) as (_, url):
        assert httpx2.get(f"{url}/ready", timeout=TIMEOUT).status_code == 401
    shown = dict(line.strip().split(": ", 1) for line in said if line.startswith("  "))
    assert shown["queue"] == "5"
    assert shown["max-wait"] == "6.0"
    assert shown["api-key"] == "set"
    assert shown["log-text"] == "True"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("queues = 3", "there is no option 'queues'"),
        ("config = 'other.toml'", "there is no option 'config'"),
        ("queue = [3]", "queue is neither text nor a number nor true or false"),
        ("max-wait = 1\nmax_wait = 2", "'max_wait' is given twice"),
        ("queue = ", "it is no TOML: "),
        ("# " + "x" * 70_000, "it is larger than 64 KB"),
        ("queue = 'many'", "Invalid value for '--queue'"),
    ],
)
def test_a_file_of_options_is_refused_by_what_is_wrong_in_it(
    tmp_path: Path, content: str, problem: str
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(content)
    outcome = call("serve", "--config", config)
    assert outcome.code == 2
    assert problem in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 2


def test_a_file_of_options_that_is_not_there_is_said(tmp_path: Path) -> None:
    outcome = call("serve", "--config", tmp_path / "none.toml")
    assert outcome.code == 2
    assert f"{tmp_path / 'none.toml'}: No such file or directory" in outcome.stderr


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


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_worker_processes_speak_at_the_same_time_and_end_with_the_server() -> None:
    body = {"input": "The baker opened his shop.", "response_format": "pcm", "seed": 3}
    with (
        started("--workers", "2") as (process, url),
        httpx2.Client(base_url=url, timeout=TIMEOUT) as client,
    ):
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: client.post("/v1/audio/speech", json=body), "ab"))
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].content == answers[1].content
        assert "cosyvoice_worker_processes 2.0" in client.get("/metrics").text
        for number in (signal.SIGTERM, signal.SIGTERM):  # as a service manager, to all of them
            for each in (process, *workers):
                each.send_signal(number)
        assert process.wait(TIMEOUT) == 0
        assert psutil.wait_procs(workers, TIMEOUT)[1] == []
