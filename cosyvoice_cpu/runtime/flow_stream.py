"""The flow on tokens that arrive piece by piece: what is final is computed once, and kept.

With the streaming mask a frame attends to its own chunk and to all before it, and the noise is
fixed by position. So every chunk is final once the tokens that its encoder looks ahead to are
there, and its keys and values are constants of each evaluation of the solver: a chunk costs its own
frames, however much was said before. The prompt's are constants of the speaker, computed once.

    prompt chunks | chunks that hold prompt and target | the last chunks of the target | new frames
    `PromptPast`    kept as long as the stream is        as many as the window holds

Source: CosyVoice cosyvoice/flow/DiT/dit.py (`static_chunk_size`) and
cosyvoice/flow/flow_matching.py. The original computes prompt and past anew for every chunk, and its
last call attends to everything; here the last chunk is like the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Audio, SolverPreset, Synthesis
from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.decoding.solver import evaluations, solve
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.runtime.activation_arena import at_end_of
from cosyvoice_cpu.runtime.flow import FlowEncoderStage, TimeTable
from cosyvoice_cpu.runtime.ladder import ComponentGraphs
from cosyvoice_cpu.runtime.prompt_past import Halves, PromptPast
from cosyvoice_cpu.runtime.recent_past import RecentPast, WindowMemory
from cosyvoice_cpu.stage_api import Cancelled

_PARTS = 2  # key, value


class FlowStreamStage:
    """The estimator's graph for one chunk, and what is known of its caches."""

    def __init__(
        self,
        graphs: ComponentGraphs,
        encoder: FlowEncoderStage,
        audio: Audio,
        synthesis: Synthesis,
    ) -> None:
        """Raises: BundleError if the engine refuses the graph, or the bundle has none."""
        self.times = TimeTable(graphs, synthesis)
        self.encoder, self.audio, self.synthesis = encoder, audio, synthesis
        self.spec = graphs.spec.graph("stream")
        self._graph = graphs.open("stream")
        self.require_frames = graphs.require_frames
        shapes = {tensor.name: tensor.shape for tensor in self._graph.inputs}
        first = self.spec.caches[0]
        self.layers = next(n for n in count() if first.tensors(n)[0].name not in shapes)
        self._heads, self._dim_head = (int(shapes["prompt_key_0"][axis]) for axis in (1, 3))
        self._history = shapes["history"]
        self.memory = WindowMemory()

    def no_past(self, preset: SolverPreset) -> PromptPast:
        """Where there is no prompt, or none of its chunks is whole."""
        rows = [entry.rows for entry in evaluations(preset)]
        convolutions, _, channels, taps = self._history
        history = [(int(convolutions), count, int(channels), int(taps)) for count in rows]
        return PromptPast(
            0,
            [np.zeros(self.past_shape(count, 0), np.float16) for count in rows],
            [np.zeros(shape, np.float32) for shape in history],
        )

    def past_shape(self, rows: int, frames: int) -> tuple[int, ...]:
        """[layers, key and value, rows, heads, frames, dim_head]."""
        return (self.layers, _PARTS, rows, self._heads, frames, self._dim_head)

    def velocity(
        self,
        x: Floats,
        mu: Floats,
        cond: Floats,
        speaker: Floats,
        *,
        step: int,
        position: int,
        history: Floats,
        prompt: Halves,
        recent: Halves,
    ) -> tuple[Floats, Floats, list[Halves]]:
        """Velocity [rows, mel bins, T], the history after, and the frames' own keys and values.

        x, mu, cond [rows, mel bins, T], speaker [rows, mel bins]; `step` is the row of the table of
        times, `prompt` and `recent` are of this evaluation.
        What is returned of the frames is [rows, heads, T, dim_head] for each layer's key and value.
        """
        feed = self.spec.feed(x, mu, cond, speaker, step, [position], history)
        names = []
        for layer in range(self.layers):
            for index, cache in enumerate(self.spec.caches):
                past, present = cache.tensors(layer)
                part = prompt if present is None else recent
                feed[past.name] = part[layer, index % _PARTS]
                names += [present.name] if present else []
        outputs = self._graph.run(feed)
        velocity, history_after = self.spec.results(outputs)
        return velocity, history_after, [outputs[name] for name in names]

    def prompt_past(
        self,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        preset: SolverPreset,
        *,
        exact: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> PromptPast:
        """Keys, values and history of all chunks that the prompt alone decides.

        The encoder looks ahead from the prompt's last tokens into the target. With `exact` off
        silence is taken for it, as at the beginning of most speech, so that a prompt of whole
        chunks is a constant to its end. Raises: SynthesisError for ids outside the vocabulary.
        """
        synthesis, chunk = self.synthesis, self.synthesis.chunk_frames
        ahead = 0 if exact else synthesis.pre_lookahead_tokens
        followed = [*prompt_tokens, *synthesis.silent_tokens[:ahead]]
        known = self.audio.frames_of(max(0, len(followed) - synthesis.pre_lookahead_tokens))
        frames = min(known, len(prompt_mel)) // chunk * chunk
        nothing = self.no_past(preset)
        if not frames:
            return nothing
        voice = (followed, prompt_mel, embedding)
        stream = BundleFlowStream(self, nothing, *voice, preset, cancelled=cancelled)
        stream.compute(frames)
        return stream.past()


class BundleFlowStream:
    """One utterance's flow; see `cosyvoice_cpu.stage_api.FlowStream`."""

    def __init__(
        self,
        stage: FlowStreamStage,
        prompt: PromptPast,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        preset: SolverPreset,
        window_frames: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """`window_frames` bounds the past that is kept beside the prompt, in whole chunks."""
        self._cancelled, self._preset = cancelled, preset
        synthesis = stage.synthesis
        chunk = synthesis.chunk_frames
        self._stage, self._prompt, self._embedding = stage, prompt, embedding
        self._prompt_mel = np.asarray(prompt_mel, np.float32).T  # [mel bins, frames]
        # Chunks behind the shared ones that hold frames of the prompt.
        pinned = -(-(len(prompt_mel) - prompt.frames) // chunk)
        window = None if window_frames is None else max(1, -(-window_frames // chunk))
        self._tokens = list(prompt_tokens)
        self._done = prompt.frames
        self._history = list(prompt.history)
        self._recent = RecentPast(
            stage.past_shape,
            rows=[entry.rows for entry in evaluations(preset)],
            chunk=chunk,
            most_chunks=None if window is None else pinned + window,
            pinned_chunks=pinned,
            memory=stage.memory,
        )
        self._ended = False
        self._give_back = at_end_of(self)

    def push(self, tokens: Sequence[int]) -> Floats:
        """Log-mel [mel bins, frames] that is final now, from further tokens.

        Raises: ValueError behind the end, SynthesisError for ids outside the vocabulary or beyond
        the longest input.
        """
        if self._ended:
            raise ValueError("the stream has ended")
        self._tokens += tokens
        stage, chunk = self._stage, self._stage.synthesis.chunk_frames
        known = len(self._tokens) - stage.synthesis.pre_lookahead_tokens
        return self.compute(stage.audio.frames_of(max(0, known)) // chunk * chunk)

    def finish(self) -> Floats:
        """The rest of the mel. Raises: SynthesisError if no frame follows the prompt's."""
        if self._ended:
            return self._prompt_mel[:, :0]
        self._ended = True
        frames = self._stage.audio.frames_of(len(self._tokens))
        self._require_target(frames)
        mel = self.compute(frames)
        self._recent.close()
        self._give_back()
        return mel

    def whole(self, tokens: Sequence[int], *, finalize: bool) -> Floats:
        """Log-mel [mel bins, frames] of all `tokens` in one piece, which attends to all of itself.

        Nothing can be pushed after it. Raises: SynthesisError as `finish`.
        """
        self._tokens += tokens
        ahead = 0 if finalize else self._stage.synthesis.pre_lookahead_tokens
        end = self._stage.audio.frames_of(len(self._tokens) - ahead)
        start, prompt_frames = self._done, self._prompt_mel.shape[1]
        self._require_target(end)
        self._ended = True
        mel = self._chunk(end - start)[:, prompt_frames - start :]
        self._recent.close()
        self._give_back()
        return mel

    def compute(self, end: int) -> Floats:
        """The mel up to frame `end`, without the prompt's part."""
        chunk, prompt_frames = self._stage.synthesis.chunk_frames, self._prompt_mel.shape[1]
        pieces = [np.zeros((self._prompt_mel.shape[0], 0), np.float32)]
        while self._done < end:
            start = self._done
            mel = self._chunk(min(chunk, end - start))
            pieces.append(mel[:, max(0, prompt_frames - start) :])
        return np.concatenate(pieces, axis=1)

    def _require_target(self, end: int) -> None:
        prompt_frames = self._prompt_mel.shape[1]
        if end <= prompt_frames:
            raise SynthesisError(
                f"{len(self._tokens)} speech tokens leave no mel frame behind the "
                f"{prompt_frames} of the prompt",
                "give a longer text",
            )

    def past(self) -> PromptPast:
        """All that was computed, as the prompt of other streams; only without a window."""
        parts = zip(self._prompt.attended, self._recent.all(), strict=True)
        attended = [np.concatenate(pair, axis=4) for pair in parts]
        return PromptPast(self._done, attended, self._history)

    def _chunk(self, frames: int) -> Floats:
        """The next `frames` frames of log-mel [mel bins, frames], solved."""
        stage, start = self._stage, self._done
        stage.require_frames(start + frames)
        synthesis = stage.synthesis
        mu, speaker = self._condition(start, start + frames)
        cond = np.zeros_like(mu)
        known = self._prompt_mel[:, start : start + frames]
        cond[:, : known.shape[1]] = known
        noise = flow_noise(start + frames, len(mu), synthesis.max_frames)[:, start:]
        order = count()
        chunk = synthesis.chunk_frames
        number = (start - self._prompt.frames) // chunk

        def velocity(
            x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
        ) -> Floats:
            if self._cancelled and self._cancelled():
                raise Cancelled
            index = next(order)
            result, self._history[index], fresh = stage.velocity(
                *(x, mu, cond, speaker),
                step=stage.times.row(float(t[0])),
                position=start,
                history=self._history[index],
                prompt=self._prompt.attended[index],
                recent=self._recent.of(index),
            )
            if frames == chunk:  # the last of a stream is not whole, and nothing follows it
                self._recent.add(index, number, fresh)
            return result

        mel = solve(velocity, noise, mu, cond, speaker, preset=self._preset)
        self._done += frames
        return mel

    def _condition(self, start: int, end: int) -> tuple[Floats, Floats]:
        """`mu` [mel bins, end - start] of these frames and `speaker` [mel bins]."""
        stage, audio = self._stage, self._stage.audio
        first = max(0, audio.tokens_within(start) - stage.encoder.past)
        ahead = stage.synthesis.pre_lookahead_tokens
        last = math.ceil(end / audio.frames_per_token) + ahead
        tokens = self._tokens[first:last]
        finalize = len(self._tokens) < last
        mu, speaker = stage.encoder.encode(tokens, self._embedding, finalize=finalize)
        skipped = start - audio.frames_of(first)
        return mu[:, skipped : skipped + end - start], speaker


def window_frames(seconds: float | None, audio: Audio) -> int | None:
    """`window_seconds` of `flow_stream` in frames. Raises: UsageError if it is no time."""
    if seconds is None:
        return None
    if not 0 < seconds < float("inf"):
        raise UsageError(f"a window of {seconds:g} s holds nothing", "2 is enough, None is all")
    return math.ceil(seconds * audio.frame_rate)
