"""The FX path: torch.ao.quantization on networks that read a bundle. Needs torch, not a checkpoint.

    graphs, weights ─> traceable networks ─> prepare_fx ─> items through the pipeline ─> convert_fx
        ─> LayerParameters ─> the kernel static-int8 ─> an ordinary bundle, for two engines

- `layers`        linear layers and convolutions on stored weights, float32 or int8
- `speech_lm`, `flow_encoder`, `flow_estimator`, `vocoder`   the networks, modules named as weights
- `observe`       the only module that imports torch.ao.quantization; gives plain values
- `calibrate`     teacher-forced items through the stage API while the observers look
- `engine`        the stage API in torch on a bundle, float32 or static-int8

torch.ao.quantization is to be replaced by torchao: that changes `observe` and nothing else.
"""

from cosyvoice_cpu.errors import MissingExtraError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"a recipe with fixed activation ranges needs {error.name}",
        'install it with: pip install "cosyvoice-cpu[export]"',
    ) from error
