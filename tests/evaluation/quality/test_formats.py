"""A quality table as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json

import pytest

from cosyvoice_cpu.evaluation.quality.formats import (
    to_csv,
    to_json,
    to_json_text,
    to_markdown,
)
from cosyvoice_cpu.evaluation.quality.intelligibility import text_errors
from cosyvoice_cpu.evaluation.quality.measures import MEASURES
from cosyvoice_cpu.evaluation.quality.sentences import Sentence
from cosyvoice_cpu.evaluation.quality.table import ItemResult, QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import (
    Decision,
    Threshold,
)


def example() -> QualityTable:
    one, two = (
        ItemResult(Sentence("en01", "en", "plain", "a b | c")),
        ItemResult(Sentence("en02", "en", "plain", "d")),
    )
    for item, value in ((one, 0.9), (two, 1.0)):
        item.put("mel_correlation", value)
    one.transcripts["candidate"], one.word_errors["candidate"] = (
        "a x c",
        text_errors("a b c", "a x c"),
    )
    one.put("word_error_rate", 1 / 3, 3, of="candidate")
    two.put("word_error_rate", 0.0, 1, of="candidate")
    return QualityTable("first", "second", 0, MEASURES, [one, two], ["words: none"])


DECISIONS = [Decision(Threshold("mel_correlation", "both", "at_least", 0.99), 0.95, False)]


def test_markdown_has_sums_items_and_transcripts():
    text = to_markdown(example(), DECISIONS)
    assert "# Quality of second" in text
    assert "2 sentences, seed 0. Reference: first." in text
    row = next(line for line in text.splitlines() if line.startswith("| log-mel correlation"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == "log-mel correlation,both,2,0.9500,0.9000 to 1.0000,>= 0.99,FAIL".split(",")
    assert "Not measured: words: none" in text
    assert "| en01 | 0.9000 |" in text
    assert "| en01 | a b \\| c |  | a x c |" in text


def test_csv_has_a_line_per_item_and_three_of_sums():
    rows = list(csv.DictReader(io.StringIO(to_csv(example()))))
    assert [row["item"] for row in rows] == ["en01", "en02", "all", "low", "high"]
    assert rows[0]["text"] == "a b | c"
    assert rows[0]["transcript.candidate"] == "a x c"
    assert float(rows[2]["word_error_rate.candidate"]) == pytest.approx(0.25)
    low, high = (float(rows[place]["mel_correlation"]) for place in (3, 4))
    assert low <= float(rows[2]["mel_correlation"]) <= high


def test_json_holds_every_value_and_the_decision():
    content = to_json(example(), DECISIONS)
    assert json.loads(to_json_text(example(), DECISIONS)) == content
    assert content["passed"] is False
    assert content["decisions"][0]["limit"] == 0.99
    assert content["items"][0]["word_errors"]["candidate"] == {
        "substitutions": 1,
        "insertions": 0,
        "deletions": 0,
        "words": 3,
    }
    assert content["not_measured"] == ["words: none"]
