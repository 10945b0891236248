"""Searches the embedded voice's solver presets and keeps them, with how they were judged.

python -m tools.judge_demo_presets [--recipe NAME|FILE.toml] ...

Writes `demo_voice/presets.json`, which `tools.make_demo_bundle` reads, and prints the curve of
quality against cost. The recipes are those of `demo_voice/presets/`, a preset each; `fast` tries
all candidates. It takes some ten minutes of processor time for each that is judged, and the
packages of docs/quality.md; what was measured before is not measured again. Exit code 3 if all are
refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, QualityResult, SolverPreset
from cosyvoice_cpu.bundle.preset_file import PresetFile, write_preset_file
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.cli.quantize import print_presets
from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.quantization import quantize_bundle
from tools.make_demo_bundle import PRESETS, SOURCES, make_demo_bundle

RECIPES = sorted((SOURCES / "presets").glob("*.toml"))


def judge_demo_presets(recipes: Sequence[str], folder: Path) -> None:
    """Write what the recipes' searches find; `folder` takes bundles. Raises: CosyVoiceError."""
    searched = folder / "float32"
    make_demo_bundle(searched, "float32", presets=None)
    presets: dict[str, SolverPreset] = {}
    results: list[QualityResult] = []
    for number, recipe in enumerate(recipes):
        found = folder / str(number)
        report = quantize_bundle(searched, found, recipe=recipe, keep_measurements=True)
        print_presets(report.presets)
        presets |= read_manifest(found).synthesis.solver_presets
        results += report.results
    del presets[DEFAULT_PRESET]  # the checkpoint's
    content = PresetFile(presets=presets, results=results)
    write_file_atomically(PRESETS, write_preset_file(content))


def main() -> int:
    """Parse the command line and judge; exit code 1 or 3 where that fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.judge_demo_presets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--recipe",
        action="append",
        help="whose [presets] are searched, repeatable (default: the demo's)",
    )
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            judge_demo_presets(arguments.recipe or [*map(str, RECIPES)], Path(folder))
    except CosyVoiceError as error:
        print(error.lines(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
