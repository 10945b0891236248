"""`cosyvoice-cpu synth`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosyvoice_cpu.cli.options import (
    EngineOption,
    JsonOption,
    SpeakersOption,
    StreamWorkersOption,
    ThreadsOption,
    TrustOption,
)

if TYPE_CHECKING:
    from cosyvoice_cpu.bundle.manifest import SolverPreset
    from cosyvoice_cpu.frontend.clip import Clip
    from cosyvoice_cpu.frontend.speakers import Speaker
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages
    from cosyvoice_cpu.synthesis.audio_files import AudioWriter

STDOUT = Path("-")


class Format(str, Enum):
    """Of audio; the names that `--output`'s suffixes have."""

    wav = "wav"
    flac = "flac"
    ogg = "ogg"
    opus = "opus"
    mp3 = "mp3"
    pcm = "pcm"


class Mode(str, Enum):
    """How the speaker's clip is used."""

    zero_shot = "zero-shot"
    cross_lingual = "cross-lingual"
    instruct = "instruct"


def synth(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to say; - reads it from stdin.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A .wav, .flac, .ogg, .opus, .mp3 or .pcm file; - is stdout."
        ),
    ] = None,
    text_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A UTF-8 file with what to say; - is stdin."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            envvar="COSYVOICE_CPU_BUNDLE",
            help="The model; by default the embedded demo.",
        ),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who speaks; by default the first that there is."),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(metavar="CLIP", help="A clip of who is to speak, in place of --speaker."),
    ] = None,
    transcript: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The words spoken in --audio.")
    ] = None,
    speakers: SpeakersOption = None,
    mode: Annotated[
        Mode | None,
        typer.Option(help="By default what --instruct and the speaker's transcript allow."),
    ] = None,
    instruct: Annotated[
        str | None, typer.Option(metavar="TEXT", help="How to speak, for mode instruct.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides every random draw.")] = 0,
    speed: Annotated[float, typer.Option(metavar="X", help="0.5 to 2; above 1 is faster.")] = 1.0,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="How the flow is solved: default, or fast if the bundle has it."
        ),
    ] = None,
    target_rtf: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Take the best-sounding preset that needs at most X seconds for a second here.",
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(metavar="HZ", help="Sample rate of the audio; by default the model's."),
    ] = None,
    loudness: Annotated[
        float | None,
        typer.Option(metavar="LUFS", help="Bring the speech to this loudness, as -16 or -23."),
    ] = None,
    audio_format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            envvar="COSYVOICE_CPU_SYNTH_FORMAT",
            help="Of the audio; by default by the suffix of --output, WAV on stdout.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="CODE", help="Of numbers and dates: zh, en, ja, ...; by default by the text."
        ),
    ] = None,
    normalize: Annotated[
        bool, typer.Option(help="Write numbers and dates out, if wetext is installed.")
    ] = True,
    markup: Annotated[
        bool,
        typer.Option(help="Read Markdown, SSML and [pause 500ms]; or keep the text as it is."),
    ] = True,
    lexicon: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Words and their readings, one a line."),
    ] = None,
    show_text: Annotated[
        bool,
        typer.Option("--show-text", help="Print what the model would be given; speak nothing."),
    ] = False,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Give sound out as it is made; attention ends with each second."
        ),
    ] = False,
    workers: StreamWorkersOption = None,
    play: Annotated[
        bool,
        typer.Option("--play", help="Play it as it is made (extra play); needs no --output."),
    ] = False,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    json: JsonOption = False,
    trust: TrustOption = False,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory", help="Close the networks of each stage before the next; a bit slower."
        ),
    ] = False,
) -> None:
    """Speak a text. Example: cosyvoice-cpu synth "Hello" --output hello.wav"""
    import time

    from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
    from cosyvoice_cpu.cli.bundles import chosen_bundle
    from cosyvoice_cpu.cli.engines import load_stages
    from cosyvoice_cpu.cli.forecast import Forecast
    from cosyvoice_cpu.cli.messages import note, print_json, progress_bar, warn
    from cosyvoice_cpu.cli.playback import player
    from cosyvoice_cpu.cli.shown_text import print_text
    from cosyvoice_cpu.cli.text_input import text_to_speak
    from cosyvoice_cpu.errors import UsageError
    from cosyvoice_cpu.frontend.characters import check_characters
    from cosyvoice_cpu.frontend.clip import read_clip
    from cosyvoice_cpu.frontend.language import check_language
    from cosyvoice_cpu.frontend.lexicon import Lexicon
    from cosyvoice_cpu.frontend.speakers import check_name
    from cosyvoice_cpu.progress import no_notice
    from cosyvoice_cpu.synthesis.audio_files import check_format, format_of
    from cosyvoice_cpu.synthesis.delivery import Delivery
    from cosyvoice_cpu.synthesis.report import Report
    from cosyvoice_cpu.synthesis.streaming import stream_workers
    from cosyvoice_cpu.synthesis.synthesizer import Synthesizer, check_request
    from cosyvoice_cpu.system.memory import own_peak_mb
    from cosyvoice_cpu.system.threads import resolve_threads

    if not show_text and not (play and output is None):
        output = _checked_output(output, json, audio)
        encoding = audio_format.value if audio_format else format_of(output)
        if rate is not None:
            check_format(encoding, rate)
    _check_options(speaker, audio, transcript)
    _check_preset_options(preset, target_rtf)
    if workers is not None and not stream:
        raise UsageError("--stream-workers is about --stream", "add --stream")
    stream_workers(workers)
    check_language(language)
    if lexicon is not None:
        Lexicon.load(lexicon)  # its marks are checked when the model is known
    chosen_mode = mode.value if mode else None
    delivery = Delivery(rate, loudness)
    check_request(seed=seed, speed=speed, mode=chosen_mode, instruct=instruct, delivery=delivery)
    threads = resolve_threads(threads)
    if speaker is not None:
        check_name(speaker)
    clip = None if audio is None else read_clip(audio)
    words = text_to_speak(text, text_file)
    check_characters(instruct or "", "the instruction")
    check_characters(transcript or "", "the transcript")
    stages = load_stages(chosen_bundle(bundle), threads, engine, trust=trust, low_memory=low_memory)
    warnings: list[str] = []
    solver = DEFAULT_PRESET if preset is None else preset
    stages.synthesis.preset(solver)
    if stages.manifest.quality.overridden:
        warnings.append(
            f"{stages.bundle_path} was written although its quality gate refused it "
            "(quantize --force)"
        )
    voice = _voice(stages, speaker, speakers, clip, transcript, warnings)
    if target_rtf is not None and not show_text:
        solver = _affordable_preset(stages, voice, target_rtf, warnings)
    if stages.manifest.quality.refuses(solver):
        warnings.append(
            f"the preset {solver} of {stages.bundle_path} was kept although the quality gate"
            " refused it (quantize --force)"
        )
    for warning in warnings:
        warn(warning)
    synthesizer = Synthesizer.of_bundle(stages)
    reading: dict[str, Any] = {
        "mode": chosen_mode,
        "instruct": instruct,
        "normalize": normalize,
        "markup": markup,
        "language": language,
        "lexicon": lexicon,
    }
    if show_text:
        print_text(synthesizer.show(words, voice, **reading), as_json=json)
        return
    started = time.perf_counter()
    reports: list[Report] = []
    sample_rate = rate or synthesizer.sample_rate
    forecast = Forecast(no_notice if sys.stderr.isatty() else note)  # a bar says it
    with progress_bar() as bar:

        def tell(stage: str, done: float, seconds: float) -> None:
            bar(f"{stage}, {seconds:.0f} s of audio", done)
            forecast(done, seconds)

        speak = partial(synthesizer.stream, workers=workers) if stream else synthesizer.pieces
        pieces = speak(
            words,
            voice,
            seed=seed,
            speed=speed,
            rate=rate,
            loudness=loudness,
            preset=solver,
            **reading,
            progress=tell,
        )
        with ExitStack() as opened:
            opened.enter_context(closing(pieces))
            if output is not None:
                writer = opened.enter_context(_opened(output, encoding, sample_rate))
            if play:
                loudspeaker = opened.enter_context(player(sample_rate))
            for piece in pieces:
                assert piece.report is not None
                reports.append(piece.report)
                if output is not None:
                    writer.write(piece.samples, last=piece.report.ends_text)
                if play:
                    loudspeaker.write(piece.samples)
    seconds_total = time.perf_counter() - started
    report = Report.total(reports)
    for warning in report.warnings:
        warn(warning)
    rtf = seconds_total / report.seconds_audio
    if json:
        print_json(
            {
                "output": None if output is None else str(output),
                "sample_rate": sample_rate,
                "seconds_audio": report.seconds_audio,
                "seconds_total": seconds_total,
                "rtf": rtf,
                "first_audio_s": report.first_audio_s,
                "stages": report.stages,
                "speech_tokens": report.speech_tokens,
                "peak_rss_mb": own_peak_mb(),
                "seed": seed,
                "bundle": str(stages.bundle_path),
                "speaker": voice.name,
                "sentences": report.sentences,
                "warnings": [*warnings, *report.warnings],
                "retries": report.retries,
                "preset": solver,
                "streaming": stream,
            }
        )
    elif output != STDOUT:
        typer.echo(
            f"{output or 'played'}: {report.seconds_audio:.2f} s of audio in {seconds_total:.2f} s"
            f" (RTF {rtf:.2f}), the first after {report.first_audio_s:.2f} s,"
            f" speaker {voice.name}, seed {seed}"
        )


