"""What is kept beside the embedded voice is what its recipe tries, judged."""

from __future__ import annotations

from cosyvoice_cpu.bundle.preset_file import read_preset_file
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe
from tools.judge_demo_presets import RECIPES
from tools.make_demo_bundle import PRESETS


def test_the_kept_presets_are_what_the_recipes_try_and_the_bundle_has() -> None:
    kept = read_preset_file(PRESETS)  # raises where it was not judged good
    manifest = read_manifest(DEMO_BUNDLE)
    default = manifest.synthesis.solver
    searches = [load_recipe(str(recipe)).presets for recipe in RECIPES]
    assert sorted(kept.presets) == sorted(search.name for search in searches if search)
    for search in searches:
        assert search is not None
        tried = [CANDIDATES[name].preset(default) for name in search.candidates]
        assert kept.presets[search.name] in tried
    assert manifest.synthesis.solver_presets == {"default": default, **kept.presets}
    assert manifest.quality.results == kept.results
