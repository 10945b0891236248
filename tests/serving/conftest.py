"""Voices that are listed, and a server on a synthesizer that obeys a script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.served import ScriptedSynthesizer, Served, serving


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the names of two voices; the scripted synthesizer opens no file."""
    folder = tmp_path_factory.mktemp("voices")
    for name in ("anna", "bob"):
        (folder / f"{name}.safetensors").touch()
    return folder


@pytest.fixture
def synthesizer() -> ScriptedSynthesizer:
    return ScriptedSynthesizer()


@pytest.fixture
def served(synthesizer: ScriptedSynthesizer, voices: Path) -> Iterator[Served]:
    with serving(synthesizer, [voices]) as server:
        yield server
