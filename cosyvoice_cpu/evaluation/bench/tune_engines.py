"""The engine that is fastest for flow and vocoder on this machine, by trying those installed.

Each engine has to give what ONNX Runtime gives before its time counts. Calls take turns, so that
other programs' work falls on all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.component_runner import MAIN_CALLS, repeatable_call
from cosyvoice_cpu.errors import EngineParityError
from cosyvoice_cpu.evaluation.engine_choice import CHOOSABLE, ONNX_RUNTIME, require_parity
from cosyvoice_cpu.progress import Notify, no_notice
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances

_PROMPT, _TOKENS = 75, 100  # speech tokens: 3 s of prompt, 4 s of speech
_GAIN = 1.03  # an engine has to be faster than ONNX Runtime by more than noise


@dataclass(frozen=True)
class EngineTimes:
    """Least seconds of a component's main call, by engine; what was refused is absent."""

    component: ComponentName
    seconds: dict[str, float]

    @property
    def fastest(self) -> str:
        """ONNX Runtime unless another gains clearly."""
        name = min(self.seconds, key=self.seconds.__getitem__)
        return name if self.speedup(name) > _GAIN else ONNX_RUNTIME

    def speedup(self, engine: str) -> float:
        """How many times as fast as ONNX Runtime."""
        return self.seconds[ONNX_RUNTIME] / self.seconds[engine]


def tune_engines(
    bundle: Bundle,
    engines: Sequence[str],
    threads: int,
    *,
    repeat: int = 3,
    notify: Notify = no_notice,
) -> list[EngineTimes]:
    """Time `engines`, ONNX Runtime among them, on each component that has a choice."""
    usable = []
    for name in engines:
        try:
            if name != ONNX_RUNTIME:
                require_parity(bundle, name, threads, notify)
            usable.append(name)
        except EngineParityError as error:
            notify(f"left out: {error.what}")
    found = []
    utterance = random_utterances(bundle.manifest, prompt=_PROMPT, tokens=_TOKENS)[0]
    for component in CHOOSABLE:
        calls: dict[str, Callable[[], Floats]] = {}
        for name in usable:
            stages = BundleStages(bundle, threads, engines={component: name})
            calls[name] = repeatable_call(stages, MAIN_CALLS[component], utterance)
            calls[name]()  # opens and compiles
        notify(f"timing {component}")
        seconds = dict.fromkeys(usable, float("inf"))
        for _ in range(repeat):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                seconds[name] = min(seconds[name], time.perf_counter() - started)
        found.append(EngineTimes(component, seconds))
    return found
