"""The page about bad inputs says what the tests do."""

from __future__ import annotations

import re

from support.fault_list import DOC, page


def test_the_page_lists_the_inputs_as_they_are() -> None:
    assert DOC.read_text(encoding="utf-8") == page(), (
        "run: python tests/fault_list.py > docs/faults.md"
    )


def test_there_are_many_more_than_sixty_named_inputs() -> None:
    found = re.search(r"## Named inputs: (\d+)", page())
    assert found
    assert int(found[1]) >= 60
