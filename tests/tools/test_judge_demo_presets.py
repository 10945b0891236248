"""What is kept beside the embedded voice is what its recipe tries, judged."""

from __future__ import annotations

from cosyvoice_cpu.bundle.preset_file import read_preset_file
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe
from tools.judge_demo_presets import RECIPE
from tools.make_demo_bundle import PRESETS


def test_the_kept_preset_is_one_that_the_recipe_tries_and_the_bundle_has() -> None:
    search = load_recipe(str(RECIPE)).presets
    assert search is not None
    kept = read_preset_file(PRESETS)  # raises where it was not judged good
    manifest = read_manifest(DEMO_BUNDLE)
    default = manifest.synthesis.solver
    assert kept.presets[search.name] in [CANDIDATES[n].preset(default) for n in search.candidates]
    assert manifest.synthesis.solver_presets == {"default": default, **kept.presets}
    assert manifest.quality.results == kept.results
