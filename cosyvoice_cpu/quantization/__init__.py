"""INT8 with proof: recipes, integer graphs, the quality gate. Needs onnx, not torch."""

from cosyvoice_cpu.errors import MissingExtraError

try:
    import onnx  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"quantizing needs {error.name}", 'install it with: pip install "cosyvoice-cpu[export]"'
    ) from error

from cosyvoice_cpu.quantization.gate import QualityRefusedError
from cosyvoice_cpu.quantization.quantize import quantize_bundle
from cosyvoice_cpu.quantization.report import ComponentReport, QuantizationReport

__all__ = ["ComponentReport", "QualityRefusedError", "QuantizationReport", "quantize_bundle"]
