"""What the run time is told of a checkpoint, in the records of the manifest.

The bundle carries them in its manifest; the torch reference takes them from here.
"""

from __future__ import annotations

from collections.abc import Mapping

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, Audio, SolverPreset, SpeechIds, Synthesis
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.decoding.noise import harmonic_noise_skip
from cosyvoice_cpu.decoding.preset_candidates import searched_times
from cosyvoice_cpu.decoding.solver import evaluation_times, time_grid
from cosyvoice_cpu.generations import Generation


def audio_settings(config: CheckpointConfig) -> Audio:
    """The rates."""
    return Audio(
        sample_rate=config.sample_rate,
        token_rate=float(config.token_frame_rate),
        mel_frames_per_token=float(config.flow.token_mel_ratio),
    )


def synthesis_settings(
    generation: Generation,
    config: CheckpointConfig,
    presets: Mapping[str, SolverPreset] | None = None,
) -> Synthesis:
    """The generation's differences and the checkpoint's settings.

    `presets` come beside the checkpoint's default or in its place. Without them the flow is made
    for the times of all that a search of presets may try, too.
    """
    flow, vocoder = config.flow, config.vocoder
    vocabulary = config.speech_lm.speech_token_size
    special = generation.special_ids
    default = SolverPreset(
        method="euler",
        steps=generation.solver_steps,
        grid=[float(t) for t in time_grid(generation.solver_steps)],
        guidance_rate=flow.inference_cfg_rate,
        guidance_range=(0.0, 1.0),
    )
    solvers = {DEFAULT_PRESET: default, **(presets or {})}
    return Synthesis(
        speech_vocabulary=vocabulary,
        special_ids=SpeechIds(
            sos=vocabulary + special.sos,
            task=vocabulary + special.task,
            stop_first=vocabulary + special.stop_first,
            stop_count=special.stop_count,
            original_banned=vocabulary + special.original_banned,
        ),
        # Small research vocabularies lack some of the ids; what isn't there can't be silent.
        silent_tokens=sorted(i for i in generation.silent_tokens if i < vocabulary),
        silent_run_limit=generation.silent_run_limit,
        min_token_text_ratio=generation.min_token_text_ratio,
        max_token_text_ratio=generation.max_token_text_ratio,
        sampling=config.sampling,
        solver_presets=solvers,
        solver_times=(
            searched_times(default) if presets is None else evaluation_times([*solvers.values()])
        ),
        pre_lookahead_tokens=flow.pre_lookahead_len,
        chunk_frames=flow.estimator.static_chunk_size,
        max_frames=generation.fixed_noise_frames,
        harmonic_noise_skip=harmonic_noise_skip(
            flow_noise_frames=generation.fixed_noise_frames,
            flow_vocab_size=flow.vocab_size,
            mel_bins=flow.output_size,
            spk_embed_dim=flow.spk_embed_dim,
            f0_channels=vocoder.f0_channels,
            in_channels=vocoder.in_channels,
            harmonics=vocoder.harmonics,
        ),
        harmonics=vocoder.harmonics,
        vocoder_lookahead_frames=generation.vocoder_lookahead_frames,
        f0_lookahead_frames=generation.f0_lookahead_frames,
        system_prefix=generation.system_prefix,
        end_of_prompt=generation.end_of_prompt,
        mel=config.mel,
        speaker_embedding_size=flow.spk_embed_dim,
    )
