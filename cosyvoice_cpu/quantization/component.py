"""One component of a bundle in integers: what a recipe makes of it, and making it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.errors import BundleError, UsageError
from cosyvoice_cpu.export.weights import Weight, write_weights
from cosyvoice_cpu.quantization.folds import Smoothing
from cosyvoice_cpu.quantization.kernels import KERNELS, Form, pack_table
from cosyvoice_cpu.quantization.parameters import (
    CALIBRATION_FILE,
    Calibration,
    LayerParameters,
    calibration_text,
)
from cosyvoice_cpu.quantization.recipe import ComponentRecipe
from cosyvoice_cpu.quantization.rewrite import WEIGHT, layers_of, rewrite_graph
from cosyvoice_cpu.quantization.stored import read_weights

WEIGHTS = "weights.safetensors"
_FLOAT = "float32"  # the precision that quantization starts from


@dataclass(frozen=True)
class ComponentPlan:
    """What will be done to a component."""

    name: ComponentName
    recipe: ComponentRecipe
    layers: dict[str, Form]  # those that are quantized, and how
    kept: list[str]  # layers that stay float32
    graphs: list[str]  # file names
    floats: dict[str, Weight]  # all weights as they are, smoothed if they are to be
    weights: dict[str, Weight]  # and as they will be
    bytes_before: int  # of the component's files
    smoothing: Smoothing | None = None  # if the recipe asks for it and it has been found
    calibration: Calibration | None = None  # if the recipe needs one and it has been made

    @property
    def precision(self) -> str:
        """As the manifest will call it, such as "int4-weights+int8-weights" for a mixture."""
        return "+".join(sorted({KERNELS[form.kernel].precision for form in self.layers.values()}))

    @property
    def bytes_after(self) -> int:
        """Predicted: the graphs keep their size within a few per cent."""
        saved = _bytes(self.floats) - _bytes(self.weights)
        return self.bytes_before - saved


def plan_component(
    bundle: Bundle,
    name: ComponentName,
    recipe: ComponentRecipe,
    *,
    calibration: Calibration | None = None,
    smoothing: Smoothing | None = None,
    put_back: Collection[str] = (),
) -> ComponentPlan:
    """What `recipe` would do; reads headers and graphs only.

    `calibration` has the ranges of activations; a recipe that fixes them can be planned without,
    but not written. `smoothing` has the scales of a recipe that evens out channels, `put_back` are
    layers that stay float32 whatever the recipe says.

    Raises: BundleError unless the component is float32, UsageError for a recipe that does not fit.
    """
    component = bundle.component(name)
    if component.precision != _FLOAT:
        raise BundleError(
            f"{name} of {bundle.path} is {component.precision}; quantization starts from float32",
            "give the bundle that `cosyvoice-cpu export` made with --storage float32",
        )
    files = [entry.path.split("/")[1] for entry in component.files]
    graphs = [file for file in files if file.endswith(".onnx")]
    convolutions = any(KERNELS[form.kernel].convolutions for form in (recipe, *recipe.other))
    found: dict[str, tuple[int, ...]] = {}
    for file in one_per_ladder(graphs):  # sizes and masks differ, layers do not
        found |= layers_of(bundle.file(name, file), convolutions=convolutions)
    forms = {layer: None if layer in put_back else recipe.form_of(layer) for layer in found}
    layers = {layer: form for layer, form in forms.items() if form}
    floats = read_weights(bundle.file(name, WEIGHTS))
    if smoothing:
        floats = smoothing.applied(floats)
    _require_use(name, recipe, forms, floats)
    return ComponentPlan(
        name=name,
        recipe=recipe,
        layers=layers,
        kept=[layer for layer in found if layer not in layers],
        graphs=graphs,
        floats=floats,
        weights=_packed(recipe, layers, floats, calibration.layers if calibration else {}),
        smoothing=smoothing,
        calibration=calibration,
        bytes_before=sum(entry.size for entry in component.files),
    )


def write_component(
    plan: ComponentPlan, bundle: Bundle, writer: BundleWriter, recipe_name: str
) -> ComponentDraft:
    """Write the component's weights, one tensor at a time, and its graphs; the manifest's entry."""
    name = plan.name
    stored = write_weights(
        writer.path_for(name, WEIGHTS),
        plan.weights,
        metadata=read_header(bundle.file(name, WEIGHTS)).metadata,
    )
    if plan.calibration:
        report = calibration_text(name, plan.calibration)
        writer.path_for(name, CALIBRATION_FILE).write_bytes(report)
    for file in plan.graphs:
        rewrite_graph(
            bundle.file(name, file),
            writer.path_for(name, file),
            plan.layers,
            plan.floats,
            stored,
        )
    return ComponentDraft(
        precision=plan.precision,
        engine="onnxruntime",
        shapes=bundle.component(name).shapes,
        recipe=recipe_name,
    )


def component_folder(writer: BundleWriter, name: ComponentName) -> Path:
    """Where the writer keeps the files of a component."""
    return writer.path_for(name, WEIGHTS).parent


def one_per_ladder(graphs: Sequence[str]) -> list[str]:
    """One file of each ladder: `full-00100.onnx` stands for `full-00150.onnx`."""
    return list({file.removesuffix(".onnx").rsplit("-", 1)[0]: file for file in graphs}.values())


def _packed(
    recipe: ComponentRecipe,
    layers: dict[str, Form],
    floats: dict[str, Weight],
    calibrated: Mapping[str, LayerParameters],
) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for name, weight in floats.items():
        layer = name.removesuffix(WEIGHT)
        if name.endswith(WEIGHT) and layer in layers:
            form = layers[layer]
            weights |= KERNELS[form.kernel].pack(name, weight, form, calibrated.get(layer))
        elif name in recipe.tables:
            weights |= pack_table(name, weight, recipe.tables[name])
        else:
            weights[name] = weight
    return weights


def _require_use(
    name: ComponentName,
    recipe: ComponentRecipe,
    forms: dict[str, Form | None],
    floats: dict[str, Weight],
) -> None:
    """Raises: UsageError if the recipe selects nothing or names a table that is not there."""
    if not any(forms.values()):
        raise UsageError(
            f"the recipe selects no layer of {name}", f"its layers are {', '.join(forms)}"
        )
    if missing := [table for table in recipe.tables if table not in floats]:
        raise UsageError(f"{name} has no table {missing[0]}", "remove it from the recipe's tables")


def _bytes(weights: dict[str, Weight]) -> int:
    return sum(weight.num_bytes for weight in weights.values())
