"""What the pipeline needs to know of a model, taken from the bundle's manifest."""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_cpu.bundle.manifest import Manifest
from cosyvoice_cpu.decoding.sampling import SamplingSettings
from cosyvoice_cpu.decoding.token_loop import DecodingRules


@dataclass(frozen=True)
class SynthesisRules:
    """Rates, limits and marks; nothing here depends on how the stages are computed."""

    sample_rate: int  # Hz
    token_rate: float  # speech tokens per second
    frames_per_token: int
    max_frames: int  # mel frames that flow and vocoder take, prompt included
    decoding: DecodingRules
    silent_tokens: frozenset[int]
    silent_run_limit: int
    solver_steps: int
    system_prefix: str
    end_of_prompt: str


def decoding_rules(manifest: Manifest) -> DecodingRules:
    """The decoding rules of a bundle."""
    synthesis = manifest.synthesis
    sampling = synthesis.sampling
    return DecodingRules(
        speech_vocabulary=synthesis.speech_vocabulary,
        stop_first=synthesis.special_ids.stop_first,
        stop_count=synthesis.special_ids.stop_count,
        original_banned=synthesis.special_ids.original_banned,
        min_token_text_ratio=synthesis.min_token_text_ratio,
        max_token_text_ratio=synthesis.max_token_text_ratio,
        sampling=SamplingSettings(
            sampling.top_p, sampling.top_k, sampling.win_size, sampling.tau_r
        ),
    )


def synthesis_rules(manifest: Manifest, ladder_top: int) -> SynthesisRules:
    """The rules of a bundle whose graphs take at most `ladder_top` mel frames."""
    synthesis = manifest.synthesis
    return SynthesisRules(
        sample_rate=manifest.audio.sample_rate,
        token_rate=manifest.audio.token_rate,
        frames_per_token=round(manifest.audio.mel_frames_per_token),
        max_frames=min(ladder_top, synthesis.max_frames),
        decoding=decoding_rules(manifest),
        silent_tokens=frozenset(synthesis.silent_tokens),
        silent_run_limit=synthesis.silent_run_limit,
        solver_steps=synthesis.solver_steps,
        system_prefix=synthesis.system_prefix,
        end_of_prompt=synthesis.end_of_prompt,
    )
