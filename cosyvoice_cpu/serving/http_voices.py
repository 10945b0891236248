"""`POST` and `DELETE /v1/audio/voices`: clients add voices and remove them.

The clip stays in memory: nothing of an upload touches a disk but the finished speaker file. The
voice is made by one of the engine room's workers, so uploads are bounded like speech.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing

import msgspec
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cosyvoice_cpu.errors import TextError
from cosyvoice_cpu.frontend.characters import check_characters
from cosyvoice_cpu.serving.bodies import read_body
from cosyvoice_cpu.serving.errors import RequestError
from cosyvoice_cpu.serving.job import Block, Job
from cosyvoice_cpu.serving.records import record_of
from cosyvoice_cpu.serving.speech import SpeechService

LARGEST_CLIP = 10 << 20  # bytes
_LARGEST_FIELD = 64 << 10  # bytes; transcripts are shorter
_MOST_FIELDS = 16
_REFUSALS = ("", "0", "false", "no", "off")  # of consent
_EXPECTED_SECONDS = 3.0  # of computing


class _InMemory(MultiPartParser):
    spool_max_size = LARGEST_CLIP + 1  # beyond it, Starlette would write a file


def voice_routes(service: SpeechService) -> list[Route]:
    """The routes that change voices; that which lists them is in `http_info`."""

    async def add(request: Request) -> Response:
        seconds = service.settings.stall_seconds
        body = await read_body(request, LARGEST_CLIP + (1 << 20), seconds)
        name, clip, transcript, consent = await _fields(request, body)
        name = service.voices.check_new(name)
        record = record_of(request.scope)
        record.facts |= {"voice": name, "bytes": len(clip), "consent": consent[:200]}

        def make(_: Job) -> Generator[Block, None, None]:
            prepared = service.voices.add(name, clip, transcript)
            answer = {
                "id": name,
                "object": "audio.voice",
                "name": name,
                "seconds": round(prepared.report.seconds, 2),
                "warnings": list(prepared.report.warnings),
            }
            yield Block(msgspec.json.encode(answer), 0.0)

        job = Job(make, _EXPECTED_SECONDS)
        service.room.submit(job)
        async with aclosing(service.room.blocks(job)) as blocks:
            content = b"".join([block.content async for block in blocks])
        return Response(content, media_type="application/json")

    async def remove(request: Request) -> Response:
        name = request.path_params.get("name") or request.query_params.get("name", "")
        name = service.voices.remove(name)
        return JSONResponse({"id": name, "object": "audio.voice", "deleted": True})

    return [
        Route("/v1/audio/voices", add, methods=["POST"]),
        Route("/v1/audio/voices", remove, methods=["DELETE"]),
        Route("/v1/audio/voices/{name}", remove, methods=["DELETE"]),
    ]


async def _fields(request: Request, body: bytes) -> tuple[str, bytes, str, str]:
    """Name, clip, transcript and consent. Raises: RequestError."""

    async def parts() -> AsyncGenerator[bytes, None]:
        yield body

    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RequestError("the request's type is not multipart/form-data", status=415)
    parser = _InMemory(
        request.headers,
        parts(),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_LARGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = getattr(error, "message", "it can't be taken apart")
        raise RequestError(f"the request's form: {message}") from error
    sample = form.get("audio_sample")
    if not isinstance(sample, UploadFile):
        raise RequestError("there is no file audio_sample", param="audio_sample")
    clip = await sample.read()
    if len(clip) > LARGEST_CLIP:
        raise RequestError(
            f"the clip exceeds {LARGEST_CLIP >> 20} MB", param="audio_sample", status=413
        )
    texts = {name: form.get(name, "") for name in ("name", "ref_text", "consent")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise RequestError(f"{name} is a file", param=name)
        try:
            check_characters(text, name)
        except TextError as error:
            raise RequestError(error.what, error.hint, param=name) from error
    name, transcript, consent = (str(texts[key]).strip() for key in ("name", "ref_text", "consent"))
    if consent.lower() in _REFUSALS:
        raise RequestError(
            "there is no consent", "say in consent that the voice's owner agrees", param="consent"
        )
    return name, clip, transcript, consent
