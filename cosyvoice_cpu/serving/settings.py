"""What the operator decides, checked before the server listens."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cosyvoice_cpu.errors import UsageError

LARGEST_JSON: Final = 1 << 20  # bytes of a request's body; 4096 characters may be escaped
MOST_WORKERS: Final = 64
_SHORTEST_KEY: Final = 8  # characters; below, a key is guessed


@dataclass(frozen=True)
class Settings:
    """`speakers` is the folder for voices that clients upload; None refuses uploads."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    workers: int = 1
    queue: int = 8  # requests that may wait beyond those that are being computed
    max_wait: float = 10.0  # seconds of work that comes before a request that is still taken
    request_seconds: float = 600.0  # from the request to its last byte
    stall_seconds: float = 30.0  # that a client may let pass without reading or sending
    max_connections: int = 256  # idle ones included; each costs a descriptor
    max_characters: int = 4096  # of a text, as OpenAI has it
    speakers: Path | None = None
    log_text: bool = False

    def check(self) -> None:
        """Raises: UsageError for what can't be, or isn't safe."""
        if not 0 <= self.port <= 65535:
            raise UsageError(f"the port {self.port} is outside 0 to 65535", "8000 is the default")
        if not 1 <= self.workers <= MOST_WORKERS:
            raise UsageError(
                f"{self.workers} workers can't be used", f"give 1 to {MOST_WORKERS}; 1 is usual"
            )
        if self.queue < 0:
            raise UsageError(f"a queue of {self.queue} can't be", "give 0 or more")
        limits = ("max_wait", "request_seconds", "stall_seconds", "max_connections")
        for name in (*limits, "max_characters"):
            if not getattr(self, name) > 0:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is {getattr(self, name):g}", "give more than 0")
        if self.api_key is not None and len(self.api_key) < _SHORTEST_KEY:
            raise UsageError(
                f"the API key has less than {_SHORTEST_KEY} characters",
                "make one with: openssl rand -hex 24",
            )
        if self.api_key is None and not is_loopback(self.host):
            raise UsageError(
                f"without an API key this does not listen on {self.host}, which others can reach",
                "set COSYVOICE_CPU_SERVE_API_KEY, or leave --host at 127.0.0.1",
            )

    def shown(self) -> dict[str, Any]:
        """All values, for the log; of the key only whether there is one."""
        values = asdict(self)
        values["api_key"] = "set" if self.api_key else "none"
        values["speakers"] = str(self.speakers) if self.speakers else None
        return values


def is_loopback(host: str) -> bool:
    """Whether `host` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
