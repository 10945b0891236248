"""The list of developers' programs is complete, and each says what it takes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
WITHOUT_OPTIONS = {"make_probe_graphs", "write_cli_reference"}
LIBRARIES = {"__init__", "browser", "damaged_files", "failures", "fuzzed_readers"}


def test_the_readme_lists_every_program_and_no_other() -> None:
    readme = (TOOLS / "README.md").read_text(encoding="utf-8")
    programs = [
        f"tools.{path.stem}"
        for path in TOOLS.glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    ]
    assert sorted(re.findall(r"^\| `(tools\.\w+)` \|", readme, re.MULTILINE)) == sorted(programs)


def test_every_program_is_described_without_being_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["tool", "--help"])
    for path in sorted(TOOLS.glob("*.py")):
        module = import_module(f"tools.{path.stem}")
        program = getattr(module, "main", None) or getattr(module, "app", None)
        if program:
            with pytest.raises(SystemExit) as ended:
                program()
            assert ended.value.code == 0
            assert "usage: " in capsys.readouterr().out.lower()
        else:
            assert path.stem in {*WITHOUT_OPTIONS, *LIBRARIES}
