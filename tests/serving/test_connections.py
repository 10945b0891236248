"""Connections that are held open and ask for nothing."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.served import TIMEOUT, ScriptedSynthesizer, Served, serving, until

HEAD = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def connect(served: Served) -> socket.socket:
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT)


def health(connection: socket.socket) -> str:
    """The first line of the answer to a whole request, of which all is read."""
    answer = b""
    try:
        connection.sendall((HEAD + "\r\n").encode())
        while not answer.endswith(b"}") and (part := connection.recv(1 << 16)):
            answer += part
    except ConnectionError:  # closed before the request was sent
        return ""
    return answer.decode().partition("\r\n")[0]


@pytest.mark.parametrize("sent", ["", "G", HEAD])
def test_a_connection_without_a_whole_head_is_closed_in_time(
    synthesizer: ScriptedSynthesizer, voices: Path, sent: str
) -> None:
    with serving(synthesizer, [voices], stall_seconds=0.2) as served, connect(served) as waiting:
        waiting.sendall(sent.encode())
        assert waiting.recv(100) == b""


def test_a_byte_now_and_then_does_not_keep_a_connection(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], stall_seconds=0.3) as served, connect(served) as slow:
        slow.settimeout(0.05)
        sent, answer = iter(HEAD), None
        started = time.monotonic()
        while answer is None and time.monotonic() - started < TIMEOUT:
            try:
                slow.sendall(next(sent, "x").encode())
                answer = slow.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                answer = b""
        assert answer == b""


def test_a_second_request_s_head_has_its_time_as_well(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], stall_seconds=0.2) as served, connect(served) as kept:
        assert health(kept) == "HTTP/1.1 200 OK"
        kept.sendall(b"GET /he")
        assert kept.recv(100) == b""


def test_a_connection_too_many_is_told_so_and_those_before_it_are_served(
    synthesizer: ScriptedSynthesizer, voices: Path
) -> None:
    with serving(synthesizer, [voices], max_connections=3) as served, ExitStack() as opened:
        held = [opened.enter_context(connect(served)) for _ in range(3)]
        assert [health(one) for one in held] == ["HTTP/1.1 200 OK"] * 3
        with connect(served) as late:
            answer = b""
            while part := late.recv(1 << 16):
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and b"Retry-After: " in head
        assert "too many connections" in json.loads(body)["error"]["message"]
        assert health(held[0]) == "HTTP/1.1 200 OK"
        held[1].close()
        until(lambda: _is_served(served))


def _is_served(served: Served) -> bool:
    with connect(served) as another:
        return health(another) == "HTTP/1.1 200 OK"
