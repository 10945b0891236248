"""What commands print, on whatever terminal or pipe."""

from __future__ import annotations

from pathlib import Path

from support.command_line import CLIP, run


def test_no_colour_reaches_a_pipe(tiny_bundle: Path) -> None:
    outcome = run("info", tiny_bundle, variables={"FORCE_COLOR": "", "TERM": "xterm-256color"})
    assert "\x1b" not in outcome.stdout + outcome.stderr


def test_a_name_with_a_line_end_stays_on_one_line() -> None:
    outcome = run("info", "no\nsuch\x1b[31m")
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[0] == r"error: there is no bundle no\nsuch\x1b[31m"


def test_a_name_that_the_terminal_can_t_show_is_escaped(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "声"
    bundle.symlink_to(tiny_bundle)
    outcome = run("export", bundle, "--output", tmp_path / "x")
    assert outcome.stderr.startswith(f"error: {bundle} holds none of ")
    speaker = ("cache-speaker", bundle, "声音", "--audio", CLIP, "--speakers", tmp_path / "mine")
    outcome = run(*speaker, variables={"PYTHONIOENCODING": "latin-1"})
    assert outcome.code == 0
    assert r"\u58f0\u97f3.safetensors: 5.3 s" in outcome.stdout
