"""The command `synth`, on a bundle of random networks: the speech is noise, the rest is real."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import threading
import wave
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from support.bundle_examples import edit_manifest
from support.command_line import CLIP, CLIPS, PROGRAM, TRANSCRIPT, WITHOUT_TORCH, call, lines, run

from cosyvoice_cpu import Synthesizer
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.errors import UsageError

FIELDS = (
    "output sample_rate seconds_audio seconds_total rtf first_audio_s stages speech_tokens"
    " peak_rss_mb seed bundle speaker sentences warnings retries preset streaming"
).split()


@pytest.fixture(scope="module")
def voice(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with one speaker, austen."""
    bundle = tmp_path_factory.mktemp("synth") / "voice"
    shutil.copytree(tiny_bundle, bundle)
    outcome = run("cache-speaker", bundle, "austen", "--audio", CLIP, "--transcript", TRANSCRIPT)
    assert (outcome.code, outcome.stderr) == (0, "")
    return bundle


def test_synth_writes_a_playable_wav_and_says_what_it_took(voice: Path, tmp_path: Path) -> None:
    output = tmp_path / "hello.wav"
    outcome = run("synth", "Hello", "--output", output, "--bundle", voice)
    assert outcome.code == 0
    assert outcome.stdout.startswith(f"{output}: ")
    assert "speaker austen, seed 0" in outcome.stdout
    with wave.open(str(output)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24000, 1, 2)
        assert file.getnframes() > 2400
    assert [path.name for path in tmp_path.iterdir()] == ["hello.wav"]


def test_json_has_exactly_the_documented_fields(voice: Path, tmp_path: Path) -> None:
    output = tmp_path / "hello.flac"
    outcome = run(
        "synth", "Hi. You!", "--output", output, "--bundle", voice, "--seed", "3", "--json"
    )
    report = json.loads(outcome.stdout)
    assert list(report) == FIELDS
    assert list(report["stages"]) == ["frontend", "speech_lm", "flow", "vocoder"]
    assert report["output"] == str(output)
    assert report["bundle"] == str(voice)
    assert (report["speaker"], report["seed"], report["sample_rate"]) == ("austen", 3, 24000)
    assert report["seconds_audio"] == soundfile.info(output).frames / 24000
    assert report["rtf"] == pytest.approx(report["seconds_total"] / report["seconds_audio"])
    assert sum(report["stages"].values()) <= report["seconds_total"]
    assert report["first_audio_s"] <= report["seconds_total"]
    assert 20 < report["peak_rss_mb"] < 2000
    assert isinstance(report["retries"], int)
    assert outcome.stderr == "".join(f"warning: {line}\n" for line in report["warnings"])


def test_a_bundle_that_the_gate_refused_is_named_each_time_it_speaks(
    voice: Path, tmp_path: Path
) -> None:
    forced = Path(shutil.copytree(voice, tmp_path / "forced"))
    edit_manifest(forced, "quality.forced", True)
    outcome = run("synth", "Hi", "--output", tmp_path / "hi.wav", "--bundle", forced)
    assert outcome.code == 0
    assert outcome.stderr.startswith(
        f"warning: {forced} was written although its quality gate refused it (quantize --force)\n"
    )


