"""Request bodies, bounded in size and in time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from cosyvoice_cpu.serving.errors import RequestError
from cosyvoice_cpu.serving.gate import BrokenOff


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The whole body, of at most `most` bytes, each part within `seconds` of the one before.

    Raises: RequestError with 413 or 408, BrokenOff if the client left.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large(most)
    parts, size = [], 0
    stream = request.stream()
    try:
        while (part := await asyncio.wait_for(anext(stream, None), seconds)) is not None:
            size += len(part)
            if size > most:
                raise too_large(most)
            parts.append(part)
    except asyncio.TimeoutError:
        raise RequestError(
            f"the request's body did not come within {seconds:g} s", status=408
        ) from None
    except ClientDisconnect:
        raise BrokenOff("the client left") from None
    return b"".join(parts)


def too_large(most: int) -> RequestError:
    """For a body of more than `most` bytes."""
    return RequestError(f"the request's body exceeds {most >> 10} kB", status=413)
