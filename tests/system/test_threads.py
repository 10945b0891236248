"""How many threads are used: the explicit number, the variable, the default."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.system import threads
from cosyvoice_cpu.system.threads import THREADS_VARIABLE, default_threads, resolve_threads


def test_an_explicit_number_of_threads_wins_over_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert resolve_threads(2) == 2
    assert resolve_threads() == 3
    monkeypatch.delenv(THREADS_VARIABLE)
    assert resolve_threads() == default_threads() >= 1


@pytest.mark.parametrize("text", ["two", "0", "-1", "1.5", "99999"])
def test_a_wrong_threads_variable_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, text)
    with pytest.raises(UsageError):
        resolve_threads()


def test_far_more_threads_than_processors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cpus", lambda: {0, 1})
    assert resolve_threads(16) == 16
    with pytest.raises(UsageError, match="1024 threads can't be used") as refused:
        resolve_threads(1024)
    assert refused.value.hint == "give a number from 1 to 16"
    monkeypatch.setattr(threads, "usable_cpus", lambda: set(range(64)))
    assert resolve_threads(256) == 256
