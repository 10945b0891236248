"""What every request passes, HTTP and WebSocket: who may ask, from where, how much; and the log.

With a key, only `/health` answers without it. The key is taken as OpenAI's clients send it
(`Authorization: Bearer KEY`), or as the password of HTTP's basic authentication, which browsers ask
their user for.

Without a key the server listens on loopback only, where any web page in the user's browser can
still send requests: so the Host must be a loopback name (else a foreign name was made to point
here), and a page's Origin must be the server's own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from cosyvoice_cpu.serving.errors import RequestError, failure_of, is_ours
from cosyvoice_cpu.serving.metrics import Metrics
from cosyvoice_cpu.serving.records import Record, RecordLog, keep_record
from cosyvoice_cpu.serving.settings import Settings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

OPEN_PATHS = ("/health",)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_LEFT = 499  # in the log, as nginx has it
_POLICY_VIOLATION = 1008  # WebSocket close code


class BrokenOff(Exception):
    """An answer that began and can't be ended; the connection is closed without its end."""


class Gate:
    """Wraps the application."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics, log: RecordLog) -> None:
        self._app, self._settings = app, settings
        self._metrics, self._log = metrics, log
        self._key = _digest(settings.api_key.encode()) if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = _record(scope, headers)
        keep_record(scope, record)
        scope["app"] = self._app  # or the router would answer unknown paths in its own words
        answer = _Answer(send, record.request_id)
        try:
            self._check(scope, headers)
            await self._app(scope, receive, answer.send)
        except BrokenOff:
            raise
        except Exception as raised:
            error = _of_routing(scope, raised) if isinstance(raised, HTTPException) else raised
            if is_ours(error):
                log.error("request %s failed", record.request_id, exc_info=error)
            if answer.status is not None:
                raise BrokenOff from error
            await _refuse(error, scope, receive, answer.send)
        finally:
            status = answer.status or _CLIENT_LEFT
            route = scope.get("route")  # the paths of routes alone: others would be endless
            self._metrics.answered(getattr(route, "path", "other"), status)
            self._log.write(record.line(status))

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises: RequestError with 401 or 403."""
        if scope["path"] in OPEN_PATHS:
            return
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise RequestError("requests from other sites' pages are refused", status=403)
        if self._key is not None:
            if not hmac.compare_digest(_digest(_given_key(headers)), self._key):
                raise RequestError(
                    "the API key is missing or wrong",
                    "send it as: Authorization: Bearer KEY",
                    code="invalid_api_key",
                    status=401,
                    headers={"WWW-Authenticate": 'Basic realm="cosyvoice-cpu", charset="UTF-8"'},
                )
        elif not is_loopback(_host_name(host)):
            raise RequestError(
                f"without an API key this answers to loopback names only, not to {host[:100]!r}",
                "use http://localhost, or set a key",
                status=403,
            )


class _Answer:
    """Passes messages on; adds the request's id and notes the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id = send, request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close" and self.status is None:
            self.status = 403
        if kind in ("http.response.start", "websocket.accept"):
            id_header = (b"x-request-id", self._id.encode())
            message = {**message, "headers": [*message.get("headers", []), id_header]}
        await self._send(message)


async def _refuse(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()  # the handshake
        reason = failure_of(error).message[:120]
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        return
    await error_response(error)(scope, receive, send)


def error_response(error: BaseException) -> Response:
    """OpenAI's error object as a response."""
    failure = failure_of(error)
    return JSONResponse(failure.body, failure.status, headers=failure.headers)


def _of_routing(scope: Scope, error: HTTPException) -> RequestError:
    """No such path, or no such method on it."""
    what = f"there is no {scope.get('method', 'WebSocket')} {scope['path'][:200]}"
    return RequestError(what, status=error.status_code, headers=dict(error.headers or {}))


def _record(scope: Scope, headers: Headers) -> Record:
    given = headers.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    client = scope.get("client")
    method = scope.get("method", "WEBSOCKET")
    return Record(request_id, method, scope["path"][:200], client[0] if client else None)


def _given_key(headers: Headers) -> bytes:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip().encode()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _digest(key: bytes) -> bytes:
    """Of one length whatever the key's: comparing takes the same time."""
    return hashlib.sha256(key).digest()


def _host_name(host: str) -> str:
    """`host` of a Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
