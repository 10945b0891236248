"""The tiny checkpoint, the original's arrays from it, and how they are compared."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.networks.reference_stages import ReferenceStages
from support.places import DATA

GOLDEN = DATA / "golden"
CHECKPOINT = GOLDEN / "cosyvoice3-tiny" / "checkpoint"
ARRAYS = dict(np.load(GOLDEN / "cosyvoice3-tiny" / "arrays.npz"))

FLOW_PROMPT = {
    "prompt_tokens": ARRAYS["flow_prompt_token"][0].tolist(),
    "prompt_mel": ARRAYS["flow_prompt_feat"][0],
    "embedding": ARRAYS["flow_embedding"][0],
}


@cache
def stages() -> ReferenceStages:
    """The reference on the tiny checkpoint; shared, so tests must not change its weights."""
    return ReferenceStages.load(CHECKPOINT)


def ids(name: str) -> list[int]:
    """The ids of an array, without its -1 padding."""
    return [int(i) for i in ARRAYS[name].ravel() if i >= 0]


def relative_error(got: NDArray[np.floating], want: NDArray[np.floating]) -> float:
    """max |got - want| / max |want|, printed for `pytest -svv`; the shapes must agree."""
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    error = float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())
    print(f"relative error {error:.1e}")
    return error
