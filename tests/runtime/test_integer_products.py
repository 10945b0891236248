"""Which integer kernels ONNX Runtime is asked for."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.runtime import onnxruntime_engine
from cosyvoice_cpu.runtime.integer_products import fast_products_are_exact
from cosyvoice_cpu.system.machine import describe_machine

_ENTRY = "session.x64quantprecision"


def test_products_are_exact_where_the_processor_has_vnni():
    sets = describe_machine().instruction_sets
    if sets is None or "VNNI" not in sets:
        pytest.skip("this system does not say whether its processor has VNNI")
    if sets["AVX2"]:
        assert fast_products_are_exact() == sets["VNNI"]


@pytest.mark.parametrize("exact", [True, False])
def test_slow_kernels_are_asked_for_only_where_fast_ones_overflow(monkeypatch, exact):
    monkeypatch.setattr(onnxruntime_engine, "fast_products_are_exact", lambda: exact)
    options = onnxruntime_engine.session_options(1)
    if exact:
        with pytest.raises(RuntimeError):  # ONNX Runtime knows no such entry
            options.get_session_config_entry(_ENTRY)
    else:
        assert options.get_session_config_entry(_ENTRY) == "1"
