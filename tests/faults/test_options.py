"""Numbers and words that no option means."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import CLIP
from support.fuzz_command import refused

HUGE = "1" + "0" * 30
LONGEST = "9" * 4400  # digits; Python converts up to 4300

# Command, where B is a good bundle and C a good checkpoint; option; values.
NUMBERS = [
    ("synth Hi --output o.wav --bundle B", "--speed", "0 -1 nan inf -inf 1e308 1e-308 2.01 x"),
    ("synth Hi --output o.wav --bundle B", "--target-rtf", "0 -1 nan inf -inf x"),
    ("synth Hi --output o.wav --bundle B", "--seed", f"-1 9223372036854775808 {HUGE} 1.5 nan x"),
    ("synth Hi --output o.wav --bundle B", "--threads", f"0 -1 1025 1000000000 {HUGE} 1.5 x"),
    ("doctor", "--threads", f"0 -1 1000000000 {LONGEST}"),
    ("quantize B --output q", "--threads", "0 -1 1000000000"),
    ("export C --output e", "--threads", "0 -1 1000000000"),
    ("export C --output e", "--max-seconds", f"0 -1 nan inf -inf 1e308 301 {HUGE} x"),
    ("profile B", "--seconds", "0 -1 nan inf 1e308 301 1e-320"),
    ("profile B", "--prompt-seconds", "0 -1 nan inf 1e308 301"),
    ("profile B", "--operators", f"0 -1 {LONGEST}"),
    ("bench B", "--seconds", "0 -1 nan inf 1e308"),
    ("bench B", "--repeat", f"0 -1 {LONGEST}"),
    ("bench B", "--decode-tokens", "0 -1"),
    ("bench B", "--solver-steps", "0 -1"),
    ("tune B", "--repeat", "0 -1 x"),
    ("verify B", "--items", "0 -1"),
]
WORDS = [
    ("synth Hi --output o.wav --bundle B", "--mode", ["", "x", "ZERO-SHOT", "zero-shot\n"], 2),
    ("synth Hi --output o.wav --bundle B", "--speaker", ["", "..", "/", "a\nb", "\x1b[2J"], 1),
    ("synth Hi --output o.wav --bundle B", "--instruct", ["\ud800", "\x00", "x " * 500_000], 1),
    ("synth Hi --output o.wav --bundle B", "--language", ["", "english", "e n", "12", "en\n"], 2),
    ("synth Hi --output o.wav --bundle B", "--lexicon", ["", ".", "none.txt"], 1),
    ("export C --output e", "--shapes", ["", "x", "static "], 2),
    ("export C --output e", "--storage", ["", "int8", "float64"], 2),
    ("export C --output e", "--speech-lm", ["", "../base"], 2),
    ("synth Hi --output o.wav --bundle B", "--preset", ["", "x", "default\n", "\x1b[2J"], 2),
    ("bench B", "--preset", ["", "x", ",", "default,x"], 2),
    ("quantize B --output q --dry-run", "--recipe", ["", ".", "..", "/", "\x00", "INT8"], 2),
    ("quantize B --output q --dry-run", "--component", ["", "x", "../x", "speech_lm\x01"], 2),
    ("bench", "--rows", ["", ",", "x", "onnx,,", "\x01"], 2),
    ("bench", "--synthetic", ["", "cosyvoice9", "../x"], 2),
]


def _line(command: str, bundle: Path, checkpoint: Path) -> list[str]:
    places = {"B": str(bundle), "C": str(checkpoint)}
    return [places.get(word, word) for word in command.split()]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        pytest.param(command, option, value, id=f"{command.split()[0]} {option} {value[:20]}")
        for command, option, values in NUMBERS
        for value in values.split()
    ],
)
def test_an_absurd_number_is_wrong_usage(
    command: str,
    option: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_bundle: Path,
    tiny_checkpoint: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = _line(command, tiny_bundle, tiny_checkpoint)
    if command.startswith("synth"):
        arguments += ["--audio", str(CLIP)]
    refused(*arguments, f"{option}={value}", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "option", "value", "code"),
    [
        pytest.param(
            command, option, value, code, id=f"{command.split()[0]} {option} {value[:9]!a}"
        )
        for command, option, values, code in WORDS
        for value in values
    ],
)
def test_a_word_that_an_option_does_not_know_is_refused(
    command: str,
    option: str,
    value: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_bundle: Path,
    tiny_checkpoint: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = _line(command, tiny_bundle, tiny_checkpoint)
    if option in ("--instruct", "--lexicon"):
        arguments += ["--audio", str(CLIP)]
    fact = refused(*arguments, f"{option}={value}", code=code)
    assert fact.isprintable()
    assert list(tmp_path.iterdir()) == []


NAMES = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "way-out": "../anna",
    "absolute": "/tmp/anna",
    "folder": "a/b",
    "backslash": "a\\b",
    "hidden": ".anna",
    "option": "-anna",
    "line-end": "an\nna",
    "zero": "an\x00na",
    "bell": "an\x07na",
    "right-to-left": "\u202eanna",
    "blank": "an na",
    "emoji": "🎤",
    "broken-character": "an\ud800na",
    "device": "con",
    "device-with-suffix": "NUL.txt",
    "65-characters": "a" * 65,
    "202-bytes": "é" * 101,
    "1-MB": "a" * 1_000_000,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("action", ["--audio", "--remove"])
def test_a_name_that_no_speaker_may_have_is_refused(
    action: str, name: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    options = [action, CLIP] if action == "--audio" else [action]
    speakers = tmp_path / "speakers"
    fact = refused("cache-speaker", tiny_bundle, *options, "--speakers", speakers, "--", name)
    assert len(fact) < 2000
    assert fact.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["many", "0", "-1", "1e9", "1.5", HUGE, "nan"])
def test_a_variable_that_is_no_number_of_threads_is_wrong_usage(value: str) -> None:
    refused("doctor", variables={"COSYVOICE_CPU_THREADS": value}, code=2)
