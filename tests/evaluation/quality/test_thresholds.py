"""Thresholds: which of them apply, and what becomes of them."""

from __future__ import annotations

import pytest
from support.bundle_examples import make_bundle

from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.evaluation.quality.formats import (
    remarks,
)
from cosyvoice_cpu.evaluation.quality.measures import MEASURES
from cosyvoice_cpu.evaluation.quality.sentences import Sentence
from cosyvoice_cpu.evaluation.quality.table import ItemResult, QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import (
    ALONE,
    decide,
    passes,
    thresholds_against,
)


def spoken(error_rate: float) -> QualityTable:
    item = ItemResult(Sentence("en01", "en", "plain", "a"))
    item.put("word_error_rate", error_rate, 10, of="reference")
    item.put("word_error_rate", 1.0, 10, of="candidate")
    item.put("word_errors_added", 1.0 - error_rate, 10)
    return QualityTable("a", "b", 0, MEASURES, [item])


def test_words_are_judged_where_the_reference_speaks():
    decisions = decide(spoken(0.03).rows(), thresholds_against([]))
    assert [(v.threshold.measure, v.passed) for v in decisions] == [("word_errors_added", False)]
    assert not passes(decisions)


def test_words_are_not_judged_where_the_reference_is_untrained():
    decisions = decide(spoken(0.98).rows(), thresholds_against([]))
    assert [decision.passed for decision in decisions] == [None]
    assert remarks(spoken(0.98), decisions) == [
        "not judged: word_errors_added, of the reference, 98% of the words are wrong"
    ]
    assert passes(decisions)


@pytest.mark.parametrize(("lost", "passed"), [(-0.3, True), (0.09, True), (0.11, False)])
def test_a_tenth_of_a_point_of_mos_may_be_lost(lost: float, passed: bool):
    table = spoken(0.03)
    table.items[0].put("mos_lost", lost)
    decisions = decide(table.rows(), thresholds_against([]))
    assert {d.threshold.measure: d.passed for d in decisions}["mos_lost"] is passed


def test_a_voice_alone_has_to_be_understood():
    rows = [row for row in spoken(0.03).rows() if row.of == "candidate"]
    assert [decision.passed for decision in decide(rows, ALONE)] == [False]


def test_a_quantized_component_has_the_looser_limit_and_only_it(tmp_path):
    manifest = read_manifest(make_bundle(tmp_path / "bundle"))
    strict = {threshold.measure: threshold.limit for threshold in thresholds_against([manifest])}
    data = manifest.components["vocoder"]
    import msgspec

    int8 = msgspec.structs.replace(data, precision="int8")
    quantized = msgspec.structs.replace(manifest, components={"vocoder": int8})
    loose = {
        threshold.measure: threshold.limit
        for threshold in thresholds_against([manifest, quantized])
    }
    changed = {name for name in strict if strict[name] != loose[name]}
    assert changed == {
        "voicing_agreement",
        "vocoder_snr_db",
        "audio_correlation",
        "loudness_change_db",
    }