def _checked_output(output: Path | None, json: bool, audio: Path | None) -> Path:
    """`output`, if it can be written; what would only fail after the work is refused before it.

    Raises: UsageError, or OutputError if there is no folder for the output.
    """
    from cosyvoice_cpu.errors import OutputError, UsageError

    if output is None:
        raise UsageError(
            "there is no --output", "name a file, or - for stdout, or --play, or --show-text"
        )
    if output == STDOUT:
        if json:
            raise UsageError("--json and --output - both want stdout", "write the audio to a file")
        if not sys.stdout:
            raise UsageError("stdout is closed, and --output - writes to it", "name a file")
        if sys.stdout.isatty():
            raise UsageError(
                "stdout is a terminal, not a place for audio", "pipe it, or name a file"
            )
        return output
    if not os.path.isdir(output.parent):
        raise OutputError(
            f"{output} can't be written: there is no folder {output.parent}",
            "create the folder first",
        )
    if audio is not None and audio.exists() and output.exists() and output.samefile(audio):
        raise UsageError(f"{output} is the clip of --audio itself", "give another name")
    return output


def _check_options(speaker: str | None, audio: Path | None, transcript: str | None) -> None:
    """Raises: UsageError for options that exclude each other."""
    from cosyvoice_cpu.errors import UsageError

    if audio is not None and speaker is not None:
        raise UsageError("--speaker and --audio are both given", "leave one of them away")
    if transcript is not None and audio is None:
        raise UsageError("--transcript belongs to --audio, which is missing", "give the clip")


