"""Which ids the networks take: one rule for the torch reference and for every engine."""

from __future__ import annotations

from collections.abc import Sequence

from cosyvoice_cpu.errors import SynthesisError, TextError


def require_text_ids(ids: Sequence[int], rows: int) -> None:
    """Raises: TextError naming the first id that is no row of the text table."""
    _require(ids, rows, "text", TextError)


def require_speech_ids(ids: Sequence[int], rows: int) -> None:
    """Raises: SynthesisError naming the first id that is no row of the speech table."""
    _require(ids, rows, "speech", SynthesisError)


def flow_token_ids(ids: Sequence[int], vocabulary: int) -> list[int]:
    """The ids as the flow takes them: negative ones count as 0.

    Raises: SynthesisError naming the first id that is not in the vocabulary.
    Source: CosyVoice cosyvoice/flow/flow.py, `torch.clamp(token, min=0)`.
    """
    clamped = [max(token, 0) for token in ids]
    _require(clamped, vocabulary, "speech", SynthesisError)
    return clamped


def _require(
    ids: Sequence[int], rows: int, kind: str, error: type[TextError] | type[SynthesisError]
) -> None:
    outside = [token for token in ids if not 0 <= token < rows]
    if outside:
        raise error(
            f"{kind} id {outside[0]} is outside the model's {rows}",
            "were these ids made for another model?",
        )
