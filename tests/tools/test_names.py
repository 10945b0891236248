"""The list of developers' programs is complete."""

from __future__ import annotations

import re
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"


def test_the_readme_lists_every_program_and_no_other() -> None:
    readme = (TOOLS / "README.md").read_text(encoding="utf-8")
    programs = [
        f"tools.{path.stem}"
        for path in TOOLS.glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    ]
    assert sorted(re.findall(r"^\| `(tools\.\w+)` \|", readme, re.MULTILINE)) == sorted(programs)
