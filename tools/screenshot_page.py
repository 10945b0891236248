"""Speaks on the page of a running server, and takes its picture.

cosyvoice-cpu serve &
python -m tools.screenshot_page http://127.0.0.1:8000 docs/page.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tools.browser import browser


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshot_page")
    parser.add_argument("url", help="of the server")
    parser.add_argument("output", type=Path, help="a PNG file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.open(arguments.url)
        page.until("document.querySelectorAll('#voice option').length")
        page.value("document.getElementById('speak').click()")
        page.until("document.getElementById('status').textContent === 'Done.'")
        arguments.output.write_bytes(page.screenshot())


if __name__ == "__main__":
    main()
