"""Speaks on the page of a running server, and takes its picture.

cosyvoice-cpu serve &
python -m tools.screenshot_page http://127.0.0.1:8000 docs/page.png
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tools.browser import browser


def main(
    url: Annotated[str, typer.Argument(help="Of the server.")],
    output: Annotated[Path, typer.Argument(help="A PNG file.")],
) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.open(url)
        page.until("document.querySelectorAll('#voice option').length")
        page.value("document.getElementById('speak').click()")
        page.until("document.getElementById('status').textContent === 'Done.'")
        output.write_bytes(page.screenshot())


if __name__ == "__main__":
    typer.run(main)
