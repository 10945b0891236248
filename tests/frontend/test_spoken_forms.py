"""A table of texts in many languages and how they are spoken: `spoken-forms.tsv`.

What the grammars get wrong and nothing here mends is in `spoken-limits.tsv`, with the right form
and the reason. Where a language has no grammar, numbers stay as they are, for the model to read.
"""

from __future__ import annotations

import csv

import pytest
from support.places import DATA

from cosyvoice_cpu.frontend.grammars import GRAMMARS, normalizer_installed
from cosyvoice_cpu.frontend.marks import MarkTable
from cosyvoice_cpu.frontend.normalizer import normalize
from cosyvoice_cpu.frontend.reading import Reader, ReadingOptions, Sentence

pytestmark = pytest.mark.skipif(not normalizer_installed(), reason="wetext is not installed")


def table(name: str) -> list[dict[str, str]]:
    with (DATA / "frontend" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


FORMS, LIMITS = table("spoken-forms.tsv"), table("spoken-limits.tsv")


def spoken(text: str, **options) -> str:
    items = Reader(MarkTable(), ReadingOptions(**options)).items(text)
    return "".join(item.text for item in items if isinstance(item, Sentence))


def test_the_table_has_150_texts_and_all_languages_of_the_field() -> None:
    assert len(FORMS) + len(LIMITS) >= 150
    languages = {row["language"] for row in FORMS}
    assert languages >= set("en zh de fr es it nl tr id ja ko ru ar mixed".split())


@pytest.mark.parametrize("row", FORMS, ids=lambda row: row["text"])
def test_a_text_is_spoken_as_a_reader_would(row: dict[str, str]) -> None:
    assert spoken(row["text"]) == row["spoken"]
    assert normalize(row["text"]) == row["spoken"]


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row["text"])
def test_a_known_limit_is_what_the_list_says(row: dict[str, str]) -> None:
    assert spoken(row["text"]) == row["comes"] != row["right"]
    assert row["reason"]


@pytest.mark.parametrize(
    "row",
    [row for row in FORMS if row["language"] not in (*GRAMMARS, "mixed")],
    ids=lambda row: row["text"],
)
def test_without_a_grammar_a_text_stays_as_it_is(row: dict[str, str]) -> None:
    assert row["spoken"] == row["text"]
    assert spoken(row["text"], language=row["language"]) == row["text"]


@pytest.mark.parametrize(
    "row", [row for row in FORMS if row["language"] in GRAMMARS], ids=lambda row: row["text"]
)
def test_stating_a_language_of_the_text_changes_nothing(row: dict[str, str]) -> None:
    if "I have" not in row["text"]:  # a sentence of the other language
        assert spoken(row["text"], language=row["language"]) == row["spoken"]
