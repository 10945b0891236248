"""The ASGI application: routes behind the gate, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.routing import Route, Router

from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.gate import App, Gate
from cosyvoice_cpu.serving.http_info import info_routes
from cosyvoice_cpu.serving.http_speech import speech_endpoint
from cosyvoice_cpu.serving.records import RecordLog
from cosyvoice_cpu.serving.speech import SpeechService

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0  # that workers get to reach their next step


def make_app(
    service: SpeechService, *, model: str, created: int, log_lines: RecordLog | None = None
) -> App:
    """The application that serves `service`; the lifespan warms it up and stops its workers."""

    @asynccontextmanager
    async def lifespan(_: Router) -> AsyncGenerator[None, None]:
        warm_up = asyncio.get_running_loop().create_task(_warm_up(service))
        try:
            yield
        finally:
            warm_up.cancel()
            await asyncio.to_thread(service.room.stop, _STOP_SECONDS)

    router = Router(
        routes=[
            Route("/v1/audio/speech", speech_endpoint(service), methods=["POST"]),
            *info_routes(service, model, created),
        ],
        redirect_slashes=False,
        lifespan=lifespan,
    )
    return Gate(router, service.settings, service.metrics, log_lines or RecordLog())


async def _warm_up(service: SpeechService) -> None:
    try:
        await service.warm_up()
    except CosyVoiceError as error:
        log.error("the first speech failed, so this server is not ready: %s", error)
