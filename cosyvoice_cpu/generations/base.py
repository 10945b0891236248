"""The record that describes one generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.generations.components import ComponentSpec


@dataclass(frozen=True)
class SpecialIds:
    """Offsets of the special ids from the speech vocabulary size V, in the speech table."""

    sos: int
    eos: int
    task: int
    stop_first: int
    stop_count: int  # ids V + stop_first .. V + stop_first + stop_count - 1 all stop
    original_banned: int  # the one id that the original bans below the minimum length


@dataclass(frozen=True)
class Generation:
    """What one CosyVoice generation is, as data.

    Source: CosyVoice cosyvoice/cli/model.py, llm/llm.py and tokenizer/tokenizer.py.
    """

    name: str  # as in the manifest: "cosyvoice3"
    title: str
    checkpoint_adapter: str  # module that reads what the YAML file decides; named, not imported
    yaml_file: str
    speech_lm_files: dict[str, str]  # choice of --speech-lm to file name
    flow_file: str
    vocoder_file: str
    tied_keys: dict[str, str]  # tensors that are in the file twice, to the one that is read
    text_folder: str  # official folder of the text model's configuration and vocabulary
    speaker_encoder_file: str
    speech_tokenizer_file: str
    special_ids: SpecialIds
    speech_table_extra_rows: int
    special_tokens: tuple[str, ...]  # added to the text tokenizer in this order
    system_prefix: str  # stands before the end-of-prompt mark
    end_of_prompt: str
    silent_tokens: frozenset[int]
    silent_run_limit: int
    min_token_text_ratio: float
    max_token_text_ratio: float
    solver_steps: int
    fixed_noise_frames: int  # mel frames of the flow's fixed noise, prompt included
    vocoder_lookahead_frames: int  # f0 and conv_pre together, plus the frame cut after the iSTFT
    f0_lookahead_frames: int  # of these, what the f0 predictor takes
    components: Mapping[ComponentName, ComponentSpec]  # the networks, in the pipeline's order
