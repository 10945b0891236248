"""Speech language model: a Qwen2 decoder that reads text and speaks in speech tokens (25 Hz).

    sos | text of prompt and target | task | speech tokens of the prompt, then the generated ones

All of it enters as embeddings from two tables; the special rows sos and task live in the speech
table. The head reads the hidden state after the final norm. Source: CosyVoice
cosyvoice/llm/llm.py (CosyVoice3LM, Qwen2Encoder) and transformers' Qwen2 (arXiv 2407.10671).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import SpeechLMConfig


class KVCache:
    """Keys and values of the positions seen so far, one buffer per layer, grown by doubling.

    A step writes its row in place; nothing is copied until a buffer is full.
    Buffers are [layers, B, kv heads, capacity, head_dim], float32, keys after rotary.
    """

    def __init__(self, config: SpeechLMConfig, batch: int = 1, capacity: int = 512) -> None:
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim)
        self._keys, self._values = torch.zeros(shape), torch.zeros(shape)
        self.length = 0  # positions of complete forward passes

    def reserve(self, count: int) -> None:
        """Make room for `count` more positions."""
        needed, capacity = self.length + count, self._keys.shape[3]
        if needed > capacity:
            extra = max(needed, 2 * capacity) - capacity
            self._keys = F.pad(self._keys, (0, 0, 0, extra))
            self._values = F.pad(self._values, (0, 0, 0, extra))

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, kv heads, L, head_dim] behind `length`; returns everything up to there."""
        end = self.length + keys.shape[2]
        self._keys[layer, :, :, self.length : end] = keys
        self._values[layer, :, :, self.length : end] = values
        return self.layer(layer, end)

    def layer(self, layer: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, kv heads, length, head_dim] of one layer, as views."""
        return self._keys[layer, :, :, :length], self._values[layer, :, :, :length]


class Attention(nn.Module):
    """Causal grouped-query attention; q, k, v with bias, output without.

    Shapes: x [B, L, H] -> [B, L, H]; with a cache, L new positions attend to all before them.
    """

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        kv_width = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KVCache | None, layer: int
    ) -> Tensor:
        batch, length, width = x.shape
        q = rotate(self._heads(self.q_proj(x)), rotary)  # [B, heads, L, head_dim]
        k = rotate(self._heads(self.k_proj(x)), rotary)  # [B, kv heads, L, head_dim]
        v = self._heads(self.v_proj(x))
        if cache is not None:
            k, v = cache.append(layer, k, v)  # [B, kv heads, past + L, head_dim]
        if length == 1:
            # The query heads of one key head stand in as its query positions: no key is repeated.
            q = q.reshape(batch, k.shape[1], -1, self.head_dim)
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mask = _causal_mask(length, k.shape[2], x.device) if k.shape[2] > length else None
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )
        mixed = mixed.reshape(batch, -1, length, self.head_dim).transpose(1, 2)
        out: Tensor = self.o_proj(mixed.reshape(batch, length, width))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) up(x)), [B, L, H] -> [B, L, H], without bias."""

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP, each with a residual; [B, L, H] -> [B, L, H]."""

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = GatedMLP(config)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: KVCache | None, layer: int
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, cache, layer)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Qwen2Model(nn.Module):
    """The text table and the decoder."""

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.text_vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, rows: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states [B, L, H] after the final norm, from embeddings [B, L, H]."""
        past = cache.length if cache is not None else 0
        if cache is not None:
            cache.reserve(rows.shape[1])
        rotary = rotary_table(self.config, past, rows.shape[1], rows.device)
        for index, layer in enumerate(self.layers):
            rows = layer(rows, rotary, cache, index)
        if cache is not None:
            cache.length += rows.shape[1]
        hidden: Tensor = self.norm(rows)
        return hidden


class Qwen2ForCausalLM(nn.Module):
    """The text model without its head over text, which is tied to the table and never used."""

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.model = Qwen2Model(config)


class Qwen2Encoder(nn.Module):
    """What CosyVoice wraps around the text model."""

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.model = Qwen2ForCausalLM(config)


class SpeechLM(nn.Module):
    """The whole model: tables, decoder, head. H hidden size, V + 200 speech rows.

    Right padding of a batch needs no mask: attention is causal, so no position sees what follows.
    """

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.config = config
        self.llm = Qwen2Encoder(config)
        self.llm_decoder = nn.Linear(config.hidden_size, config.speech_table_rows, bias=False)
        self.speech_embedding = nn.Embedding(config.speech_table_rows, config.hidden_size)

    @property
    def qwen2(self) -> Qwen2Model:
        """Text table, layers and final norm, which the official names hold three levels deep."""
        return self.llm.model.model

    def embed_prompt(self, text: Tensor, speech: Tensor, *, sos: int, task: int) -> Tensor:
        """The prefill rows [B, 2 + Lt + Ns, H]: sos, text, task, speech.

        `text` [B, Lt] are the ids of prompt and target joined, `speech` [B, Ns] the prompt's
        speech tokens; `sos` and `task` are rows of the speech table.
        """
        marks = text.new_tensor([[sos], [task]]).expand(2, text.shape[0])  # [2, B]
        start, turn = self.speech_embedding(marks).unsqueeze(2)  # each [B, 1, H]
        rows = [start, self.qwen2.embed_tokens(text), turn, self.speech_embedding(speech)]
        return torch.cat(rows, dim=1)

    def forward(self, rows: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states [B, L, H] after the final norm, from embeddings [B, L, H].

        With a cache the rows continue what it holds, and are added to it (inference only: the
        buffers are written in place).
        """
        hidden: Tensor = self.qwen2(rows, cache)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all speech rows [..., V + 200], before softmax, from `forward`'s states."""
        out: Tensor = self.llm_decoder(hidden)
        return out


def rotary_table(
    config: SpeechLMConfig, first: int, count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine [count, head_dim] of positions first .. first + count - 1."""
    pair = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32)
    frequency = 1.0 / config.rope_theta ** (pair / config.head_dim)  # [head_dim / 2]
    position = torch.arange(first, first + count, device=device, dtype=torch.float32)
    angle = position[:, None] * frequency[None, :]
    angle = torch.cat([angle, angle], dim=1)  # the half-split form pairs channel i with i + 32
    return angle.cos(), angle.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding in the half-split form; x [B, heads, L, head_dim]."""
    cosine, sine = rotary
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-high, low], dim=-1) * sine


def _causal_mask(new: int, total: int, device: torch.device) -> Tensor:
    """[new, total]: True where new position i may see j, that is j <= total - new + i."""
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new)
