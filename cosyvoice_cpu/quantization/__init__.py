"""INT8 with proof: recipes, integer graphs, the quality gate. Needs onnx, not torch.

    recipes      what is quantized how, as data, and what is good enough
    kernels      ONNX Runtime's integer products: packed weights, nodes, simulation in NumPy
    calibration  text/audio pairs, recorded activations, scales of channels, ranges by FX observers
    search       candidates: planned, fitted, measured, chosen
    gate         accuracy of each component, words and voices of the whole

One candidate goes through `recipes.recipe`, `search.candidate` (plan, write), `search.fitting`,
`search.evaluator` (measure) and `search.selection` (decide); `quantize` does it for all.
"""

from cosyvoice_cpu.errors import library_error

try:
    import onnx  # noqa: F401
except ImportError as error:
    raise library_error(error, f"quantizing needs {error.name}") from None

from cosyvoice_cpu.quantization.gate.accuracy import QualityRefusedError
from cosyvoice_cpu.quantization.quantize import quantize_bundle
from cosyvoice_cpu.quantization.report import ComponentReport, QuantizationReport

__all__ = ["ComponentReport", "QualityRefusedError", "QuantizationReport", "quantize_bundle"]
