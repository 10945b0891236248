"""Listens, and stops in order: the first signal lets running requests end, a second one ends them.

No signal handler does more than note the signal and tell the event loop.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn

from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.connections import bounded_connections
from cosyvoice_cpu.serving.gate import App
from cosyvoice_cpu.serving.speech import SpeechService

_SIGNALS = [signal.SIGINT, signal.SIGTERM]
_IDLE_SECONDS = 75  # that a connection is kept for the client's next request
_WEBSOCKET_MESSAGE = 1 << 20  # bytes
_BACKLOG = 128  # connections that the system holds before they are accepted


class Server(uvicorn.Server):
    """uvicorn, with our signals."""

    def __init__(
        self,
        app: App,
        service: SpeechService,
        *,
        on_listening: Callable[[], None] = lambda: None,
    ) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="asyncio",
                http=bounded_connections(settings.max_connections, settings.stall_seconds),
                ws="websockets-sansio",
                ws_max_size=_WEBSOCKET_MESSAGE,
                lifespan="on",
                log_config=None,
                log_level=logging.CRITICAL,  # what fails is logged by the gate, once
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_IDLE_SECONDS,
                backlog=_BACKLOG,
            )
        )
        self._service, self._on_listening = service, on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ours while it serves; then those that were before, and nothing is raised again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first time, refuse new requests and let the others end; then end them."""
        if self.should_exit:
            self.force_exit = True
            # Not from here: a handler may interrupt who holds the room's lock.
            threading.Thread(target=self._service.room.cancel_all, daemon=True).start()
            return
        self.should_exit = True
        self._service.is_closing = True
        threading.Thread(target=self._service.room.close, daemon=True).start()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`. Raises: CosyVoiceError if it is taken."""
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cant_listen(host, port, error) from error
    try:
        if hasattr(signal, "SIGHUP"):  # on Windows the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cant_listen(host, port, error) from error
    return listener


def address(listener: socket.socket) -> str:
    """As in "http://127.0.0.1:8000"."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _cant_listen(host: str, port: int, error: OSError) -> CosyVoiceError:
    return CosyVoiceError(
        f"can't listen on {host}, port {port} ({error.strerror})",
        "choose another port, or end the program that has it",
    )
