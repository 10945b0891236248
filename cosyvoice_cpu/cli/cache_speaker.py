"""`cosyvoice-cpu cache-speaker`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosyvoice_cpu.cli.options import JsonOption, SpeakersOption

if TYPE_CHECKING:
    from cosyvoice_cpu.arrays import Floats
    from cosyvoice_cpu.frontend.clip import Clip
    from cosyvoice_cpu.frontend.speakers import Speaker
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages


def cache_speaker(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The model that is to speak.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The speaker to make, or to remove.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="CLIP",
            help=(
                "WAV, FLAC, OGG or MP3, with extra clips also M4A or WebM, of 16 kHz or more: 3 to"
                " 10 seconds of speech, at most 30."
            ),
        ),
    ] = None,
    transcript: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The words spoken in the clip; without them, mode zero-shot is not available.",
        ),
    ] = None,
    trim: Annotated[
        bool, typer.Option("--trim", help="Take the best 3 to 10 seconds of the clip.")
    ] = False,
    list_all: Annotated[
        bool,
        typer.Option(
            "--list", envvar="COSYVOICE_CPU_CACHE_SPEAKER_LIST", help="List the speakers."
        ),
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove speaker NAME.")] = False,
    import_file: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE",
            envvar="COSYVOICE_CPU_CACHE_SPEAKER_IMPORT",
            help="Take all speakers of an original spk2info.pt.",
        ),
    ] = None,
    prefill: Annotated[
        bool,
        typer.Option(
            "--prefill",
            help="Compute and keep what `synth --stream`, and presets with a cached prompt, need"
            " of the clip, for NAME or --audio.",
        ),
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The solver preset of --prefill; by default `default`."),
    ] = None,
    speakers: SpeakersOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace speakers of that name.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Prepare a speaker from a clip; list, remove, import speakers.

    Example: cosyvoice-cpu cache-speaker voice/ anna --audio anna.wav --transcript "What she says."
    """
    from cosyvoice_cpu.frontend.characters import check_characters
    from cosyvoice_cpu.frontend.clip import read_clip
    from cosyvoice_cpu.frontend.speakers import check_name
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages

    check_characters(transcript or "", "the transcript")
    _check_options(name, audio, transcript, trim, list_all, remove, import_file, prefill, preset)
    if name is not None:
        check_name(name)
    clip = None if audio is None else read_clip(audio, trim=trim)
    stages = BundleStages.load(bundle)
    if list_all:
        _print_list(stages, speakers, json)
    elif remove:
        _remove(stages, name or "", speakers, json)
    elif import_file is not None:
        _import(stages, import_file, speakers, overwrite, json)
    elif clip is not None:
        _make(stages, name or "", clip, transcript or "", trim, speakers, overwrite, json)
    if prefill:
        _prefill(stages, name or "", speakers, preset)


def _check_options(
    name: str | None,
    audio: Path | None,
    transcript: str | None,
    trim: bool,
    list_all: bool,
    remove: bool,
    import_file: Path | None,
    prefill: bool,
    preset: str | None,
) -> None:
    """Raises: UsageError unless exactly one thing is asked for, with what it needs."""
    from cosyvoice_cpu.errors import UsageError

    asked = {
        "--audio": audio is not None,
        "--list": list_all,
        "--remove": remove,
        "--import": import_file is not None,
    }
    given = [option for option, wanted in asked.items() if wanted]
    if prefill and given and given != ["--audio"]:
        raise UsageError(f"--prefill and {given[0]} exclude each other", "give one of them")
    if prefill and name is None:
        raise UsageError("--prefill needs the NAME of a speaker", "give it behind BUNDLE")
    if preset is not None and not prefill:
        raise UsageError("--preset belongs to --prefill, which is missing", "give both")
    if not given and not prefill:
        raise UsageError("there is no clip", "give --audio CLIP; or --list, --remove or --import")
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", "give one of them")
    if given and given[0] in {"--audio", "--remove"} and name is None:
        raise UsageError(f"{given[0]} needs the NAME of a speaker", "give it behind BUNDLE")
    if given and given[0] in {"--list", "--import"} and name is not None:
        raise UsageError(f"{given[0]} takes no NAME, but got {name!r}", "leave it away")
    if audio is None and (transcript is not None or trim):
        option = "--trim" if trim else "--transcript"
        raise UsageError(f"{option} belongs to --audio, which is missing", "give the clip")


def _make(
    stages: BundleStages,
    name: str,
    clip: Clip,
    transcript: str,
    trim: bool,
    speakers: Path | None,
    overwrite: bool,
    json: bool,
) -> None:
    from cosyvoice_cpu.cli.messages import print_json, warn
    from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip

    prepared = speaker_from_clip(stages.bundle, name, clip, transcript, trim=trim)
    path = _add(stages, [prepared.speaker], speakers, overwrite)[0]
    report = prepared.report
    for warning in report.warnings:
        warn(warning)
    if json:
        print_json(
            {
                **_facts(prepared.speaker, path),
                "seconds_clip": report.seconds,
                "seconds_speech": report.seconds_speech,
                "level_db": report.level_db,
                "warnings": list(report.warnings),
            }
        )
        return
    typer.echo(
        f"{path}: {report.seconds:.1f} s, {report.seconds_speech:.1f} s of them speech,"
        f" {prepared.speaker.speech_tokens.size} speech tokens"
    )


