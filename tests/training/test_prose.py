"""Natural sentences beside the made ones."""

from __future__ import annotations

import json

import pytest

from training.prose import example_sentences, speech_sentences


def test_prose_is_whole_sentences_that_need_no_guess_at_how_they_are_read(tmp_path):
    head = "  1 a licence line\n"
    gloss = '1 n | a stop; "the goalie made a brilliant save"; "1984 was cold"; "NATO came home"'
    (tmp_path / "data.noun").write_text(f"{head}{gloss}\n")
    (tmp_path / "data.verb").write_text('2 | be; "is it late?"; "too short"\n')
    for name in ("data.adj", "data.adv"):
        (tmp_path / name).write_text('3 | very; "the goalie made a brilliant save"\n')
    assert example_sentences(tmp_path) == ("Is it late?", "The goalie made a brilliant save.")


def test_prose_names_the_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.noun"):
        example_sentences(tmp_path)


def test_speeches_give_the_sentences_that_are_plain_and_long_enough(tmp_path):
    text = (
        "Thank you. Let us\u2019s all look to the future now. In 1999 we did not go there at all."
    )
    (tmp_path / "1999.json").write_text(json.dumps({"year": 1999, "text": text}))
    (tmp_path / "1899.json").write_text(json.dumps({"year": 1899, "text": text * 2}))
    assert speech_sentences(tmp_path) == ("Let us's all look to the future now.",)
    with pytest.raises(FileNotFoundError, match="no speech"):
        speech_sentences(tmp_path / "none")
