"""The architecture page names the places that a new generation touches, and no other is needed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from support.places import DOCS, ROOT

PACKAGE = ROOT / "cosyvoice_cpu"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
SECTION = PAGE.split("### A generation", 1)[1].split("\n## ", 1)[0]
PLACES = re.findall(r"^\| `([\w./]+)` \|", SECTION, re.MULTILINE)
GENERATION = "cosyvoice3"

# What names one generation without being a place for the next one.
OTHERS = {
    "checkpoint/folder.py": "official names of all generations, to tell what a folder is",
    "checkpoint/synthetic_text.py": "a random checkpoint has the layout of one generation",
    "networks/synthetic_checkpoint.py": "the same",
    "evaluation/bench/inputs.py": "which random checkpoints there are",
    "cli/bench.py": "the same, in the help",
    "cli/doctor.py": "the model whose speed it predicts",
    "frontend/tokenizer.py": "the default of TextTokenizer.load, for callers from outside",
}


def names_and_texts(tree: ast.Module) -> Iterator[str]:
    """Identifiers, imported modules and strings of a module, docstrings left out."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            yield str(node.value)


def test_a_generation_takes_at_most_five_files_which_the_present_one_has() -> None:
    assert 1 <= len(PLACES) <= 5
    for place in PLACES:
        assert (PACKAGE / place.replace("NAME", GENERATION)).is_file(), place


def test_no_other_file_knows_a_generation_by_name() -> None:
    knowing = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if any(
            GENERATION in text.lower()
            for text in names_and_texts(ast.parse(file.read_text(encoding="utf-8")))
        )
    }
    places = {place.replace("NAME", GENERATION) for place in PLACES}
    assert knowing - places == set(OTHERS)