@pytest.fixture(scope="module")
def fast(voice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a preset of one evaluation of one row, which the gate let through."""
    bundle = Path(shutil.copytree(voice, tmp_path_factory.mktemp("fast") / "voice"))
    synthesis = read_manifest(bundle).synthesis
    cheap = {
        "method": "euler",
        "steps": 1,
        "grid": [0.0, 1.0],
        "guidance_rate": 0.0,
        "guidance_range": [0.0, 1.0],
    }
    presets = {"default": msgspec.to_builtins(synthesis.solver), "fast": cheap}
    edit_manifest(bundle, "synthesis.solver_presets", presets)
    return bundle


def test_a_preset_decides_the_sound_and_is_told(fast: Path, tmp_path: Path) -> None:
    output = tmp_path / "hi.wav"
    heard = {}
    for preset in ("default", "fast"):
        for stream in ([], ["--stream"]):
            options = ["--preset", preset, *stream, "--bundle", fast, "--json"]
            outcome = run("synth", "Hi", "--output", output, *options)
            assert outcome.code == 0, outcome.stderr
            assert json.loads(outcome.stdout)["preset"] == preset
            heard[preset, bool(stream)] = soundfile.read(output, dtype="float32")[0]
    synthesizer = Synthesizer.load(fast)
    for (preset, stream), samples in heard.items():
        audio = synthesizer.speak("Hi", preset=preset, streaming=stream)
        assert np.abs(audio.samples - samples).max() < 1e-4
    for stream in (False, True):
        assert heard["default", stream].shape == heard["fast", stream].shape
        assert np.abs(heard["default", stream] - heard["fast", stream]).max() > 0.01


def test_a_preset_that_there_is_not_is_wrong_usage_that_names_those_there_are(
    voice: Path, fast: Path, tmp_path: Path
) -> None:
    for bundle, known in ((voice, "default"), (fast, "default, fast")):
        options = ["--preset", "best", "--bundle", bundle]
        outcome = run("synth", "Hi", "--output", tmp_path / "hi.wav", *options)
        assert outcome.code == 2
        assert outcome.stderr == lines("this bundle has no preset 'best'", f"it has {known}")
    with pytest.raises(UsageError, match="no preset 'best'"):
        Synthesizer.load(voice).stream("Hi", preset="best")


def test_a_target_takes_the_best_sounding_preset_that_is_fast_enough(
    fast: Path, tmp_path: Path
) -> None:
    command = ("synth", "Hi", "--output", tmp_path / "hi.wav", "--bundle", fast, "--json")
    slow = run(*command, "--target-rtf", "1000")
    assert json.loads(slow.stdout)["preset"] == "default"
    assert "preset default: RTF" in slow.stderr
    assert "measured just now" in slow.stderr
    quick = run(*command, "--target-rtf", "1e-9")
    report = json.loads(quick.stdout)
    assert report["preset"] == "fast"
    assert report["warnings"][0] == "no preset of this bundle reaches RTF 1e-09 here"
    assert "measured within the last day" in quick.stderr


def test_a_preset_that_the_gate_refused_is_named_when_it_speaks(fast: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(fast, tmp_path / "forced"))
    lost = {"component": None, "preset": "fast", "measure": "mos_lost", "value": 1.0}
    edit_manifest(
        bundle,
        "quality",
        {
            "results": [{**lost, "bound": "at_most", "limit": 0.1, "passed": False}],
            "forced": True,
        },
    )
    command = ("synth", "Hi", "--output", tmp_path / "hi.wav", "--bundle", bundle)
    assert "(quantize --force)" not in run(*command).stderr
    assert run(*command, "--preset", "fast").stderr.startswith(
        f"warning: the preset fast of {bundle} was kept although the quality gate refused it"
        " (quantize --force)\n"
    )
    cheapest = run(*command, "--target-rtf", "1e-9", "--json")
    assert json.loads(cheapest.stdout)["preset"] == "default"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_the_suffix_chooses_the_format(voice: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"hello.{suffix}"
    assert run("synth", "Hi", "--output", output, "--bundle", voice).code == 0
    assert soundfile.info(output).format == suffix.upper()


def test_stdin_to_stdout_gives_the_same_wav_as_text_to_file(voice: Path, tmp_path: Path) -> None:
    output = tmp_path / "hello.wav"
    assert run("synth", "Hello", "--output", output, "--bundle", voice).code == 0
    piped = run("synth", "-", "--output", "-", "--bundle", voice, stdin=b"Hello\n")
    assert piped.code == 0
    assert piped.stdout.encode("latin-1") == output.read_bytes()


def test_a_stream_is_the_librarys_in_a_file_and_on_stdout(voice: Path, tmp_path: Path) -> None:
    output = tmp_path / "hello.wav"
    arguments = (
        "synth",
        "Hello there. You!",
        "--bundle",
        voice,
        "--threads",
        "1",
        "--stream",
        "--output",
    )
    outcome = run(*arguments, output, "--json")
    assert outcome.code == 0, outcome.stderr
    report = json.loads(outcome.stdout)
    assert report["streaming"] is True
    assert report["preset"] == "default"
    synthesizer = Synthesizer.load(voice, threads=1)
    want = tmp_path / "want.wav"
    synthesizer.speak("Hello there. You!", streaming=True).save(want)
    assert output.read_bytes() == want.read_bytes()
    piped = run(*arguments, "-", "--format", "pcm")
    assert piped.stdout.encode("latin-1") == output.read_bytes()[44:]


def test_a_text_file_with_a_byte_order_mark_is_read(voice: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfHello\r\n")
    outcome = run("synth", "--text-file", tmp_path / "text.txt", "--output", "-", "--bundle", voice)
    plain = run("synth", "Hello", "--output", "-", "--bundle", voice)
    assert outcome.stdout == plain.stdout


def test_the_same_seed_gives_the_same_audio_and_another_seed_does_not(voice: Path) -> None:
    def speak(seed: str) -> str:
        arguments = ("synth", "Hello you", "--output", "-", "--bundle", voice)
        return run(*arguments, "--seed", seed).stdout

    first = speak("5")
    assert speak("5") == first
    assert speak("6") != first


def test_two_processes_on_one_bundle_give_the_same_bytes(voice: Path) -> None:
    command = [*PROGRAM, "synth", "Hello you two", "--output", "-", "--bundle", str(voice)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    first, second = (process.communicate(timeout=120)[0] for process in both)
    assert len(first) > 4800
    assert first == second


def test_one_and_two_threads_agree(voice: Path) -> None:
    def speak(threads: str) -> np.ndarray:
        arguments = ("synth", "Hello", "--output", "-", "--bundle", voice)
        outcome = run(*arguments, "--threads", threads)
        return soundfile.read(io.BytesIO(outcome.stdout.encode("latin-1")))[0]

    one, two = speak("1"), speak("2")
    assert one.shape == two.shape
    assert np.abs(one - two).max() <= 1e-4


def test_a_clip_speaks_once_without_being_cached(voice: Path, tmp_path: Path) -> None:
    arguments = ("synth", "Hello", "--output", tmp_path / "x.wav", "--bundle", voice, "--json")
    clip = ("--audio", CLIPS / "librispeech-61-70968-0000.flac")
    transcript = ("--transcript", "He began a confused complaint against the wizard")
    report = json.loads(run(*arguments, *clip, *transcript).stdout)
    assert report["speaker"] == "one-off"
    assert [path.name for path in (voice / "speakers").iterdir()] == ["austen.safetensors"]


@pytest.mark.parametrize(
    "mode", [("--mode", "cross-lingual"), ("--instruct", "speak softly"), ("--mode", "zero-shot")]
)
def test_each_mode_speaks_from_one_speaker_file(voice: Path, mode: tuple[str, str]) -> None:
    outcome = run("synth", "Hi", "--output", "-", "--bundle", voice, *mode)
    assert outcome.code == 0
    assert outcome.stdout.startswith("RIFF")


def test_variables_stand_for_options(voice: Path, tmp_path: Path) -> None:
    variables = {
        "COSYVOICE_CPU_BUNDLE": str(voice),
        "COSYVOICE_CPU_SYNTH_OUTPUT": str(tmp_path / "x.wav"),
        "COSYVOICE_CPU_SYNTH_SEED": "7",
        "COSYVOICE_CPU_SYNTH_JSON": "1",
    }
    report = json.loads(run("synth", "Hi", variables=variables).stdout)
    assert (report["seed"], report["bundle"]) == (7, str(voice))


def test_synth_needs_neither_torch_nor_onnx(voice: Path, tmp_path: Path) -> None:
    arguments = ("synth", "Hi", "--output", tmp_path / "x.wav", "--bundle", voice)
    assert run(*arguments, program=WITHOUT_TORCH).code == 0


def test_with_several_speakers_the_first_speaks_and_is_named(voice: Path, tmp_path: Path) -> None:
    others = tmp_path / "speakers"
    others.mkdir()
    shutil.copy(voice / "speakers" / "austen.safetensors", others / "zoe.safetensors")
    arguments = ("synth", "Hi", "--output", tmp_path / "x.wav", "--bundle", voice)
    outcome = run(*arguments, "--speakers", others)
    assert "speaking as austen; --speaker takes austen, zoe" in outcome.stderr
    assert "speaker austen" in outcome.stdout
    assert "speaker zoe" in run(*arguments, "--speakers", others, "--speaker", "zoe").stdout


def test_an_unknown_speaker_is_answered_with_those_that_there_are(
    voice: Path, tmp_path: Path
) -> None:
    arguments = ("synth", "Hi", "--output", tmp_path / "x.wav", "--bundle", voice)
    outcome = run(*arguments, "--speaker", "bob")
    assert outcome.code == 1
    assert outcome.stderr == lines("there is no speaker 'bob'", "choose one with --speaker: austen")


def test_a_bundle_without_speakers_says_how_to_make_one(tiny_bundle: Path, tmp_path: Path) -> None:
    outcome = run("synth", "Hi", "--output", tmp_path / "x.wav", "--bundle", tiny_bundle)
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: there is no speaker\nhint:  make one with ")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("",), 1, "the text is empty"),
        ((" \n\t",), 1, "the text is empty"),
        (("?!…",), 1, "there is nothing to speak in '?!…'"),
        (("a\x01b",), 1, "the text holds the control character U+0001 at position 1"),
        (("caf\udce9",), 1, "the text is not UTF-8 at position 3"),
        ((), 2, "there is no text to speak"),
        (("Hi", "--language", "english"), 2, "'english' is no language code"),
        (("Hi", "--lexicon", "none.txt"), 1, "none.txt can't be read (No such file or directory)"),
        (("Hi", "--text-file", "x.txt"), 2, "TEXT and --text-file are both given"),
        (("Hi", "--audio", "c.wav", "--speaker", "a"), 2, "--speaker and --audio are both given"),
        (("Hi", "--transcript", "x"), 2, "--transcript belongs to --audio, which is missing"),
        (("Hi", "--speed", "3"), 2, "the speed 3 is outside 0.5 to 2"),
        (("Hi", "--speed", "nan"), 2, "the speed nan is outside 0.5 to 2"),
        (("Hi", "--seed", "-1"), 2, "the seed -1 is outside 0 to 2^63 - 1"),
        (("Hi", "--threads", "0"), 2, "0 threads can't be used"),
        (("Hi", "--mode", "instruct"), 2, "mode instruct needs an instruction"),
        (
            ("Hi", "--mode", "zero-shot", "--instruct", "softly"),
            2,
            "an instruction has no place in mode zero-shot",
        ),
        (("Hi", "--audio", "none.wav"), 1, "none.wav can't be read (No such file or directory)"),
    ],
)
def test_a_wrong_request_is_two_lines_and_no_file(
    voice: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, error: str
) -> None:
    outcome = call("synth", *arguments, "--output", tmp_path / "x.wav", "--bundle", voice)
    assert outcome.code == code
    assert outcome.stderr.splitlines()[0] == f"error: {error}"
    assert len(outcome.stderr.splitlines()) == 2
    assert outcome.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"caf\xe9", "is not UTF-8: byte 0xe9 at 3"),
        ("Hi".encode("utf-16"), "is UTF-16, not UTF-8"),
        (b"\xfe\xff" + "Hi".encode("utf-16-be"), "is UTF-16, not UTF-8"),
        ("Hi".encode("utf-32"), "is UTF-32, not UTF-8"),
        (b"\0\0\xfe\xff" + "Hi".encode("utf-32-be"), "is UTF-32, not UTF-8"),
        (b"one\x00two", "holds the control character U+0000 at position 3"),
        (b"x" * (16 * 2**20 + 1), "exceeds 16 MB"),
    ],
)
def test_a_file_that_is_no_text_is_refused(
    voice: Path, tmp_path: Path, content: bytes, error: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    outcome = call("synth", "--text-file", path, "--output", "-", "--bundle", voice)
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[0] == f"error: {path} {error}"


def test_a_clip_that_is_no_audio_is_refused(voice: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"not audio at all")
    outcome = call("synth", "Hi", "--output", "-", "--bundle", voice, "--audio", clip)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {clip} is not an audio file that can be read\n")


def test_a_silent_clip_is_refused(voice: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.zeros(64000), 16000)
    outcome = call("synth", "Hi", "--output", "-", "--bundle", voice, "--audio", clip)
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: the clip is silent\n")


@pytest.mark.parametrize(
    ("output", "code", "error"),
    [
        ("x.txt", 2, "x.txt: the suffix '.txt' names no audio format"),
        ("x", 2, "x: no suffix names no audio format"),
        ("none/x.wav", 1, "none/x.wav can't be written: there is no folder none"),
    ],
)
def test_an_output_that_can_t_be_is_refused_before_the_work(
    output: str, code: int, error: str
) -> None:
    outcome = call("synth", "Hi", "--output", output, "--bundle", "no-such-bundle")
    assert outcome.code == code
    assert outcome.stderr.splitlines()[0] == f"error: {error}"


def test_the_text_is_shown_as_the_model_would_get_it(voice: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("SQL\tsequel\n", encoding="utf-8")
    arguments = ("synth", "# SQL\nHi [laugh] there. [pause 500ms] Bye.", "--bundle", voice)
    options = ("--lexicon", tmp_path / "words.txt", "--show-text")
    outcome = call(*arguments, *options)
    assert outcome.code == 0
    assert outcome.stdout == "sequel. Hi [laugh] there.\n[pause 500ms]\nBye.\n"
    assert outcome.stderr.startswith("warning: [laugh] is no mark of this model")
    shown = json.loads(call(*arguments, *options, "--json").stdout)
    assert shown["pieces"] == ["sequel. Hi [laugh] there.", "[pause 500ms]", "Bye."]
    assert len(shown["warnings"]) == 1
    plain = call("synth", "# **Hi**", "--bundle", voice, "--show-text", "--no-markup")
    assert plain.stdout == "# **Hi**\n"


def test_without_an_output_there_is_nothing_to_do(voice: Path) -> None:
    outcome = call("synth", "Hi", "--bundle", voice)
    assert outcome.code == 2
    assert outcome.stderr == lines(
        "there is no --output", "name a file, or - for stdout, or --play, or --show-text"
    )


def test_json_and_audio_can_t_share_stdout(voice: Path) -> None:
    outcome = call("synth", "Hi", "--output", "-", "--bundle", voice, "--json")
    assert outcome.code == 2
    assert outcome.stderr == lines(
        "--json and --output - both want stdout", "write the audio to a file"
    )


def test_a_failed_synth_leaves_the_old_file(voice: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.wav"
    output.write_bytes(b"old")
    assert run("synth", "", "--output", output, "--bundle", voice).code == 1
    assert output.read_bytes() == b"old"
    assert run("synth", "Hi", "--output", output, "--bundle", voice).code == 0
    assert output.read_bytes()[:4] == b"RIFF"


def test_a_damaged_graph_is_refused_before_it_is_loaded(voice: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "voice"
    shutil.copytree(voice, bundle)
    weights = bundle / "vocoder" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    outcome = run("synth", "Hi", "--output", "-", "--bundle", bundle)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {weights} does not match its manifest entry (sha256 ")
    assert run("synth", "Hi", "--output", "-", "--bundle", bundle, "--trust").code == 0


def test_a_long_text_is_taken_sentence_by_sentence(voice: Path, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("This is a sentence of a long text. " * 30000)  # 1 MB
    arguments = ["--text-file", "book.txt", "--output", "book.wav", "--no-normalize"]
    command = subprocess.Popen(
        [*PROGRAM, "--debug", "synth", *arguments, "--bundle", voice],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    assert command.stderr is not None
    spoken = any(b": piece 2, " in line for line in command.stderr)
    command.kill()
    command.communicate()
    assert spoken
    assert not (tmp_path / "book.wav").exists()


@pytest.mark.parametrize(
    ("arguments", "rate", "kind"),
    [
        (("--rate", "8000"), 8000, ("WAV", "PCM_16")),
        (("--rate", "16000", "--format", "flac"), 16000, ("FLAC", "PCM_16")),
        (("--rate", "48000", "--format", "opus", "--loudness", "-20"), 48000, ("OGG", "OPUS")),
        (("--format", "opus"), 24000, ("OGG", "OPUS")),
    ],
)
def test_rate_format_and_loudness_are_as_asked_for(
    voice: Path, arguments: tuple[str, ...], rate: int, kind: tuple[str, str]
) -> None:
    outcome = run("synth", "Hi", "--output", "-", "--bundle", voice, *arguments)
    with soundfile.SoundFile(io.BytesIO(outcome.stdout.encode("latin-1"))) as file:
        assert file.samplerate == rate
        assert (file.format, file.subtype) == kind


def test_raw_pcm_is_the_samples_of_the_wav(voice: Path, tmp_path: Path) -> None:
    for name in ("x.wav", "x.pcm", "y.raw"):
        assert run("synth", "Hi", "--output", tmp_path / name, "--bundle", voice).code == 0
    samples = (tmp_path / "x.wav").read_bytes()[44:]
    assert (tmp_path / "x.pcm").read_bytes() == (tmp_path / "y.raw").read_bytes() == samples


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--seed", "-1"), "the seed -1 is outside 0 to 2^63 - 1"),
        (("--speed", "3"), "the speed 3 is outside 0.5 to 2"),
        (("--rate", "1"), "the rate 1 is outside 8000 to 192000 Hz"),
        (("--loudness", "3"), "the loudness 3 is outside -50 to -5 LUFS"),
        (("--threads", "0"), "0 threads can't be used"),
        (("--mode", "instruct"), "mode instruct needs an instruction"),
        (("--mode", "zero-shot", "--instruct", "x"), "an instruction has no place in mode"),
        (("--format", "opus", "--rate", "44100"), "this machine's libsndfile can't write opus at"),
    ],
)
def test_a_wrong_option_is_refused_before_there_is_a_bundle(
    arguments: tuple[str, ...], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> Path:
        raise AssertionError("work began")

    monkeypatch.setattr("cosyvoice_cpu.cli.bundles.chosen_bundle", work)
    outcome = call("synth", "Hi", "--output", "x.wav", *arguments)
    assert outcome.code == 2
    assert outcome.stderr.startswith(f"error: {error}")


@pytest.mark.parametrize("text", ["-5 degrees", "-x", "--5"])
def test_a_text_that_looks_like_an_option_gets_a_hint(text: str, voice: Path) -> None:
    outcome = call("synth", text, "--output", "x.wav")
    assert outcome.code == 2
    assert "No such option" in outcome.stderr
    assert "what begins with - and is no option goes behind --" in outcome.stderr
    spoken = run("synth", "--output", "-", "--bundle", voice, "--", text.replace("x", "5"))
    assert spoken.code == 0


@pytest.fixture
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text enough for minutes."""
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text("This is a sentence of a long text. " * 3000)
    return path


def test_audio_reaches_a_pipe_while_the_rest_is_not_made_yet(voice: Path, book: Path) -> None:
    arguments = ["--text-file", book, "--output", "-", "--no-normalize", "--bundle", voice]
    command = subprocess.Popen([*PROGRAM, "synth", *arguments], stdout=subprocess.PIPE)
    assert command.stdout is not None
    start = command.stdout.read(44 + 2 * 4800)
    assert command.poll() is None
    command.kill()
    command.communicate()
    assert start[:4] == b"RIFF" and start[4:8] == start[40:44] == b"\xff\xff\xff\xff"
    assert np.frombuffer(start[44:], "<i2").any()


def test_how_long_a_book_takes_is_said_behind_its_first_sound(voice: Path, book: Path) -> None:
    arguments = ["--text-file", book, "--output", "-", "--no-normalize", "--bundle", voice]
    command = subprocess.Popen(
        [*PROGRAM, "synth", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert command.stdout is not None and command.stderr is not None
    drain = threading.Thread(target=command.stdout.read)
    drain.start()
    line = command.stderr.readline()
    command.kill()
    drain.join()
    command.stderr.close()
    command.wait()
    assert re.fullmatch(
        r"about \d+ (min|h) of audio, which takes about [\d.]+ (s|min|h) and is .* made\n", line
    )


def test_audio_reaches_the_disk_while_the_rest_is_not_made_yet(
    voice: Path, book: Path, tmp_path: Path
) -> None:
    arguments = ["--text-file", book, "--output", "x.wav", "--no-normalize", "--bundle", voice]
    command = subprocess.Popen(
        [*PROGRAM, "--debug", "synth", *arguments], cwd=tmp_path, stderr=subprocess.PIPE
    )
    assert command.stderr is not None
    partials = (list(tmp_path.iterdir()) for _ in command.stderr)  # a look at each line of the log
    assert any(paths and paths[0].stat().st_size > 4800 for paths in partials)
    command.kill()
    command.communicate()
    [partial] = tmp_path.iterdir()
    assert partial.name.startswith(".x.wav.partial-")
    assert run("synth", "Hi", "--output", tmp_path / "x.wav", "--bundle", voice).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def test_a_progress_line_appears_on_a_terminal(voice: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    output = tmp_path / "x.wav"
    command = [*PROGRAM, "synth", "Hello", "--output", str(output), "--bundle", str(voice)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=child,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"},
    )
    os.close(child)
    shown = b""
    try:
        while block := os.read(parent, 4096):
            shown += block
    except OSError:  # how Linux reports that the other end is closed
        pass
    os.close(parent)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"s of audio" in shown
    assert b"\x1b[3" not in shown  # colours
