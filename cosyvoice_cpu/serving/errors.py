"""What went wrong, as OpenAI's error object with its status."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from cosyvoice_cpu.errors import CosyVoiceError, SynthesisError, TextError, UsageError
from cosyvoice_cpu.serving.engine_room import LineFull, Refused
from cosyvoice_cpu.serving.job import Cancelled
from cosyvoice_cpu.serving.worker_pool import WorkerLostError

INVALID, SERVER = "invalid_request_error", "server_error"


class RequestError(CosyVoiceError):
    """A request that can't be carried out as it is; `param` names the field that is wrong."""

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(what, hint)
        self.param, self.code, self.status = param, code, status
        self.headers = headers or {}


@dataclass(frozen=True)
class Failure:
    """A response's status, its error object and its further headers."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def failure_of(error: BaseException) -> Failure:
    """What a client is told of `error`.

    Causes that are the server's own (files, engines, bugs) are not described: their texts name
    paths, and they are in the log.
    """
    if isinstance(error, RequestError):
        kind = "authentication_error" if error.status == 401 else INVALID
        return Failure(
            error.status, _said(error), kind, error.param, error.code, dict(error.headers)
        )
    if isinstance(error, Refused):
        full = isinstance(error, LineFull)
        return Failure(
            429 if full else 503,
            _said(error),
            "rate_limit_error" if full else SERVER,
            code="queue_full" if full else "unavailable",
            headers={"Retry-After": str(max(1, math.ceil(error.retry_after)))},
        )
    if isinstance(error, Cancelled):
        return Failure(503, _said(error), SERVER, code="cancelled", headers={"Retry-After": "5"})
    if isinstance(error, WorkerLostError):
        return Failure(503, _said(error), SERVER, code="worker_lost", headers={"Retry-After": "1"})
    if isinstance(error, (UsageError, TextError)):
        param = "input" if isinstance(error, TextError) else None
        return Failure(400, _said(error), INVALID, param)
    if isinstance(error, SynthesisError):
        return Failure(500, _said(error), SERVER, code="synthesis_failed")
    return Failure(500, "the server failed; its log says why", SERVER, code="internal_error")


def is_ours(error: BaseException) -> bool:
    """Whether `error` is for the operator: nothing that the client did or that a model may do."""
    return failure_of(error).code == "internal_error"


def _said(error: CosyVoiceError) -> str:
    return f"{error.what}: {error.hint}" if error.hint else error.what
