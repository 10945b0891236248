"""The list of measures."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.measures import named


def test_a_measure_that_does_not_exist_is_refused():
    assert [measure.name for measure in named(["kl_nats"])] == ["kl_nats"]
    with pytest.raises(UsageError, match="there is no measure 'beauty'"):
        named(["beauty"])
