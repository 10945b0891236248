"""Connections, bounded in number and in the time that a request's head may take.

Each costs a descriptor. A client that opens many, or sends a byte now and then, would keep others
out; bodies and answers have bounds of their own (`bodies`, `speech_body`).
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
_TOO_MANY = (
    b'{"error": {"message": "too many connections are open; ask again later",'
    b' "type": "server_error", "param": null, "code": null}}'
)


def bounded_connections(most: int, head_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol for HTTP, for at most `most` connections at a time.

    One on which no request's head is complete within `head_seconds` of its first byte, or of the
    connection, is closed.
    """

    class BoundedConnection(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(  # type: ignore[override]  # as uvicorn narrows it
            self, transport: asyncio.Transport
        ) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                transport.write(_FULL % (len(_TOO_MANY), _TOO_MANY))
                transport.close()
                return
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unset_head_timer()
            super().connection_lost(exc)

        def _watch_head(self) -> None:
            if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
                self._unset_head_timer()
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(
                    head_seconds, self.timeout_keep_alive_handler
                )

        def _unset_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return BoundedConnection
