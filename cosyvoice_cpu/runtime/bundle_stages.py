"""The stage API on a bundle's engines."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, ComponentName, Manifest, SolverPreset
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.decoding.composed_stages import ComposedStages
from cosyvoice_cpu.decoding.solver import Velocity, cosine_preset, evaluations
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.runtime.activation_arena import give_back
from cosyvoice_cpu.runtime.flow import FlowEncoderStage, FlowEstimatorStage
from cosyvoice_cpu.runtime.flow_stream import BundleFlowStream, FlowStreamStage, window_frames
from cosyvoice_cpu.runtime.graph import EngineOptions, Recording
from cosyvoice_cpu.runtime.ladder import ComponentGraphs, Engines
from cosyvoice_cpu.runtime.prompt_files import PromptFiles
from cosyvoice_cpu.runtime.prompt_past import PromptPast, PromptPasts, prompt_digest
from cosyvoice_cpu.runtime.speech_lm import CachedSession, SpeechLMStage
from cosyvoice_cpu.runtime.vocoder import VocoderStage
from cosyvoice_cpu.runtime.vocoder_stream import BundleVocoderStream
from cosyvoice_cpu.stage_api import FlowCondition

_PARTS: dict[str, tuple[str, ...]] = {
    "speech_lm": ("speech_lm",),
    "flow": ("flow_encoder", "flow_estimator", "flow_stream"),
    "vocoder": ("vocoder",),
}
Part = TypeVar("Part")


class BundleStages(ComposedStages):
    """Implements `cosyvoice_cpu.stage_api.Stages`; graphs open when a stage is first used.

    May be used from several threads at once.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int,
        *,
        low_memory: bool = False,
        engines: Engines | None = None,
        recording: Recording | None = None,
        keep_prepacked: bool = False,
    ) -> None:
        """With `low_memory` only the graphs of stages in use stay open: one, or one per thread.

        `engines` take the place of the manifest's for single components. Graphs opened for
        `recording` write down what their kernels take. With `keep_prepacked` weights as kernels
        want them are looked for, and kept, in the user's cache (`runtime.prepacked_graphs`).
        """
        self.bundle = bundle
        self.threads = threads
        self.low_memory = low_memory
        self._engines = engines
        self._options = EngineOptions(threads, low_memory, recording, keep_prepacked)
        self._open: dict[str, Any] = {}  # what was opened, by component or part of one
        # Also what was released while a thread is still using it: opened again, it would be there
        # twice.
        self._alive: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._lock = threading.RLock()
        self._prompts = PromptPasts()
        self._prompt_files = PromptFiles(bundle.manifest)
        super().__init__(bundle.manifest.audio, bundle.manifest.synthesis)

    @classmethod
    def load(
        cls,
        path: Path,
        threads: int = 1,
        *,
        trust: bool = False,
        low_memory: bool = False,
        engines: Engines | None = None,
        recording: Recording | None = None,
    ) -> BundleStages:
        """Check the bundle at `path` and prepare it; `trust` skips the digests.

        Raises: BundleError, ManifestError.
        """
        return cls(
            open_bundle(path, trust=trust),
            threads,
            low_memory=low_memory,
            engines=engines,
            recording=recording,
            keep_prepacked=True,
        )

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def chosen_engines(self) -> dict[ComponentName, str]:
        """Names of the engines that take the place of the manifest's."""
        given = (self._engines or {}).items()
        return {name: engine for name, engine in given if isinstance(engine, str)}

    @property
    def bundle_path(self) -> Path:
        """The bundle's folder, absolute."""
        return self.bundle.path

    @property
    def max_frames(self) -> int:
        """Mel frames, prompt included, that flow and vocoder take in one piece.

        The ladder's top, even where an engine takes any length: texts are cut by it, and the same
        seed says the same whatever the engine.
        """
        ladders = [self.bundle.component(n).shapes.sizes for n in ("flow_estimator", "vocoder")]
        return min([self.synthesis.max_frames, *(sizes[-1] for sizes in ladders if sizes)])

    @property
    def open_components(self) -> set[str]:
        """Components whose graphs are open now, or were not needed since their first use."""
        with self._lock:
            return set(self._open)

    def release(self, stage: str) -> None:
        """Close the graphs of "speech_lm", "flow" or "vocoder"; their next use opens them again.

        Where another thread is using them they close after that. Raises: KeyError for another name.
        """
        with self._lock:
            for name in _PARTS[stage]:
                self._open.pop(name, None)

    def _graphs(self, name: ComponentName) -> ComponentGraphs:
        return ComponentGraphs(self.bundle, name, self._options, self._engines)

    def _opened(
        self,
        name: ComponentName,
        make: Callable[[ComponentGraphs], Part],
        part: str | None = None,
    ) -> Part:
        """What `make` made of the component's graphs, now or earlier; `part` if there are more."""
        key = part or name
        with self._lock:
            if self.low_memory:
                for stage, names in _PARTS.items():
                    if name not in names:
                        self.release(stage)
            if key not in self._open:
                found = self._alive.get(key)
                self._open[key] = make(self._graphs(name)) if found is None else found
                self._alive[key] = self._open[key]
            made: Part = self._open[key]
            return made

    def _speech_lm(self) -> SpeechLMStage:
        return self._opened("speech_lm", lambda graphs: SpeechLMStage(graphs, self.bundle))

    def _flow_encoder(self) -> FlowEncoderStage:
        return self._opened("flow_encoder", lambda graphs: FlowEncoderStage(graphs, self.synthesis))

    def _flow_estimator(self) -> FlowEstimatorStage:
        return self._opened(
            "flow_estimator", lambda graphs: FlowEstimatorStage(graphs, self.synthesis)
        )

    def _flow_stream(self) -> FlowStreamStage:
        encoder = self._flow_encoder()
        return self._opened(
            "flow_estimator",
            lambda graphs: FlowStreamStage(graphs, encoder, self.audio, self.synthesis),
            "flow_stream",
        )

    def _vocoder(self) -> VocoderStage:
        return self._opened(
            "vocoder", lambda graphs: VocoderStage(graphs, self.audio, self.synthesis)
        )

    def speech_lm_session(self) -> CachedSession:
        """An empty KV cache, for a caller that decodes token by token."""
        return self._speech_lm().start()

    def speech_lm_logits(
        self,
        text_ids: Sequence[int],
        speech_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        embedding: Floats | None = None,
    ) -> Floats:
        """One pass over prompt and forced tokens; `embedding` is unused in generation 3."""
        speech_lm = self._speech_lm()
        speech = [*prompt_speech_ids, *speech_ids]
        rows = speech_lm.embedding.rows(text_ids, prompt_text_ids, speech)
        return speech_lm.start().append(rows, wanted=len(speech_ids) + 1)

    def flow_condition(
        self,
        tokens: Sequence[int],
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        finalize: bool = True,
        streaming: bool = False,
    ) -> FlowCondition:
        """`streaming` is unused in generation 3: its encoder has no attention to mask.

        Raises: SynthesisError if no frame follows the prompt's, or an id is out of range.
        """
        ids = [*prompt_tokens, *tokens]
        used = len(ids) - (0 if finalize else self.synthesis.pre_lookahead_tokens)
        if self.audio.frames_of(used) <= len(prompt_mel):
            raise SynthesisError(
                f"{len(ids)} speech tokens leave no mel frame behind the {len(prompt_mel)} "
                "of the prompt",
                "give a longer text",
            )
        mu, speaker = self._flow_encoder().encode(ids, embedding, finalize=finalize)
        cond = np.zeros_like(mu)
        cond[:, : len(prompt_mel)] = np.asarray(prompt_mel, np.float32).T
        return {"mu": mu, "cond": cond, "speaker": speaker}

    def flow_velocity(
        self,
        x: Floats,
        mask: Floats,
        mu: Floats,
        t: Floats,
        speaker: Floats,
        cond: Floats,
        *,
        streaming: bool = False,
    ) -> Floats:
        """The estimator once, at a time of its table. Raises: UsageError for another t."""
        return self._flow_estimator().velocity(x, mask, mu, t, speaker, cond, streaming=streaming)

    @contextlib.contextmanager
    def solving(self, frames: int, *, streaming: bool) -> Iterator[Velocity]:
        """Keeps the graph of that size open. Raises: SynthesisError if the ladder ends below."""
        with self._flow_estimator().solving(frames, streaming=streaming) as velocity:
            yield velocity

    def tokens_to_mel(
        self,
        tokens: Sequence[int],
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        finalize: bool = True,
        streaming: bool = False,
        steps: int = 10,
        noise: Floats | None = None,
        preset: SolverPreset | None = None,
    ) -> Floats:
        """With a preset whose prompt is cached only the target is solved, in one piece behind what
        a stream would compute of the prompt (`noise` can't be chosen then).

        Raises: UsageError for a solver that the graphs were not made for, BundleError if the
        bundle has no graph for streams, which a cached prompt needs.
        """
        preset = preset or cosine_preset(self.synthesis.solver, steps)
        if preset.prompt == "cached" and not streaming:
            if noise is not None:
                raise UsageError(
                    "a cached prompt was solved from the model's own noise",
                    "leave the noise out, or take a preset that solves the prompt",
                )
            voice = (prompt_tokens, prompt_mel, embedding)
            stage = self._flow_stream()
            stage.times.require(preset)
            past = self._prompt_past(voice, False, preset)
            stream = BundleFlowStream(stage, past, *voice, preset)
            return stream.whole(tokens, finalize=finalize)
        self._flow_estimator().times.require(preset)
        mel = super().tokens_to_mel(
            tokens,
            prompt_tokens=prompt_tokens,
            prompt_mel=prompt_mel,
            embedding=embedding,
            finalize=finalize,
            streaming=streaming,
            noise=noise,
            preset=preset,
        )
        give_back()
        return mel

    def mel_to_f0(self, mel: Floats, *, finalize: bool = True) -> Floats:
        """Raises: SynthesisError if `mel` is too short."""
        return self._vocoder().f0(mel, finalize=finalize)

    def f0_to_source(
        self, f0: Floats, *, noise: Floats | None = None, phase: Floats | None = None
    ) -> Floats:
        """`phase` is unused in generation 3. Raises: SynthesisError beyond the fixed noise."""
        return self._vocoder().source(f0, noise)

    def mel_to_waveform(
        self, mel: Floats, *, finalize: bool = True, source: Floats | None = None
    ) -> Floats:
        """Raises: SynthesisError if `mel` is too short or too long, ValueError for a source."""
        waveform = self._vocoder().waveform(mel, finalize=finalize, source=source)
        give_back()
        return waveform

    def flow_stream(
        self,
        *,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        steps: int = 10,
        window_seconds: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        preset: SolverPreset | None = None,
    ) -> BundleFlowStream:
        """A chunk costs its own frames; the prompt's part is computed once per speaker.

        With a window the mel is not exact anyway, and silence is taken for what follows the prompt
        (`FlowStreamStage.prompt_past`).

        Raises: UsageError for a solver that the graphs were not made for, BundleError if the
        bundle has no graph for streams.
        """
        preset = preset or cosine_preset(self.synthesis.solver, steps)
        stage = self._flow_stream()
        stage.times.require(preset)
        window = window_frames(window_seconds, self.audio)
        voice = (prompt_tokens, prompt_mel, embedding)
        past = self._prompt_past(voice, window is None, preset, cancelled)
        return BundleFlowStream(stage, past, *voice, preset, window, cancelled)

    def has_prompt(
        self,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        preset: SolverPreset,
    ) -> bool:
        """Whether what streams with a window, and whole speech with a cached prompt, need of this
        prompt is there, in memory or in the user's cache.
        """
        voice = prompt_digest(prompt_tokens, prompt_mel, embedding)
        path = self._prompt_files.path(voice, False, preset)
        return self._prompts.has(voice, False, preset) or bool(path and path.is_file())

    def prefill_prompt(
        self,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        preset: str = DEFAULT_PRESET,
    ) -> Path:
        """Compute what streams with a window need of a prompt, and keep it in the user's cache.

        It is of one preset, by its name. Returns the file. Raises: UsageError for an unknown
        preset, OutputError if it can't be written.
        """
        voice = (prompt_tokens, prompt_mel, embedding)
        solver = self.synthesis.preset(preset)
        past = self._prompt_past(voice, False, solver)
        return self._prompt_files.save(prompt_digest(*voice), False, solver, past)

    def forget_prompt(
        self, prompt_tokens: Sequence[int], prompt_mel: Floats, embedding: Floats
    ) -> None:
        """Remove the files of `prefill_prompt`, if there are any."""
        digest = prompt_digest(prompt_tokens, prompt_mel, embedding)
        for preset in self.synthesis.solver_presets.values():
            path = self._prompt_files.path(digest, False, preset)
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _prompt_past(
        self,
        voice: tuple[Sequence[int], Floats, Floats],
        exact: bool,
        preset: SolverPreset,
        cancelled: Callable[[], bool] | None = None,
    ) -> PromptPast:
        stage = self._flow_stream()

        def make(digest: bytes) -> PromptPast:
            shapes = [stage.past_shape(entry.rows, 0) for entry in evaluations(preset)]
            kept = self._prompt_files.load(digest, exact, preset, shapes)
            return kept or stage.prompt_past(*voice, preset, exact=exact, cancelled=cancelled)

        return self._prompts.get(*voice, exact, preset, make)

    def vocoder_stream(self) -> BundleVocoderStream:
        """A piece costs its own frames and those looked back on."""
        return BundleVocoderStream(self._vocoder(), self.synthesis.mel.num_mels)
