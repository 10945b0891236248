"""The sentence list, the table's formats and the floors."""

from __future__ import annotations

import csv
import io
import json

import pytest
from support.bundle_examples import make_bundle

from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.formats import (
    remarks,
    to_csv,
    to_json,
    to_json_text,
    to_markdown,
)
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, named
from cosyvoice_cpu.evaluation.quality.sentences import Sentence, all_sentences, first_sentences
from cosyvoice_cpu.evaluation.quality.table import ItemResult, QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import (
    ALONE,
    Floor,
    Verdict,
    floors_against,
    judge,
    passes,
)
from cosyvoice_cpu.evaluation.quality.words import text_errors

# The list of sentences


def test_the_list_has_66_english_sentences_of_5_to_25_words_then_10_chinese_ones():
    sentences = all_sentences()
    assert [sentence.language for sentence in sentences] == ["en"] * 66 + ["zh"] * 10
    assert all(5 <= len(sentence.text.split()) <= 25 for sentence in sentences[:66])
    assert len({sentence.name for sentence in sentences}) == 76
    assert len({sentence.text for sentence in sentences}) == 76


@pytest.mark.parametrize("count", [6, 12, 20, 66])
def test_the_first_sentences_are_balanced(count):
    kinds = [sentence.kind for sentence in first_sentences(count)]
    counts = [kinds.count(kind) for kind in set(kinds)]
    assert len(counts) == 6
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("count", [0, -1, 77])
def test_a_number_of_sentences_that_the_list_has_not_is_refused(count):
    with pytest.raises(UsageError) as caught:
        first_sentences(count)
    assert caught.value.what == f"{count} sentences can't be taken from a list of 76"


# The table


def example() -> QualityTable:
    one, two = (
        ItemResult(Sentence("en01", "en", "plain", "a b | c")),
        ItemResult(Sentence("en02", "en", "plain", "d")),
    )
    for item, value in ((one, 0.9), (two, 1.0)):
        item.put("mel_correlation", value)
    one.heard["candidate"], one.word_errors["candidate"] = "a x c", text_errors("a b c", "a x c")
    one.put("word_error_rate", 1 / 3, 3, of="candidate")
    two.put("word_error_rate", 0.0, 1, of="candidate")
    return QualityTable("first", "second", 0, MEASURES, [one, two], ["ears: none"])


VERDICTS = [Verdict(Floor("mel_correlation", "both", "at_least", 0.99), 0.95, False)]


def test_sums_are_weighted_means_with_intervals():
    rows = {row.measure.name: row for row in example().rows()}
    assert list(rows) == ["mel_correlation", "word_error_rate"]
    assert rows["mel_correlation"].interval.value == pytest.approx(0.95)
    assert rows["word_error_rate"].interval.value == pytest.approx(1 / 4)
    assert rows["word_error_rate"].items == 2


def test_further_draws_of_a_sentence_are_averaged_where_they_have_a_value():
    first, second, third = (ItemResult(all_sentences()[0]) for _ in range(3))
    first.put("word_error_rate", 0.5, 10, of="candidate")
    first.put("kl_nats", 0.25)
    second.put("word_error_rate", 0.0, 10, of="candidate")
    first.average([second, third])
    assert first.cells["word_error_rate", "candidate"].value == 0.25
    assert first.cells["word_error_rate", "candidate"].weight == 10
    assert first.cells["kl_nats", "both"].value == 0.25


def test_markdown_has_sums_items_and_what_was_heard():
    text = to_markdown(example(), VERDICTS)
    assert "# Quality of second" in text
    assert "2 sentences, seed 0. Reference: first." in text
    row = next(line for line in text.splitlines() if line.startswith("| log-mel correlation"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == "log-mel correlation,both,2,0.9500,0.9000 to 1.0000,>= 0.99,FAIL".split(",")
    assert "Not measured: ears: none" in text
    assert "| en01 | 0.9000 |" in text
    assert "| en01 | a b \\| c |  | a x c |" in text


def test_csv_has_a_line_per_item_and_three_of_sums():
    rows = list(csv.DictReader(io.StringIO(to_csv(example()))))
    assert [row["item"] for row in rows] == ["en01", "en02", "all", "low", "high"]
    assert rows[0]["text"] == "a b | c"
    assert rows[0]["heard.candidate"] == "a x c"
    assert float(rows[2]["word_error_rate.candidate"]) == pytest.approx(0.25)
    low, high = (float(rows[place]["mel_correlation"]) for place in (3, 4))
    assert low <= float(rows[2]["mel_correlation"]) <= high


def test_json_holds_every_value_and_the_verdict():
    content = to_json(example(), VERDICTS)
    assert json.loads(to_json_text(example(), VERDICTS)) == content
    assert content["passed"] is False
    assert content["verdicts"][0]["limit"] == 0.99
    assert content["items"][0]["word_errors"]["candidate"] == {
        "substitutions": 1,
        "insertions": 0,
        "deletions": 0,
        "words": 3,
    }
    assert content["not_measured"] == ["ears: none"]


def test_a_measure_that_does_not_exist_is_refused():
    assert [measure.name for measure in named(["kl_nats"])] == ["kl_nats"]
    with pytest.raises(UsageError, match="there is no measure 'mos'"):
        named(["mos"])


# Floors


def spoken(error_rate: float) -> QualityTable:
    item = ItemResult(Sentence("en01", "en", "plain", "a"))
    item.put("word_error_rate", error_rate, 10, of="reference")
    item.put("word_error_rate", 1.0, 10, of="candidate")
    item.put("word_errors_added", 1.0 - error_rate, 10)
    return QualityTable("a", "b", 0, MEASURES, [item])


def test_words_are_judged_where_the_reference_speaks():
    verdicts = judge(spoken(0.03).rows(), floors_against([]))
    assert [(v.floor.measure, v.passed) for v in verdicts] == [("word_errors_added", False)]
    assert not passes(verdicts)


def test_words_are_not_judged_where_the_reference_is_untrained():
    verdicts = judge(spoken(0.98).rows(), floors_against([]))
    assert [verdict.passed for verdict in verdicts] == [None]
    assert remarks(spoken(0.98), verdicts) == [
        "not judged: word_errors_added, of the reference, 98% of the words are wrong"
    ]
    assert passes(verdicts)


def test_a_voice_alone_has_to_be_understood():
    rows = [row for row in spoken(0.03).rows() if row.of == "candidate"]
    assert [verdict.passed for verdict in judge(rows, ALONE)] == [False]


def test_a_quantized_component_has_the_looser_limit_and_only_it(tmp_path):
    manifest = read_manifest(make_bundle(tmp_path / "bundle"))
    strict = {floor.measure: floor.limit for floor in floors_against([manifest])}
    data = manifest.components["vocoder"]
    import msgspec

    int8 = msgspec.structs.replace(data, precision="int8")
    quantized = msgspec.structs.replace(manifest, components={"vocoder": int8})
    loose = {floor.measure: floor.limit for floor in floors_against([manifest, quantized])}
    changed = {name for name in strict if strict[name] != loose[name]}
    assert changed == {
        "voicing_agreement",
        "vocoder_snr_db",
        "audio_correlation",
        "loudness_change_db",
    }
