"""What may be asked of the server's operator, and what is refused."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.serving.settings import Settings, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    Settings(host=host).check()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_nothing_else_is_listened_on_without_one(host: str) -> None:
    with pytest.raises(UsageError, match="without an API key") as refusal:
        Settings(host=host).check()
    assert refusal.value.hint == (
        "set COSYVOICE_CPU_SERVE_API_KEY, or leave --host at 127.0.0.1"
    )  # fmt: skip
    Settings(host=host, api_key="long enough").check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70000}, "the port 70000 is outside 0 to 65535"),
        ({"workers": 0}, "0 workers can't be used"),
        ({"queue": -1}, "a queue of -1 can't be"),
        ({"max_wait": 0}, "--max-wait is 0"),
        ({"stall_seconds": float("nan")}, "--stall-seconds is nan"),
        ({"max_characters": 0}, "--max-characters is 0"),
        ({"max_connections": 0}, "--max-connections is 0"),
        ({"api_key": "short"}, "the API key has less than 8 characters"),
    ],
)
def test_what_can_not_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Settings(**options).check()
    assert refusal.value.what == message


def test_what_is_shown_holds_no_secret() -> None:
    shown = Settings(api_key="the secret key").shown()
    assert "secret" not in str(shown)
    assert shown["api_key"] == "set"
