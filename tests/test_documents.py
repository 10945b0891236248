"""What the documents name is there: files, headings, modules, commands, options."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
from support.places import ROOT

from cosyvoice_cpu.cli import app
from cosyvoice_cpu.evaluation.parity.outputs import GATE_MEASURES
from cosyvoice_cpu.evaluation.quality.measures import MEASURES
from cosyvoice_cpu.quantization.recipes.recipe import parse_recipe, recipe_names

PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    and path.relative_to(ROOT).parts[0] not in ("tests", "build", "dist")
)
NOW = [page for page in PAGES if page.name not in ("CHANGELOG.md", "decisions.md")]  # not history
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_page_of_today = pytest.mark.parametrize(
    "page", NOW, ids=lambda page: str(page.relative_to(ROOT))
)


def anchors(page: Path) -> set[str]:
    """The headings of a page as a link names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page_of_today
def test_every_module_that_is_named_exists(page: Path) -> None:
    names = re.findall(
        r"\b(?:cosyvoice_cpu|training|tools)(?:\.[A-Za-z_]\w*)+", page.read_text(encoding="utf-8")
    )
    for name in sorted(set(names)):
        module, _, attribute = name.rpartition(".")
        if attribute.isupper() or attribute in ("md", "py", "json", "toml"):  # NAME, or a file
            continue
        try:
            import_module(name)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), attribute), name


@each_page_of_today
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"[\w./-]+/[\w.-]+\.(?:py|toml|tsv)\b", text)):
        pattern = name.replace("NAME", "*")  # a placeholder
        places = (ROOT, ROOT / "cosyvoice_cpu", page.parent)
        assert any(next(place.glob(pattern), None) for place in places), name


def lines_of_code(page: Path) -> list[str]:
    """The lines of code blocks, and code within lines that begins with the program's name."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(.+)$", text, re.MULTILINE)
    return [*lines, *re.findall(r"`(cosyvoice-cpu [^`]+)`", text)]


@each_page_of_today
def test_every_command_has_the_options_that_are_named(page: Path) -> None:
    for line in lines_of_code(page):
        for part in re.split(r"&&|\|", line.partition("#")[0]):
            if not part.strip().startswith("cosyvoice-cpu "):
                continue
            _, command, *arguments = shlex.split(part)
            if command.startswith("-") or command.isupper():
                continue
            assert command in COMMANDS, line
            known = {name for param in COMMANDS[command].params for name in param.opts}
            named = {argument.partition("=")[0] for argument in arguments if argument[:2] == "--"}
            assert named <= known | {"--help", "--debug"}, line


@each_page_of_today
def test_every_test_that_is_named_exists(page: Path) -> None:
    for line in lines_of_code(page):
        for name in re.findall(r"pytest.*?\s(tests[\w./]*)", line):
            assert (ROOT / name).exists(), line


def test_the_manual_of_quantization_has_every_recipe_and_every_measure_of_the_gate() -> None:
    page = (ROOT / "docs/quantization.md").read_text(encoding="utf-8")
    recipes = page.split("## Which recipe", 1)[1].split("\n## ", 1)[0]
    assert sorted(re.findall(r"^\| `([\w-]+)`", recipes, re.MULTILINE)) == recipe_names()
    gate = page.split("## The gate", 1)[1].split("\n## ", 1)[0]
    rows = "".join(re.findall(r"^\| (`\w+`[^|]*) \|", gate, re.MULTILINE))
    assert set(re.findall(r"\w+", rows)) == {measure.name for measure in GATE_MEASURES}


def test_the_manuals_recipe_is_one() -> None:
    page = (ROOT / "docs/quantization.md").read_text(encoding="utf-8")
    [recipe] = [
        block
        for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        if block.startswith("name =")
    ]
    assert parse_recipe(recipe.encode(), "docs").names == ["speech_lm", "flow_estimator"]


def test_every_measure_of_speech_quality_is_explained() -> None:
    page = (ROOT / "docs/quality.md").read_text(encoding="utf-8")
    measures = page.split("## The measures", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"^\| `(\w+)` \|", measures, re.MULTILINE)
    assert sorted(named) == sorted(measure.name for measure in MEASURES)