def _check_preset_options(preset: str | None, target_rtf: float | None) -> None:
    """Raises: UsageError for a choice that is made twice, or a target that is no speed."""
    from cosyvoice_cpu.errors import UsageError

    if target_rtf is None:
        return
    if preset is not None:
        raise UsageError("--preset and --target-rtf are both given", "leave one of them away")
    if not 0 < target_rtf < float("inf"):
        raise UsageError(
            f"--target-rtf {target_rtf:g} is no speed", "1 is real time, 0.5 twice as fast"
        )


def _affordable_preset(
    stages: BundleStages, voice: Speaker, target_rtf: float, warnings: list[str]
) -> str:
    """The preset for `--target-rtf`; says which, and its predicted RTF."""
    from cosyvoice_cpu.cli.messages import note
    from cosyvoice_cpu.evaluation.affordable import choose_preset, measured_speed

    seconds = float(len(voice.mel) / stages.audio.frame_rate)
    speed, was_known = measured_speed(stages, seconds)

    def is_cached(preset: SolverPreset) -> bool:
        return stages.has_prompt(
            list(voice.prompt_tokens), voice.prompt_mel, voice.embedding, preset
        )

    choice = choose_preset(stages.manifest, speed, target_rtf, is_cached)
    source = "measured within the last day" if was_known else "measured just now"
    note(
        f"preset {choice.preset}: RTF {choice.rtf:.2f} is predicted here,"
        f" {choice.default_rtf:.2f} for the default ({source})"
    )
    if not choice.is_affordable:
        warnings.append(f"no preset of this bundle reaches RTF {target_rtf:g} here")
    return choice.preset


def _voice(
    stages: BundleStages,
    name: str | None,
    speakers: Path | None,
    clip: Clip | None,
    transcript: str | None,
    warnings: list[str],
) -> Speaker:
    """The speaker of that name, or of the clip, or the first; adds the clip's to `warnings`."""
    from cosyvoice_cpu.cli.bundles import speaker_folders
    from cosyvoice_cpu.cli.messages import note
    from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
    from cosyvoice_cpu.frontend.speaker_folders import find_speaker, list_speakers
    from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip

    if clip is not None:
        prepared = speaker_from_clip(stages.bundle, "one-off", clip, transcript or "")
        warnings += prepared.report.warnings
        return prepared.speaker
    folders = speaker_folders(stages.bundle, speakers)
    if name is None and (known := list_speakers(folders)):
        name = next(iter(known))
        if len(known) > 1:
            note(f"speaking as {name}; --speaker takes {', '.join(known)}")
    return find_speaker(folders, name, prompt_spec(stages.manifest))


@contextmanager
def _opened(output: Path, audio_format: str, sample_rate: int) -> Iterator[AudioWriter]:
    """A writer to the file, or to stdout, where the end is not known before it is reached."""
    from cosyvoice_cpu.synthesis.audio_files import AudioWriter, audio_file

    if output != STDOUT:
        with audio_file(output, audio_format, sample_rate) as writer:
            yield writer
        return
    writer = AudioWriter(sys.stdout.buffer, audio_format, sample_rate, seekable=False)
    yield writer
    writer.close()
