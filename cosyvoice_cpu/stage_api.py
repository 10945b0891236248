"""The stage API: the seam through which the torch reference and every engine are compared.

    stages = load_reference("checkpoint/", threads=1)  # torch, float32, no ONNX Runtime
    stages = load_bundle("bundle/", threads=1)         # the bundle's engines, no torch

Both return an object with the same methods. Arrays are NumPy float32 or int64, ids are lists of
int; there is a batch dimension only where it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypedDict

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Audio, SolverPreset, Synthesis


class Cancelled(Exception):
    """A computation ended early because its caller asked for that."""


class FlowCondition(TypedDict):
    """What conditions the flow estimator: `mu` and `cond` [80, T], `speaker` [80]."""

    mu: Floats
    cond: Floats
    speaker: Floats


class SpeechLMSession(Protocol):
    """One utterance in a speech LM: its key and value cache, and nothing else."""

    def prefill(
        self,
        text_ids: Sequence[int],
        prompt_text_ids: Sequence[int],
        prompt_speech_ids: Sequence[int],
    ) -> Floats:
        """Read `sos | prompt text | text | task | prompt speech`; logits [rows] of token 0."""
        ...

    def step(self, token_id: int) -> Floats:
        """Read one speech token; logits [rows] of the next one."""
        ...


class FlowStream(Protocol):
    """One utterance's flow, on speech tokens that arrive piece by piece.

    Joined, the mel is `tokens_to_mel(streaming=True)` of the joined tokens.
    """

    def push(self, tokens: Sequence[int]) -> Floats:
        """Log-mel [80, t] that is final now, possibly none, from further tokens."""
        ...

    def finish(self) -> Floats:
        """The rest of the mel."""
        ...


class VocoderStream(Protocol):
    """One utterance's vocoder, on a mel that arrives piece by piece.

    Joined, the samples are `mel_to_waveform` of the joined mel.
    """

    def push(self, mel: Floats) -> Floats:
        """Samples [n] that are final now, possibly none, from further frames [80, t]."""
        ...

    def finish(self) -> Floats:
        """The rest of the samples."""
        ...


class Stages(Protocol):
    """One method per stage of synthesis. N tokens, T mel frames, V speech vocabulary size."""

    @property
    def audio(self) -> Audio:
        """The model's rates."""
        ...

    @property
    def synthesis(self) -> Synthesis:
        """What there is to know of the model besides its networks."""
        ...

    @property
    def max_frames(self) -> int:
        """Mel frames, prompt included, that flow and vocoder take in one piece."""
        ...

    def speech_lm_session(self) -> SpeechLMSession:
        """An empty KV cache, for a caller that decodes token by token."""
        ...

    def speech_lm_logits(
        self,
        text_ids: Sequence[int],
        speech_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        embedding: Floats | None = None,
    ) -> Floats:
        """Raw logits [len(speech_ids) + 1, rows]; row i predicts token i given `speech_ids[:i]`."""
        ...

    def generate_speech_tokens(
        self,
        text_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        sampler: str = "ras",
        seed: int = 0,
        min_tokens: int | None = None,
        max_tokens: int | None = None,
        original_stop_rule: bool = False,
        embedding: Floats | None = None,
    ) -> list[int]:
        """Speech tokens without the stop id; the silent-token rule is not applied.

        `sampler` is "ras" or "greedy". Below the minimum length every stop id is banned;
        `original_stop_rule` bans only the one id that the original bans.
        """
        ...

    def stream_speech_tokens(
        self,
        text_ids: Sequence[int],
        *,
        prompt_text_ids: Sequence[int] = (),
        prompt_speech_ids: Sequence[int] = (),
        sampler: str = "ras",
        seed: int = 0,
        min_tokens: int | None = None,
        max_tokens: int | None = None,
        original_stop_rule: bool = False,
        embedding: Floats | None = None,
    ) -> Iterator[int]:
        """What `generate_speech_tokens` returns, each id as it is drawn.

        Wrong arguments are refused at the call; the model runs when an id is asked for. Closing or
        dropping the iterator ends the utterance and frees its cache.
        """
        ...

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
        """Condition of the estimator; `prompt_mel` [frames, 80], `embedding` [192] as cached."""
        ...

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
        """Velocity [B, 80, T]; x, mu, cond [B, 80, T], mask [B, 1, T], t [B], speaker [B, 80]."""
        ...

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
        """Log-mel [80, frames] of `tokens`, the prompt's part removed.

        `preset` says how the flow is solved; None takes the default one, with so many `steps` of
        the cosine grid if it has another number.
        """
        ...

    def mel_to_f0(self, mel: Floats, *, finalize: bool = True) -> Floats:
        """f0 [frames] in Hz from log-mel [80, T]; three frames fewer unless `finalize`."""
        ...

    def f0_to_source(
        self, f0: Floats, *, noise: Floats | None = None, phase: Floats | None = None
    ) -> Floats:
        """Excitation source [1, samples] from f0 [frames] in Hz.

        `noise` [samples, harmonics] takes the place of the fixed one, `phase` [harmonics] in rad
        that of the drawn one where a generation draws it.
        """
        ...

    def mel_to_waveform(
        self, mel: Floats, *, finalize: bool = True, source: Floats | None = None
    ) -> Floats:
        """Waveform [samples] at 24 kHz; `source` [1, samples] replaces the harmonic source."""
        ...

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
    ) -> FlowStream:
        """A flow for one utterance whose tokens arrive piece by piece.

        `steps` and `preset` as for `tokens_to_mel`. `window_seconds` bounds the past that is kept
        beside the prompt; None keeps all. Once `cancelled` says so, what runs raises `Cancelled`
        before its next evaluation of the network.
        """
        ...

    def vocoder_stream(self) -> VocoderStream:
        """A vocoder for one utterance whose mel arrives piece by piece."""
        ...
