"""Teacher-forced items through the real pipeline while FX's observers look at one component.

    speech_lm          text, prompt and tokens of the clip, one pass
    flow_*             the clip's tokens and the prompt's mel through all solver steps, both halves
                       of the guidance
    vocoder            the mel that the flow made of them

The other components run in float32 on ONNX Runtime, as they do when the bundle speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.fx.engine import NETWORKS, TorchStages, load_network
from cosyvoice_cpu.quantization.fx.observe import METHOD, observe
from cosyvoice_cpu.quantization.kernels.parameters import Calibration
from cosyvoice_cpu.quantization.recipes.recipe import Activations
from cosyvoice_cpu.utterances import Utterance


def calibrate(
    bundle: Bundle,
    name: ComponentName,
    layers: Sequence[str],
    activations: Activations,
    items: Sequence[Utterance],
    *,
    weights: Mapping[str, Weight] | None = None,
    threads: int = 1,
    progress: Callable[[float], None] = lambda done: None,
) -> Calibration:
    """What enters `layers` of a component of a float32 bundle while `items` are spoken.

    `weights` take the place of the component's own, under the same names.
    Raises: UsageError for a layer that the network of the component does not have.
    """
    kind, _ = NETWORKS[name]
    network = load_network(bundle, name, weights)
    known = dict(network.named_modules())
    if strangers := [layer for layer in layers if layer not in known]:
        raise UsageError(
            f"{strangers[0]} of {name} can't be calibrated", "keep it in float32 in the recipe"
        )

    def play(observed: nn.Module) -> None:
        stages = TorchStages(bundle, threads, {name: observed})
        for count, item in enumerate(items):
            _speak(stages, name, item)
            progress((count + 1) / len(items))

    found, _ = observe(network, kind.opaque, layers, activations, play)
    return Calibration(METHOD, activations.observer, [item.name for item in items], found)


def _speak(stages: TorchStages, name: ComponentName, item: Utterance) -> None:
    if name == "speech_lm":
        stages.speech_lm_logits(
            item.text_ids,
            item.tokens,
            prompt_text_ids=item.prompt_text_ids,
            prompt_speech_ids=item.prompt_tokens,
        )
        return
    mel = stages.tokens_to_mel(
        item.tokens,
        prompt_tokens=item.prompt_tokens,
        prompt_mel=item.prompt_mel,
        embedding=item.embedding,
        steps=stages.manifest.synthesis.solver_steps,
    )
    if name == "vocoder":
        stages.mel_to_waveform(mel)
