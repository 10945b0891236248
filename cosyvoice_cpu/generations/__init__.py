"""The CosyVoice generations, each one module of data.

What differs between generations is stated here and nowhere else: code asks a `Generation` for a
value and never for its name. Nothing here imports torch.
"""

from cosyvoice_cpu.generations.base import Generation, SpecialIds
from cosyvoice_cpu.generations.components import ComponentSpec, GraphSpec, TensorSpec
from cosyvoice_cpu.generations.registry import GENERATIONS, generation_named

__all__ = [
    "GENERATIONS",
    "ComponentSpec",
    "Generation",
    "GraphSpec",
    "SpecialIds",
    "TensorSpec",
    "generation_named",
]
