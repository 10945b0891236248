"""What the server says about itself: models, voices, health, readiness, metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cosyvoice_cpu.serving.metrics import CONTENT_TYPE
from cosyvoice_cpu.serving.speech import SpeechService


def info_routes(service: SpeechService, model: str, created: int) -> list[Route]:
    """`model` is the name of the one there is, `created` its time as Unix seconds."""
    entry = {"id": model, "object": "model", "created": created, "owned_by": "cosyvoice-cpu"}

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [entry]})

    async def one_model(_: Request) -> Response:
        return JSONResponse(entry)  # any name: a server has one model

    async def voices(_: Request) -> Response:
        names = service.voices.names()
        return JSONResponse({"voices": [{"id": name, "name": name} for name in names]})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        is_ready = service.warmed.is_set() and not service.is_closing
        status = "ready" if is_ready else "stopping" if service.is_closing else "starting"
        return JSONResponse({"status": status}, 200 if is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return [
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", one_model),
        Route("/v1/audio/voices", voices),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
    ]
