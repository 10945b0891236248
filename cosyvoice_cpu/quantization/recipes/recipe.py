"""A recipe says, as data, what is quantized how, what stays float and why, and what is good enough.

Recipes are TOML, read strictly. The package's own lie beside this file; `docs/quantization.md`
explains each field. A recipe either says how a component is quantized, which makes one candidate,
or names the recipes to choose from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from cosyvoice_cpu.bundle.manifest import ComponentName, Word
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.parity.outputs import GATE_MEASURES
from cosyvoice_cpu.quantization.kernels.parameters import ObserverName
from cosyvoice_cpu.quantization.kernels.variants import KERNELS, KernelVariant, TableFormat

AUTO = "auto"
_PACKAGE = "cosyvoice_cpu.quantization.recipes"
LARGEST_RECIPE = 2**20  # bytes


class Exclusion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Layers that stay float32."""

    layers: list[str]  # globs
    reason: str


class Override(KernelVariant, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Layers that have a kernel variant of their own."""

    layers: list[str]  # globs
    reason: str


class Activations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the fixed ranges of activations are found."""

    observer: ObserverName = "histogram"
    percentile: Annotated[float, Meta(gt=50, le=100)] = 99.99  # of the values; that observer's
    # 7 for an engine that adds pairs of 8-bit products in 16 bits; the engines here do not.
    bits: Literal[7, 8] = 8


class SmoothingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SmoothQuant or AWQ scales of input channels, see `quantization.calibration.smoothing`."""

    alpha: Annotated[float, Meta(ge=0, le=1)] | Literal["search"]


class ComponentRecipe(KernelVariant, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one component is quantized: the kernel of its layers, and what differs from it."""

    limits: dict[str, float]  # measure of the gate to its limit
    layers: tuple[str, ...] = ("*",)  # globs of the layers that are quantized
    exclude: tuple[Exclusion, ...] = ()  # which of these stay float32
    override: tuple[Override, ...] = ()  # layers with another kernel; the first that fits counts
    activations: Activations | None = None  # given if and only if a kernel needs a calibration
    smoothing: SmoothingSettings | None = None
    embedding_tables: dict[str, TableFormat] = field(default_factory=dict)  # of the weight file

    def variant_of(self, layer: str) -> KernelVariant | None:
        """How `layer` is quantized; None if it stays float32."""
        excluded = any(_fits(layer, entry.layers) for entry in self.exclude)
        if excluded or not _fits(layer, self.layers):
            return None
        chosen = next((entry for entry in self.override if _fits(layer, entry.layers)), self)
        return KernelVariant(chosen.kernel, chosen.block_size, chosen.zero_points)

    @property
    def variants(self) -> Sequence[KernelVariant]:
        """All that layers may have."""
        return self, *self.override


class SpeechLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be lost in sentences that float32 and the result read."""

    sentences: Annotated[int, Meta(ge=1, le=66)] = 16
    word_errors_added: float = 0.01  # per word
    prompt_similarity_lost: float = 0.01  # cosine of speaker embeddings
    mos_lost: float = 0.1  # predicted; judged where the predictor is installed
    mel_correlation: float = 0.99
    loudness_change_db: float = 0.3


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A component with several candidates: the fastest that is good enough is taken."""

    candidates: Annotated[list[str], Meta(min_length=1)]  # recipes; what they say of the component
    limits: dict[str, float]  # the same for all candidates
    # Less is noise, and float32 sounds best. A layer that gains less is restored to float32, too.
    min_speedup: Annotated[float, Meta(ge=0)] = 1.05


class PresetSearch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A solver preset to find: the cheapest candidate that sounds as good as the default."""

    name: Word = "fast"  # of the preset in the new bundle
    candidates: list[str] = field(default_factory=lambda: [*CANDIDATES])
    screened: Annotated[int, Meta(ge=1, le=66)] = 24  # sentences to narrow the choice down with
    finalists: Annotated[int, Meta(ge=1)] = 2  # candidates that are then judged on all sentences
    sentences: Annotated[int, Meta(ge=1, le=66)] = 66
    draws: Annotated[int, Meta(ge=1, le=16)] = 2  # seeds of each sentence
    mos_lost: float = 0.1  # predicted, on the same speech tokens; as all limits
    word_errors_added: float = 0.01  # per word
    prompt_similarity_lost: float = 0.01  # cosine of speaker embeddings


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named way to make a bundle small and fast."""

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._+-]*\Z", max_length=100)]
    description: str
    components: dict[ComponentName, ComponentRecipe] = field(default_factory=dict)
    search: dict[ComponentName, Search] = field(default_factory=dict)
    speech: SpeechLimits = field(default_factory=SpeechLimits)
    presets: PresetSearch | None = None

    @property
    def names(self) -> list[ComponentName]:
        """The components that it is about."""
        return [*self.components, *self.search]

    def restricted_to(self, components: Sequence[str]) -> Recipe:
        """The recipe for `components` alone, for all if none is named.

        Raises: UsageError for one that it does not have.
        """
        if missing := [name for name in components if name not in self.names]:
            raise UsageError(
                f"the recipe {self.name} has no component {missing[0]!r}",
                f"it has {', '.join(self.names)}",
            )
        wanted = set(components) or set(self.names)
        return msgspec.structs.replace(
            self,
            components={name: part for name, part in self.components.items() if name in wanted},
            search={name: search for name, search in self.search.items() if name in wanted},
        )

    def candidates(self, component: ComponentName) -> dict[str, ComponentRecipe]:
        """By the recipe's name: its own, or those of its search with the limits of the search.

        Raises: UsageError for a candidate that is no recipe or says nothing of the component.
        """
        if part := self.components.get(component):
            return {self.name: part}
        search = self.search[component]
        found = {}
        for name in search.candidates:
            parts = load_recipe(name).components
            if component not in parts:
                raise UsageError(
                    f"recipe {self.name} searches {component} in {name}, which has no such part",
                    f"remove {name} from [search.{component}]",
                )
            found[name] = msgspec.structs.replace(parts[component], limits=search.limits)
        return found


