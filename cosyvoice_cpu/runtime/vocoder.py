"""What f0 predictor, excitation and generator are fed, whatever engine runs them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Audio, Synthesis
from cosyvoice_cpu.decoding.noise import harmonic_noise
from cosyvoice_cpu.errors import BundleError, SynthesisError, first_line
from cosyvoice_cpu.runtime.ladder import ComponentGraphs


def _disagreement(what: str) -> BundleError:
    """Of graphs whose axes are open, this shows when they run."""
    return BundleError(
        f"the vocoder's graphs do not fit the manifest: {what}",
        "the manifest was changed or is of another model; get the bundle again",
    )


class VocoderStage:
    """Log-mel to waveform, padded to the ladder."""

    def __init__(self, graphs: ComponentGraphs, audio: Audio, synthesis: Synthesis) -> None:
        """Raises: BundleError if the engine refuses a graph."""
        self._graphs = graphs
        self._spec = graphs.spec.graph("generator")
        self._synthesis = synthesis
        self.samples_per_frame = audio.samples_per_frame
        # What the generator's first convolution looks ahead: all but the f0 predictor's share and
        # the one frame that the overlap-add of the inverse STFT can't finish.
        self.f0_ahead = synthesis.f0_lookahead_frames
        self._mel_ahead = synthesis.vocoder_lookahead_frames - self.f0_ahead - 1
        self._f0_spec = graphs.spec.graph("f0_predictor")
        # What streams have to know of the graphs: frames that they look ahead and back.
        self.ahead: int = synthesis.vocoder_lookahead_frames
        self.f0_past: int = self._f0_spec.past
        self.past: int = self._spec.past
        self.max_frames: int | None = graphs.max_frames
        self._f0 = graphs.open("f0_predictor")
        self._source_spec = graphs.spec.graph("excitation")
        self._source = graphs.open("excitation")

    def f0(self, mel: Floats, *, finalize: bool) -> Floats:
        """f0 [T] in Hz from log-mel [mel bins, T]; the look-ahead fewer unless `finalize`.

        Raises: SynthesisError if `mel` is too short, BundleError if the manifest does not fit.
        """
        self._require_length(mel, finalize)
        ahead = self.f0_ahead if finalize else 0
        feed = self._f0_spec.feed(np.pad(mel, ((0, 0), (0, ahead))))
        (f0,) = self._f0_spec.results(self._f0.run(feed))
        if len(f0) != mel.shape[1] + ahead - self.f0_ahead:
            raise _disagreement(
                f"the f0 predictor gives {len(f0)} values for {mel.shape[1]} frames"
            )
        return f0

    def source(self, f0: Floats, noise: Floats | None = None) -> Floats:
        """Excitation source [1, samples] from f0 [T] in Hz, on `noise` or the fixed one.

        Raises: SynthesisError beyond the length of the fixed noise, BundleError if the manifest
        does not fit.
        """
        return self.excite(f0, self.noise(0, len(f0)) if noise is None else noise, self.no_turns)[0]

    @property
    def no_turns(self) -> NDArray[np.float64]:
        """The phase [1, harmonics] before the first frame."""
        return np.zeros((1, self._synthesis.harmonics))

    def noise(self, start: int, frames: int) -> Floats:
        """The fixed noise [samples, harmonics] of the frames from `start` on.

        Raises: SynthesisError beyond its length.
        """
        samples = self.samples_per_frame
        drawn = harmonic_noise(
            (start + frames) * samples,
            self._synthesis.harmonic_noise_skip,
            self._synthesis.harmonics,
            self._synthesis.max_frames * samples,
        )
        return drawn[start * samples :]

    def excite(
        self, f0: Floats, noise: Floats, turns: NDArray[np.float64]
    ) -> tuple[Floats, NDArray[np.float64]]:
        """Source [1, samples] of f0 [T] in Hz that goes on from the phase `turns` [1, harmonics],
        and the phase behind it.

        Raises: BundleError if the manifest does not fit.
        """
        try:
            outputs = self._source.run(self._source_spec.feed(f0, noise, turns))
        except Exception as error:  # engines' exceptions have no common class of their own
            raise _disagreement(f"the excitation fails ({first_line(error)})") from error
        source, after = self._source_spec.results(outputs)
        if source.shape != (1, len(f0) * self.samples_per_frame):
            raise _disagreement(f"the excitation has {source.shape} for {len(f0)} frames")
        return source, after

    def waveform(self, mel: Floats, *, finalize: bool, source: Floats | None = None) -> Floats:
        """Samples [T * samples per frame] from log-mel [mel bins, T].

        The look-ahead fewer frames unless `finalize`. Raises: SynthesisError if `mel` is too short
        or too long, ValueError for a wrong source.
        """
        if source is None:
            source = self.source(self.f0(mel, finalize=finalize))
        self._require_length(mel, finalize)
        available, rest = divmod(source.shape[1], self.samples_per_frame)
        least = 1 if finalize else self._mel_ahead + 2
        if rest or not least <= available <= mel.shape[1]:
            raise ValueError(f"source {source.shape} does not fit mel {mel.shape}")
        frames = available if finalize else available - self._mel_ahead
        waveform = self._generate(mel[:, :available], source, frames)
        # Without an end, the last frame's overlap-add lacks what would follow.
        used = frames if finalize else frames - 1
        return waveform[: used * self.samples_per_frame]

    def _generate(self, mel: Floats, source: Floats, frames: int) -> Floats:
        """Run the graph on `frames` frames; mel beyond them, if any, is context."""
        samples = frames * self.samples_per_frame
        with self._graphs.for_frames("generator", frames) as (graph, size):
            padding = size * self.samples_per_frame - samples
            feed = self._spec.feed(
                np.pad(mel, ((0, 0), (0, size + self._mel_ahead - mel.shape[1])))[None],
                np.pad(source[:, :samples], ((0, 0), (0, padding))),
                [frames],
            )
            (waveform,) = self._spec.results(graph.run(feed))
        only: Floats = waveform[0]
        return only

    def _require_length(self, mel: Floats, finalize: bool) -> None:
        least = 1 if finalize else self._synthesis.vocoder_lookahead_frames + 1
        if mel.shape[1] < least:
            raise SynthesisError(
                f"a mel of {mel.shape[1]} frames is too short for the vocoder, which needs {least}",
                "give a longer text",
            )
