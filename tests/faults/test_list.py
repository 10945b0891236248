"""The page about faults names the tests that show what it says."""

from __future__ import annotations

import inspect
import math
import re
from importlib import import_module
from pathlib import Path

from support.places import DOCS

HERE = Path(__file__).parent
PAGE = (DOCS / "faults.md").read_text(encoding="utf-8")


def test_every_file_of_faults_is_on_the_page_and_no_other() -> None:
    files = {path.name for path in HERE.glob("test_*.py")} - {Path(__file__).name}
    assert set(re.findall(r"\| `(test_\w+\.py)` \|", PAGE)) == files


def test_there_are_hundreds_of_named_inputs() -> None:
    """The seeded thousands of test_fuzz.py not counted."""
    named = 0
    for path in HERE.glob("test_*.py"):
        module = import_module(f"{'.'.join(HERE.parts[-2:])}.{path.stem}")
        for name, function in vars(module).items():
            if (
                name.startswith("test_")
                and inspect.isfunction(function)
                and "fuzz" not in path.stem
            ):
                marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.args]
                named += math.prod(len(mark.args[1]) for mark in marks)
    assert named >= 500
