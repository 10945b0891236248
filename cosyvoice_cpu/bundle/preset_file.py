"""Solver presets in a file of their own: what a flow is to be solved with, and how it was judged.

    {"presets": {"default": {...}, "fast": {...}}, "results": [...]}

The records are the manifest's `synthesis.solver_presets` and `quality.results`. So a distilled flow
brings the few steps that it was trained for, and presets judged once are not judged again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, QualityResult, SolverPreset, Word
from cosyvoice_cpu.bundle.strict_json import parse_json
from cosyvoice_cpu.errors import UsageError

_MOST_BYTES: Final = 2**20
_HINT: Final = "docs/bundle.md explains the fields of presets and results"


class PresetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of such a file."""

    presets: dict[Word, SolverPreset]  # "default" may be missing: then it is the checkpoint's
    results: list[QualityResult]  # of presets that were judged against the default

    def results_of(self, preset: str) -> list[QualityResult]:
        """How one of them was judged."""
        return [result for result in self.results if result.preset == preset]


def read_preset_file(path: Path) -> PresetFile:
    """Raises: UsageError naming the file and the field, or a preset that was not judged good."""
    try:
        with path.open("rb") as opened:
            text = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the presets {path} can't be read ({error.strerror})", _HINT) from error
    try:
        if len(text) > _MOST_BYTES:
            raise ValueError("it is too long")
        parse_json(text)
        content = msgspec.json.decode(text, type=PresetFile)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(f"presets {path}: {error}", _HINT) from error
    for name in content.presets:
        results = content.results_of(name)
        if name != DEFAULT_PRESET and not (results and all(result.passed for result in results)):
            raise UsageError(
                f"presets {path}: {name!r} was not judged as good as the default",
                "search and judge presets with `cosyvoice-cpu quantize --recipe fast`",
            )
    return content


def write_preset_file(content: PresetFile) -> bytes:
    """The one text of `content`."""
    compact = msgspec.json.encode(content, order="deterministic")
    return msgspec.json.format(compact, indent=2) + b"\n"