def _import(
    stages: BundleStages, file: Path, speakers: Path | None, overwrite: bool, json: bool
) -> None:
    from cosyvoice_cpu.checkpoint.spk2info import import_spk2info
    from cosyvoice_cpu.cli.messages import print_json
    from cosyvoice_cpu.errors import BundleError
    from cosyvoice_cpu.frontend.bundle_models import text_tokenizer
    from cosyvoice_cpu.frontend.prompt_spec import prompt_spec

    tokenizer = text_tokenizer(stages.bundle)
    if tokenizer is None:
        raise BundleError(
            f"{stages.bundle_path} has no text_tokenizer, which reads the transcripts",
            "export the checkpoint without --no-front-end",
        )
    found = import_spk2info(file, tokenizer=tokenizer, spec=prompt_spec(stages.manifest))
    paths = _add(stages, found, speakers, overwrite)
    if json:
        pairs = zip(found, paths, strict=True)
        print_json({"speakers": [_facts(speaker, path) for speaker, path in pairs]})
        return
    for path in paths:
        typer.echo(path)


def _add(
    stages: BundleStages, found: list[Speaker], speakers: Path | None, overwrite: bool
) -> list[Path]:
    """Raises: OutputError, which says what to do about a read-only bundle."""
    from cosyvoice_cpu.errors import OutputError
    from cosyvoice_cpu.frontend.speaker_folders import add_speaker

    folder = speakers or stages.bundle.speakers_folder
    try:
        return [add_speaker(folder, speaker, overwrite=overwrite) for speaker in found]
    except OutputError as error:
        if speakers:
            raise
        hint = "give another folder with --speakers DIR, here and to `cosyvoice-cpu synth`"
        raise OutputError(error.what, hint) from error


def _remove(stages: BundleStages, name: str, speakers: Path | None, json: bool) -> None:
    from cosyvoice_cpu.cli.messages import print_json
    from cosyvoice_cpu.errors import SpeakerError
    from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
    from cosyvoice_cpu.frontend.speaker_folders import find_speaker, remove_speaker

    folders = [speakers or stages.bundle.speakers_folder]
    with suppress(SpeakerError):  # one that can't be used has nothing computed
        speaker = find_speaker(folders, name, prompt_spec(stages.manifest))
        stages.forget_prompt(*_flow_prompt(speaker))
    path = remove_speaker(folders, name)
    if json:
        print_json({"removed": str(path)})
    else:
        typer.echo(f"removed {path}")


def _prefill(stages: BundleStages, name: str, speakers: Path | None, preset: str | None) -> None:
    from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
    from cosyvoice_cpu.cli.bundles import speaker_folders
    from cosyvoice_cpu.cli.messages import note
    from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
    from cosyvoice_cpu.frontend.speaker_folders import find_speaker

    folders = speaker_folders(stages.bundle, speakers)
    speaker = find_speaker(folders, name, prompt_spec(stages.manifest))
    solver = preset or DEFAULT_PRESET
    path = stages.prefill_prompt(*_flow_prompt(speaker), solver)
    note(f"{path}: {path.stat().st_size / 1e6:.0f} MB for {name}, preset {solver}")


def _flow_prompt(speaker: Speaker) -> tuple[list[int], Floats, Floats]:
    return list(speaker.prompt_tokens), speaker.prompt_mel, speaker.embedding


def _print_list(stages: BundleStages, speakers: Path | None, json: bool) -> None:
    """Every speaker with its facts; one that can't be used with what is wrong."""
    from cosyvoice_cpu.cli.bundles import speaker_folders
    from cosyvoice_cpu.cli.messages import print_json
    from cosyvoice_cpu.errors import SpeakerError
    from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
    from cosyvoice_cpu.frontend.speaker_folders import list_speakers
    from cosyvoice_cpu.frontend.speakers import Speaker

    rows: list[dict[str, Any]] = []
    for name, path in list_speakers(speaker_folders(stages.bundle, speakers)).items():
        try:
            rows.append(_facts(Speaker.load(path, prompt_spec(stages.manifest)), path))
        except SpeakerError as error:
            rows.append({"speaker": name, "path": str(path), "error": error.what})
    if json:
        print_json({"speakers": rows})
        return
    for row in rows:
        seconds = row.get("speech_tokens", 0) / stages.manifest.audio.token_rate
        fact = f"unusable: {row['error']}" if "error" in row else f"{seconds:4.1f} s"
        typer.echo(f"{row['speaker']:<20} {fact}  {row.get('transcript', '')}".rstrip())


def _facts(speaker: Speaker, path: Path) -> dict[str, Any]:
    return {
        "speaker": speaker.name,
        "path": str(path),
        "transcript": speaker.transcript,
        "speech_tokens": int(speaker.speech_tokens.size),
    }
