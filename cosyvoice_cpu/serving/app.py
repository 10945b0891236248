"""The ASGI application: routes behind the gate, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.routing import Route, Router, WebSocketRoute

from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.gate import App, Gate
from cosyvoice_cpu.serving.http_info import info_routes
from cosyvoice_cpu.serving.http_page import page_route
from cosyvoice_cpu.serving.http_speech import speech_endpoint
from cosyvoice_cpu.serving.http_voices import voice_routes
from cosyvoice_cpu.serving.records import RecordLog
from cosyvoice_cpu.serving.speech import SpeechService
from cosyvoice_cpu.serving.websocket import stream_endpoint
from cosyvoice_cpu.serving.wyoming import wyoming_server

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0  # that workers get to reach their next step


def make_app(
    service: SpeechService,
    *,
    model: str,
    created: int,
    log_lines: RecordLog,
    wyoming: socket.socket | None = None,
) -> App:
    """The application that serves `service`; the lifespan warms it up and stops its workers.

    `model` and `created` (Unix seconds) are what `/v1/models` says; on `wyoming` its protocol is
    spoken.
    """

    @asynccontextmanager
    async def lifespan(_: Router) -> AsyncGenerator[None, None]:
        warm_up = asyncio.get_running_loop().create_task(_warm_up(service))
        try:
            async with AsyncExitStack() as also:
                if wyoming is not None:
                    await also.enter_async_context(wyoming_server(service, wyoming, log_lines))
                yield
        finally:
            warm_up.cancel()
            await asyncio.to_thread(service.room.stop, STOP_SECONDS)

    router = Router(
        routes=[
            Route("/v1/audio/speech", speech_endpoint(service), methods=["POST"]),
            WebSocketRoute("/v1/audio/speech/stream", stream_endpoint(service)),
            page_route(),
            *voice_routes(service),
            *info_routes(service, model, created),
        ],
        redirect_slashes=False,
        lifespan=lifespan,
    )
    return Gate(router, service.settings, service.metrics, log_lines)


async def _warm_up(service: SpeechService) -> None:
    try:
        await service.warm_up()
    except CosyVoiceError as error:
        log.error("the first speech failed, so this server is not ready: %s", error)