def recipe_names() -> list[str]:
    """The package's recipes."""
    names = (Path(file.name) for file in resources.files(_PACKAGE).iterdir())
    return sorted(name.stem for name in names if name.suffix == ".toml")


def load_recipe(name: str) -> Recipe:
    """The recipe `name`: one of the package's, or a path that ends in `.toml`.

    Raises: UsageError naming the file and the field, or the recipes that there are.
    """
    if name.endswith(".toml"):
        try:
            with Path(name).open("rb") as opened:
                text = opened.read(LARGEST_RECIPE + 1)
        except OSError as error:
            raise UsageError(
                f"the recipe {name} can't be read ({error.strerror})", _choice()
            ) from error
        return parse_recipe(text, name)
    if name not in recipe_names():
        raise UsageError(f"there is no recipe {name!r}", _choice())
    return parse_recipe((resources.files(_PACKAGE) / f"{name}.toml").read_bytes(), name)


def parse_recipe(text: bytes, where: str) -> Recipe:
    """The recipe in `text`; `where` names it in errors. Raises: UsageError naming the field."""
    try:
        if len(text) > LARGEST_RECIPE:
            raise ValueError("it is too long for a recipe")
        recipe = msgspec.toml.decode(text, type=Recipe)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(
            f"recipe {where}: {error}", "docs/quantization.md explains the fields"
        ) from error
    if not (recipe.names or recipe.presets):
        raise UsageError(f"recipe {where} has no component", "add one under [components]")
    for name in recipe.presets.candidates if recipe.presets else ():
        if name not in CANDIDATES:
            raise UsageError(
                f"recipe {where}: there is no solver {name[:100]!r} to try",
                f"known are {', '.join(CANDIDATES)}",
            )
    if twice := [name for name in recipe.search if name in recipe.components]:
        raise UsageError(
            f"recipe {where}: {twice[0]} is given and searched",
            f"remove [components.{twice[0]}] or [search.{twice[0]}]",
        )
    for component, search in recipe.search.items():
        _check_limits(where, component, search.limits, "search")
    for component, part in recipe.components.items():
        _check_limits(where, component, part.limits, "components")
        _check_activations(where, component, part)
    return recipe


def _check_limits(
    where: str, component: ComponentName, limits: Mapping[str, float], table: str
) -> None:
    """Every measure of the component has a limit: nothing is written without a proof."""
    known = [measure.name for measure in GATE_MEASURES if measure.component == component]
    if not known:
        raise UsageError(
            f"recipe {where}: {component} can't be quantized yet",
            f"possible are {', '.join(sorted({m.component for m in GATE_MEASURES}))}",
        )
    if set(limits) != set(known):
        raise UsageError(
            f"recipe {where}: the limits of {component} are {', '.join(limits) or 'missing'}",
            f"give exactly {', '.join(known)} under [{table}.{component}.limits]",
        )


def _check_activations(where: str, component: ComponentName, part: ComponentRecipe) -> None:
    """What a kernel needs is there, and nothing is there that no kernel reads."""
    kernels = [variant.kernel for variant in part.variants if KERNELS[variant.kernel].calibrated]
    if kernels and part.activations is None:
        raise UsageError(
            f"recipe {where}: {kernels[0]} of {component} has no activations",
            f"say how ranges are found under [components.{component}.activations]",
        )
    if part.activations and not kernels:
        raise UsageError(
            f"recipe {where}: no kernel of {component} has fixed activations",
            f"remove [components.{component}.activations]",
        )


def _fits(layer: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(layer, glob) for glob in globs)


def _choice() -> str:
    return f"choose {', '.join(recipe_names())} or a file that ends in .toml"
