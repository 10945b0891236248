"""A recipe says, as data, what is quantized how, what stays float and why, and what is good enough.

Recipes are TOML, read strictly. The package's own lie in `recipes/`; `docs/quantization.md`
explains each field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.parity.outputs import GATE_MEASURES
from cosyvoice_cpu.quantization.kernels import KERNELS, Form, TableFormat
from cosyvoice_cpu.quantization.parameters import ObserverName

AUTO = "auto"
LARGEST_RECIPE = 2**20  # bytes


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Layers that stay float32."""

    layers: list[str]  # globs
    why: str


class Other(Form, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Layers that are quantized in a form of their own."""

    layers: list[str]  # globs
    why: str


class Activations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the fixed ranges of activations are found."""

    observer: ObserverName = "histogram"
    percentile: Annotated[float, Meta(gt=50, le=100)] = 99.99  # of the values; that observer's
    # 7 where the processor lacks VNNI: there a pair of 8-bit products can overflow 16 bits.
    bits: Literal[7, 8] = 8


class Smooth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Moving the size of input channels into the weights, see `quantization.smooth`."""

    strength: Annotated[float, Meta(ge=0, le=1)] | Literal["search"]


class ComponentRecipe(Form, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How one component is quantized: the form of its layers, and what differs from it."""

    limits: dict[str, float]  # measure of the gate to its limit
    layers: tuple[str, ...] = ("*",)  # globs of the layers that are quantized
    keep: tuple[Keep, ...] = ()  # exceptions
    other: tuple[Other, ...] = ()  # layers in another form; the first that fits counts
    activations: Activations | None = None  # given if and only if a kernel needs a calibration
    smooth: Smooth | None = None
    tables: dict[str, TableFormat] = field(
        default_factory=dict
    )  # embedding tables of the weight file

    def form_of(self, layer: str) -> Form | None:
        """How `layer` is quantized; None if it stays float32."""
        if any(_fits(layer, keep.layers) for keep in self.keep) or not _fits(layer, self.layers):
            return None
        chosen = next((other for other in self.other if _fits(layer, other.layers)), self)
        return Form(chosen.kernel, chosen.block_size, chosen.zero_points)


class SpeechLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What listeners have to say about sentences that float32 and the result read."""

    sentences: Annotated[int, Meta(ge=1, le=66)] = 16
    word_errors_added: float = 0.01  # per word
    prompt_similarity_lost: float = 0.01  # cosine of speaker embeddings
    mel_correlation: float = 0.99
    loudness_change_db: float = 0.3


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A component whose form is searched: of the candidates, the fastest that is good enough."""

    candidates: Annotated[list[str], Meta(min_length=1)]  # recipes; what they say of the component
    limits: dict[str, float]  # the same for all candidates
    # Less is noise, and float32 sounds best. A layer that gains less goes back to float32, too.
    least_speedup: Annotated[float, Meta(ge=0)] = 1.05


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named way to make a bundle small and fast."""

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._+-]*\Z", max_length=100)]
    about: str
    components: dict[ComponentName, ComponentRecipe] = field(default_factory=dict)
    search: dict[ComponentName, Search] = field(default_factory=dict)
    speech: SpeechLimits = field(default_factory=SpeechLimits)

    @property
    def names(self) -> list[ComponentName]:
        """The components that it is about."""
        return [*self.components, *self.search]


def recipe_names() -> list[str]:
    """The package's recipes."""
    files = resources.files("cosyvoice_cpu.quantization") / "recipes"
    names = (Path(file.name) for file in files.iterdir())
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
    file = resources.files("cosyvoice_cpu.quantization") / "recipes" / f"{name}.toml"
    return parse_recipe(file.read_bytes(), name)


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
    if not recipe.names:
        raise UsageError(f"recipe {where} has no component", "add one under [components]")
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
    kernels = [form.kernel for form in (part, *part.other) if KERNELS[form.kernel].calibrated]
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
