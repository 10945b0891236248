"""The cache of traced graphs: what is stored is found, what can't be relied on is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.networks_golden import stages

from cosyvoice_cpu.export import trace, trace_cache
from cosyvoice_cpu.networks.deployed.flow_encoder import FlowEncoder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path))
    return tmp_path / "traces"


def test_what_was_stored_is_found_under_its_own_key_alone(cache: Path) -> None:
    assert trace_cache.look_up(b"key") is None
    trace_cache.store(b"key", b"model")
    assert trace_cache.look_up(b"key") == b"model"
    assert trace_cache.look_up(b"another") is None


def test_another_version_of_what_traces_finds_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_cache.store(b"key", b"model")
    trace_cache._tracer.cache_clear()
    monkeypatch.setattr(trace_cache, "version", lambda name: "0")
    assert trace_cache.look_up(b"key") is None
    trace_cache._tracer.cache_clear()


@pytest.mark.parametrize("damage", [b"", b"short", bytes(40)])
def test_a_damaged_file_is_as_good_as_none(damage: bytes, cache: Path) -> None:
    trace_cache.store(b"key", b"model")
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert trace_cache.look_up(b"key") is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_file_that_others_may_write_is_not_read(cache: Path) -> None:
    trace_cache.store(b"key", b"model")
    (file,) = cache.iterdir()
    file.chmod(0o666)
    assert trace_cache.look_up(b"key") is None


def test_without_a_cache_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_cache, "cache_folder", lambda: None)
    trace_cache.store(b"key", b"model")
    assert trace_cache.look_up(b"key") is None


def test_a_later_process_does_not_trace_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_kept", {})
    spec = stages().generation.components["flow_encoder"]
    network = FlowEncoder.from_reference(stages().flow_encoder)
    first = trace.traced(spec, spec.graphs[0], network)
    trace._kept.clear()
    monkeypatch.delattr(trace, "_trace")
    assert trace.traced(spec, spec.graphs[0], network) == first
