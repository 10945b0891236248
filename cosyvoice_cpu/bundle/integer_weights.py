"""How integers of fixed activation ranges are stored, for whoever writes and reads them.

Beside the weight `X.weight`, int8:

    X.weight.scale              float32 [out]  of each output channel of the weight
    X.weight.input_scale        float32 []     of what enters the layer
    X.weight.input_zero_point   uint8 []       its integer that stands for 0
"""

from __future__ import annotations

SCALE = ".scale"
INPUT_SCALE = ".input_scale"
INPUT_ZERO_POINT = ".input_zero_point"
