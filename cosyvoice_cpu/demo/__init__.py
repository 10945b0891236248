"""The embedded demo: a finished bundle of a small voice, with its speakers.

What it is made from, and the program that makes it, lie outside the wheel: `demo_voice/` and
`tools/make_demo_bundle.py` of the repository.
"""

from pathlib import Path

DEMO_BUNDLE = Path(__file__).parent / "bundle"
"""The folder of the bundle; like every bundle read-only at run time."""
