"""The speech LM as it runs: one network for prefill and decode, its KV cache an input.

Its graph is built by hand (`export.speech_lm`), since no trace binds past and present to one
buffer; this is the same network for FX and for the torch engine, module for module.
Source: as the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import SpeechLMConfig
from cosyvoice_cpu.networks.deployed.operators import RotaryTable
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import speech_lm as reference

# Speech tokens of a minute, their prompt and a long text; 2 x 64 floats for each position.
MAX_POSITIONS = 8192


class CachedAttention(nn.Module):
    """Causal grouped-query attention over one joined product, keys and values kept in a buffer."""

    def __init__(self, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads

    def forward(
        self,
        qkv: Tensor,
        past: tuple[Tensor, Tensor],
        last_position: Tensor,
        cosine: Tensor,
        sine: Tensor,
    ) -> Tensor:
        """[1, S, q + k + v] to [1, S, q]; the S positions end with `last_position`.

        `past`: key and value buffers [1, kv heads, L, head_dim], L positions or more, to which the
        new rows are written. cosine and sine [positions, head_dim / 2].
        """
        end, length = int(last_position) + 1, qkv.shape[1]
        rows = slice(end - length, end)
        rotary = (cosine[rows].repeat(1, 2), sine[rows].repeat(1, 2))
        heads = qkv.view(1, length, self.heads + 2 * self.kv_heads, -1).transpose(1, 2)
        q, kv = heads[:, : self.heads], heads[:, self.heads :]
        k, v = kv.chunk(2, dim=1)
        for buffer, new in zip(past, (reference.rotate(k, rotary), v), strict=True):
            buffer[:, :, rows] = new
        keys, values = (buffer[:, :, :end] for buffer in past)
        allowed = torch.ones(length, end, dtype=torch.bool).tril(end - length)
        mixed = F.scaled_dot_product_attention(
            reference.rotate(q, rotary), keys, values, attn_mask=allowed, enable_gqa=True
        )
        return mixed.transpose(1, 2).flatten(2)


class DecoderLayer(nn.Module):
    """Pre-norm attention and SwiGLU, each with a residual; [1, S, H] to [1, S, H]."""

    def __init__(self, config: SpeechLMConfig, attention: CachedAttention) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        width = hidden + 2 * config.num_kv_heads * config.head_dim
        self.attention = attention
        self.attention_norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.qkv = nn.Linear(hidden, width)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(
        self,
        x: Tensor,
        past: tuple[Tensor, Tensor],
        last_position: Tensor,
        rotary: RotaryTable,
    ) -> Tensor:
        qkv = self.qkv(self.attention_norm(x))
        x = x + self.out(self.attention(qkv, past, last_position, rotary.cos, rotary.sin))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(F.silu(gate) * up)
        return out


class SpeechLM(nn.Module):
    """Embedding rows to logits. H hidden size; the tables are read outside of the graph."""

    config_type = SpeechLMConfig
    leaves: ClassVar[tuple[type[nn.Module], ...]] = (CachedAttention,)
    tables: ClassVar[tuple[str, ...]] = ("text_embedding", "speech_embedding")

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.text_vocab_size, config.speech_table_rows)
        for name, rows in zip(self.tables, sizes, strict=True):
            table = torch.empty(rows, config.hidden_size)
            self.register_parameter(name, nn.Parameter(table, requires_grad=False))
        self.rotary = RotaryTable(config.head_dim, MAX_POSITIONS)
        attention = CachedAttention(config.num_heads, config.num_kv_heads)
        self.layers = nn.ModuleList(
            DecoderLayer(config, attention) for _ in range(config.num_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.speech_table_rows, bias=False)

    def forward(
        self,
        inputs_embeds: Tensor,
        rows: Tensor,
        last_position: Tensor,
        total_length: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Logits [R, table rows], then the present keys and values: the past's own buffers.

        inputs_embeds [1, S, H]; rows int64 [R], the positions whose logits are wanted;
        last_position int32 [1], index of the last position once these are read; total_length int32
        [1], that index plus one; past: key and value of each layer
        [1, kv heads, L, head_dim], written in place, L >= total_length.
        """
        x = inputs_embeds
        for index, layer in enumerate(self.layers):
            x = layer(x, (past[2 * index], past[2 * index + 1]), last_position, self.rotary)
        logits: Tensor = self.head(self.norm(x)[0][rows])
        return logits, *(past[index] for index in range(2 * len(self.layers)))

    def graph(self, variant: str) -> nn.Module:
        """The module of the only graph."""
        return {"speech_lm": self}[variant]

    @classmethod
    def blank(cls, config: SpeechLMConfig, tensors: Mapping[str, Tensor]) -> SpeechLM:
        """Without values, on the meta device."""
        with torch.device("meta"):
            return cls(config).eval()

    @classmethod
    def from_reference(cls, network: reference.SpeechLM) -> SpeechLM:
        """On the tensors of `network`."""
        config = network.config
        cosine, sine = reference.rotary_table(config, 0, MAX_POSITIONS, torch.device("cpu"))
        tensors = {
            "text_embedding": network.qwen2.embed_tokens.weight.detach(),
            "speech_embedding": network.speech_embedding.weight.detach(),
            # One half of the table is enough: channel i and i + 32 turn by the same angle.
            "rotary.cos": cosine[:, : config.head_dim // 2].contiguous(),
            "rotary.sin": sine[:, : config.head_dim // 2].contiguous(),
            "norm.weight": network.qwen2.norm.weight.detach(),
            **layer_tensors("head", network.llm_decoder),
        }
        for i, layer in enumerate(cast("Sequence[reference.DecoderLayer]", network.qwen2.layers)):
            name, attention, mlp = f"layers.{i}", layer.self_attn, layer.mlp
            tensors |= {
                f"{name}.attention_norm.weight": layer.input_layernorm.weight.detach(),
                f"{name}.mlp_norm.weight": layer.post_attention_layernorm.weight.detach(),
                **layer_tensors(
                    f"{name}.qkv", attention.q_proj, attention.k_proj, attention.v_proj
                ),
                **layer_tensors(f"{name}.out", attention.o_proj),
                **layer_tensors(f"{name}.gate_up", mlp.gate_proj, mlp.up_proj),
                **layer_tensors(f"{name}.down", mlp.down_proj),
            }
        own = cls.blank(config, tensors)
        own.load_state_dict(tensors, assign=True)
        return own
