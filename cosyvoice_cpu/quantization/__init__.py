"""INT8 with proof: recipes, integer graphs, the quality gate. Needs onnx, not torch."""

from cosyvoice_cpu.quantization.gate import QualityRefusedError
from cosyvoice_cpu.quantization.quantize import quantize_bundle
from cosyvoice_cpu.quantization.report import ComponentReport, QuantizationReport

__all__ = ["ComponentReport", "QualityRefusedError", "QuantizationReport", "quantize_bundle"]
