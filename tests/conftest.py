"""What many tests share: a tiny checkpoint, its bundle, and a cache of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A first example that loads something, on a busy machine, is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No variable of the user's reaches the tests, and nothing reaches the user's cache."""
    before = {name: os.environ[name] for name in os.environ if name.startswith("COSYVOICE_CPU_")}
    for name in before:
        del os.environ[name]
    os.environ["COSYVOICE_CPU_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["COSYVOICE_CPU_CACHE"]
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Ctrl-C reaches the tests' processes also where the runner was started with it ignored.

    A shell does that to what it starts in the background, and children inherit it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official folder of small random networks, front end included. Not to be changed."""
    from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint

    return make_synthetic_checkpoint(
        tmp_path_factory.mktemp("checkpoints") / "tiny-cosyvoice3", size="tiny"
    )


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_checkpoint` for up to 20 s, without speakers. Not to be changed."""
    from cosyvoice_cpu.export.exporter import export_checkpoint

    bundle = tmp_path_factory.mktemp("bundles") / "tiny"
    export_checkpoint(tiny_checkpoint, bundle, max_seconds=20.0)
    return bundle
