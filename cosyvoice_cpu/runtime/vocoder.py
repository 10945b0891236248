"""Vocoder on ONNX Runtime: f0, excitation source and generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.decoding.noise import harmonic_noise
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.runtime.flow import HALF_STORAGE, graph_file
from cosyvoice_cpu.runtime.ladder import size_for
from cosyvoice_cpu.runtime.sessions import SessionLadder, open_session


class VocoderEngine:
    """Log-mel to waveform, padded to the ladder."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Raises: BundleError if the component is missing or the engine refuses it."""
        component = bundle.component("vocoder")
        manifest = bundle.manifest
        self._synthesis = manifest.synthesis
        frame_rate = manifest.audio.token_rate * manifest.audio.mel_frames_per_token
        self._samples_per_frame = round(manifest.audio.sample_rate / frame_rate)
        self._sizes = component.shapes.sizes
        # What the generator's first convolution looks ahead: all but the f0 predictor's share and
        # the one frame that the overlap-add of the inverse STFT can't finish.
        self._f0_ahead = self._synthesis.f0_lookahead_frames
        self._mel_ahead = self._synthesis.vocoder_lookahead_frames - self._f0_ahead - 1
        self._f0 = open_session(bundle.file("vocoder", "f0_predictor.onnx"), threads, prepack=False)
        self._source = open_session(
            bundle.file("vocoder", "excitation.onnx"), threads, prepack=False
        )

        def open_size(variant: str, size: int | None) -> Any:
            return open_session(
                bundle.file("vocoder", graph_file(variant, size)),
                threads,
                prepack=False,
                fold=component.precision != HALF_STORAGE,
            )

        self._ladder = SessionLadder(open_size)

    @property
    def max_frames(self) -> int | None:
        """The ladder's top, None if any length works."""
        return self._sizes[-1] if self._sizes else None

    def f0(self, mel: Floats, *, finalize: bool) -> Floats:
        """f0 [T] in Hz from log-mel [80, T]; three frames fewer unless `finalize`."""
        self._require_length(mel, finalize)
        ahead = self._f0_ahead if finalize else 0
        padded = np.pad(np.asarray(mel, np.float32), ((0, 0), (0, ahead)))
        f0: Floats = self._f0.run(["f0"], {"mel": padded})[0]
        return f0

    def source(self, f0: Floats) -> Floats:
        """Excitation source [1, T * 480] from f0 [T] in Hz.

        Raises: SynthesisError beyond the 300 s of the fixed noise.
        """
        noise = harmonic_noise(
            len(f0) * self._samples_per_frame,
            self._synthesis.harmonic_noise_skip,
            self._synthesis.harmonics,
        )
        feed = {"f0": np.asarray(f0, np.float32), "noise": noise}
        source: Floats = self._source.run(["source"], feed)[0]
        return source

    def waveform(self, mel: Floats, *, finalize: bool, source: Floats | None = None) -> Floats:
        """Samples [T * 480] from log-mel [80, T]; eight frames fewer unless `finalize`.

        Raises: SynthesisError if `mel` is too short or too long, ValueError for a wrong source.
        """
        if source is None:
            source = self.source(self.f0(mel, finalize=finalize))
        self._require_length(mel, finalize)
        available, rest = divmod(source.shape[1], self._samples_per_frame)
        least = 1 if finalize else self._mel_ahead + 2
        if rest or not least <= available <= mel.shape[1]:
            raise ValueError(f"source {source.shape} does not fit mel {mel.shape}")
        mel = np.asarray(mel[:, :available], np.float32)
        frames = available if finalize else available - self._mel_ahead
        waveform = self._generate(mel, source, frames)
        # Without an end, the last frame's overlap-add lacks what would follow.
        used = frames if finalize else frames - 1
        return waveform[: used * self._samples_per_frame]

    def _generate(self, mel: Floats, source: Floats, frames: int) -> Floats:
        """Run the graph on `frames` frames; mel beyond them, if any, is context."""
        size = size_for(frames, self._sizes) if self._sizes else frames
        if size is None:
            raise SynthesisError(
                f"{frames} mel frames exceed the bundle's longest graph of {self._sizes[-1]}",
                "shorten the text, or export with a larger --max-seconds",
            )
        session = self._ladder.get("generator", size if self._sizes else None)
        samples = frames * self._samples_per_frame
        padding = size * self._samples_per_frame - samples
        feed = {
            "mel": np.pad(mel, ((0, 0), (0, size + self._mel_ahead - mel.shape[1])))[None],
            "source": np.pad(np.asarray(source[:, :samples], np.float32), ((0, 0), (0, padding))),
            "valid_frames": np.array([frames]),
        }
        waveform: Floats = session.run(["waveform"], feed)[0][0]
        return waveform

    def _require_length(self, mel: Floats, finalize: bool) -> None:
        least = 1 if finalize else self._synthesis.vocoder_lookahead_frames + 1
        if mel.shape[1] < least:
            raise SynthesisError(
                f"a mel of {mel.shape[1]} frames is too short for the vocoder, which needs {least}",
                "give a longer text",
            )
