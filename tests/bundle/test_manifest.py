"""The manifest: strict in every field, and the same text on every machine."""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundle_examples import SYNTHESIS, edit_manifest, make_bundle
from support.places import DOCS

from cosyvoice_cpu.bundle import dump_manifest, parse_manifest
from cosyvoice_cpu.bundle.manifest import MAX_MANIFEST_BYTES, Manifest, Quality, QualityResult
from cosyvoice_cpu.errors import ManifestError

HINT = "copy the bundle again, or rebuild it with `cosyvoice-cpu export`"
NAME = Path("voice/manifest.json")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (make_bundle(tmp_path_factory.mktemp("m") / "voice") / "manifest.json").read_bytes()


def refusal(text: bytes) -> str:
    with pytest.raises(ManifestError) as refused:
        parse_manifest(text, NAME)
    assert refused.value.hint in (HINT, "update cosyvoice-cpu")
    prefix = f"{NAME}: "
    assert refused.value.what.startswith(prefix)
    return refused.value.what.removeprefix(prefix)


def changed(good: bytes, place: str, value: object) -> bytes:
    tree = json.loads(good)
    *parents, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    holder = tree
    for part in parents:
        holder = holder[part]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return json.dumps(tree).encode()


def test_a_manifest_written_and_read_again_is_the_same_text(good: bytes) -> None:
    manifest = parse_manifest(good, NAME)
    assert dump_manifest(manifest) == good
    assert parse_manifest(dump_manifest(manifest), NAME) == manifest


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("synthesis.solver_presets.default.steps", 2000),
        ("synthesis.solver_presets.default.guidance_rate", 1e30),
        ("synthesis.harmonic_noise_skip", 2**40),
        ("synthesis.harmonics", 10**6),
        ("synthesis.max_frames", 2**40),
        ("synthesis.max_frames", 2**20),  # by itself in its range; 80 bins of it are not
        ("synthesis.pre_lookahead_tokens", 10**9),
        ("synthesis.vocoder_lookahead_frames", 10**9),
        ("synthesis.vocoder_lookahead_frames", 3),  # all of it the f0 predictor's
        ("synthesis.speaker_embedding_size", 10**9),
        ("synthesis.speech_vocabulary", 2**40),
        ("synthesis.special_ids.stop_count", 2**40),
        ("synthesis.max_token_text_ratio", 1e300),
        ("synthesis.mel.num_mels", 10**6),
        ("synthesis.mel.n_fft", 10**9),
        ("synthesis.mel.hop", 10**9),
        ("synthesis.end_of_prompt", "x" * 10**6),
        ("audio.sample_rate", 10**9),
        ("audio.token_rate", 1e9),
        ("components.vocoder.shapes.sizes", [2**40]),
    ],
)
def test_a_number_beyond_any_model_is_refused(good: bytes, place: str, value: object) -> None:
    assert "`$." in refusal(changed(good, place, value))


def test_a_manifest_of_the_largest_size_is_read_or_refused_within_seconds(good: bytes) -> None:
    """Listed files by the ten thousands, the last twice: every search is linear."""
    tree = json.loads(good)
    (entry, *_) = tree["components"]["vocoder"]["files"]
    names = [f"vocoder/f{number}" for number in range(100_000)]
    tree["components"]["vocoder"]["files"] = [entry | {"path": name} for name in names]
    text = json.dumps(tree).encode()
    assert len(text) < MAX_MANIFEST_BYTES
    started = time.process_time()
    assert len(parse_manifest(text, NAME).components["vocoder"].files) == 100_000
    tree["components"]["vocoder"]["files"][0]["path"] = f"vocoder/F{99_999}"
    assert "name the same file" in refusal(json.dumps(tree).encode())
    keys = ",".join(f'"k{number}":0' for number in range(500_000))
    assert "k0` appears twice" in refusal(b'{"format":{' + f'{keys},"k0":1'.encode() + b"}}")
    assert time.process_time() - started < 20


def test_the_top_level_has_exactly_the_fields_of_the_format(good: bytes) -> None:
    assert list(json.loads(good)) == [
        "format",
        "format_version",
        "generation",
        "created_by",
        "source",
        "audio",
        "components",
        "synthesis",
        "quality",
    ]


@pytest.mark.parametrize("indent", [None, 0, 4])
def test_white_space_between_values_does_not_matter(good: bytes, indent: int | None) -> None:
    text = json.dumps(json.loads(good), indent=indent, ensure_ascii=indent == 0).encode()
    assert parse_manifest(text, NAME) == parse_manifest(good, NAME)


def test_a_newer_format_asks_for_an_update_even_if_its_fields_are_unknown() -> None:
    text = b'{"format": "cosyvoice-cpu-bundle", "format_version": 4, "new": {}}'
    with pytest.raises(ManifestError) as refused:
        parse_manifest(text, NAME)
    assert refused.value.what == f"{NAME}: format_version is 4, this cosyvoice-cpu reads 3"
    assert refused.value.hint == "update cosyvoice-cpu"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("extra", 1, "Object contains unknown field `extra`"),
        ("audio.extra", 1, "Object contains unknown field `extra` - at `$.audio`"),
        ("audio.token_rate", ..., "Object missing required field `token_rate` - at `$.audio`"),
        ("audio.sample_rate", 24000.5, "Expected `int`, got `float` - at `$.audio.sample_rate`"),
        ("audio.sample_rate", True, "Expected `int`, got `bool` - at `$.audio.sample_rate`"),
        ("audio.sample_rate", "24000", "Expected `int`, got `str` - at `$.audio.sample_rate`"),
        ("audio.sample_rate", 0, "Expected `int` >= 1 - at `$.audio.sample_rate`"),
        ("format_version", 0, "Invalid enum value 0 - at `$.format_version`"),
        ("format_version", "1", "Expected `int`, got `str` - at `$.format_version`"),
        ("generation", "Cosy Voice", None),
        ("components.decoder", {}, "Invalid enum value 'decoder' - at `key` in `$.components`"),
        (
            "components.vocoder.files.1.size",
            -1,
            "Expected `int` >= 0 - at `$.components.vocoder.files[1].size`",
        ),
        (
            "components.vocoder.files.0.sha256",
            "AB" * 32,
            r"Expected `str` matching regex '\\A[0-9a-f]{64}\\Z'"
            " - at `$.components.vocoder.files[0].sha256`",
        ),
        ("components.vocoder.files.0.sha256", "ab" * 32 + "\n", None),
        (
            "components.vocoder.files",
            [],
            "Expected `array` of length >= 1 - at `$.components.vocoder.files`",
        ),
        (
            "components.vocoder.engine",
            "ONNX Runtime",
            None,
        ),
        (
            "components.vocoder.shapes.sizes",
            [512, 256],
            "sizes are not ascending - at `$.components.vocoder.shapes.sizes`",
        ),
        (
            "components.vocoder.shapes.sizes",
            [],
            "sizes are given if and only if kind is `static` - at `$.components.vocoder.shapes`",
        ),
        (
            "components.vocoder.shapes.unit",
            "none",
            "unit is `none` if and only if kind is `none` - at `$.components.vocoder.shapes.unit`",
        ),
        (
            "synthesis.special_ids.task",
            1,
            "1 is a speech id (below speech_vocabulary 6561) - at `$.synthesis.special_ids.task`",
        ),
        (
            "synthesis.silent_tokens.2",
            6561,
            "6561 is not a speech id (speech_vocabulary is 6561)"
            " - at `$.synthesis.silent_tokens[2]`",
        ),
        (
            "synthesis.max_token_text_ratio",
            1.0,
            "the maximum is below min_token_text_ratio - at `$.synthesis.max_token_text_ratio`",
        ),
        ("synthesis.mel.fmax", 0.0, None),
        (
            "audio.mel_frames_per_token",
            1.7227,
            "the rates make 557.265 samples a mel frame, synthesis.mel.hop is 480"
            " - at `$.audio.mel_frames_per_token`",
        ),
        (
            "synthesis.solver_presets",
            {},
            "there is no preset `default` - at `$.synthesis.solver_presets`",
        ),
        (
            "synthesis.solver_presets.default.steps",
            9,
            "9 steps need 10 times - at `$.synthesis.solver_presets.default.grid`",
        ),
        (
            "synthesis.solver_presets.default.grid.3",
            0.9,
            "the times do not ascend from 0 to 1 - at `$.synthesis.solver_presets.default.grid`",
        ),
        (
            "synthesis.solver_presets.default.guidance_range",
            [1.0, 0.0],
            "the range ends before it begins"
            " - at `$.synthesis.solver_presets.default.guidance_range`",
        ),
        (
            "synthesis.solver_presets.default.method",
            "leapfrog",
            "Invalid enum value 'leapfrog' - at `$.synthesis.solver_presets[...].method`",
        ),
        (
            "synthesis.solver_times",
            [0.5, 0.25],
            "the times do not ascend within 0 to 1 - at `$.synthesis.solver_times`",
        ),
        (
            "synthesis.solver_times",
            [0.0, 1.5],
            "the times do not ascend within 0 to 1 - at `$.synthesis.solver_times`",
        ),
        (
            "quality.results",
            [
                {
                    "component": None,
                    "preset": "fast",
                    "measure": "mos_lost",
                    "value": 0.05,
                    "bound": "at_most",
                    "limit": 0.1,
                    "passed": True,
                }
            ],
            "there is no preset 'fast' - at `$.quality.results[0].preset`",
        ),
        ("synthesis.mel.win", 2048, "the window is longer than n_fft - at `$.synthesis.mel.win`"),
        (
            "synthesis.sampling.top_p",
            1.5,
            "Expected `float` <= 1.0 - at `$.synthesis.sampling.top_p`",
        ),
        ("quality.results", {}, "Expected `array`, got `object` - at `$.quality.results`"),
    ],
)
def test_a_wrong_field_is_named(good: bytes, place: str, value: object, message: str) -> None:
    found = refusal(changed(good, place, value))
    assert message is None or found == message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "is absolute"),
        ("vocoder/../speech_lm/a", "has the part '..'"),
        ("./vocoder/a", "has the part '.'"),
        ("vocoder//a", "has the part ''"),
        ("", "has the part ''"),
        ("vocoder\\a", "has the character '\\\\'"),
        ("C:/vocoder/a", "has the character ':'"),
        ("vocoder/a:stream", "has the character ':'"),
        ("//server/share", "is absolute"),
        ("vocoder/a\x00b", "has a control character"),
        ("vocoder/a\nb", "has a control character"),
        ("vocoder/e\u0301.onnx", "is not in Unicode form NFC"),
        ("vocoder/aux.onnx", "has the device name 'aux.onnx'"),
        ("vocoder/COM1", "has the device name 'COM1'"),
        ("vocoder/a.onnx.", "has a part that starts or ends with a blank, or ends with a dot"),
        ("vocoder/a ", "has a part that starts or ends with a blank, or ends with a dot"),
        ("vocoder/" + "a" * 201, "has a part over 200 bytes"),
        ("speech_lm/a.onnx", "is not of the form vocoder/FILE"),
        ("vocoder/deep/a.onnx", "is not of the form vocoder/FILE"),
        ("vocoder", "is not of the form vocoder/FILE"),
        ("Vocoder/a.onnx", "is not of the form vocoder/FILE"),
    ],
)
def test_an_unsafe_path_is_refused(good: bytes, path: str, reason: str) -> None:
    found = refusal(changed(good, "components.vocoder.files.1.path", path))
    assert found == f"the path {path!r} {reason} - at `$.components.vocoder.files[1].path`"


@pytest.mark.parametrize(
    "other", ["vocoder/vocoder.onnx", "vocoder/VOCODER.onnx", "vocoder/ｖocoder.onnx"]
)
def test_two_paths_of_one_file_are_refused(good: bytes, other: str) -> None:
    found = refusal(changed(good, "components.vocoder.files.1.path", other))
    assert found == (
        f"the paths 'vocoder/vocoder.onnx' and {other!r} name the same file on some systems"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"[]", "is not a bundle's manifest (`format` is not 'cosyvoice-cpu-bundle')"),
        (b"{}", "is not a bundle's manifest (`format` is not 'cosyvoice-cpu-bundle')"),
        (b'{"a": 1, "b": {"c": 2, "c": 2}}', "the key `c` appears twice in one object"),
        (b'{"a": 1, "\\u0061": 2}', "the key `a` appears twice in one object"),
        (b'{"a": 1e999}', "Number out of range - at `$[...]`"),
        (b"[" * 200_000, "is nested too deeply"),
        (b'{"a": NaN}', "JSON is malformed: invalid character (byte 6)"),
        (b"\xff\xfe{\x00}\x00", "JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: bytes, message: str) -> None:
    assert refusal(text) == message


def test_a_huge_manifest_is_not_parsed() -> None:
    size = MAX_MANIFEST_BYTES + 1
    assert refusal(b" " * size) == f"has {size} bytes, at most {MAX_MANIFEST_BYTES} are read"


def test_a_number_that_json_can_not_hold_is_not_written(good: bytes) -> None:
    result = QualityResult(
        component=None,
        preset=None,
        measure="sqnr_db",
        value=math.inf,
        bound="at_least",
        limit=20.0,
        passed=True,
    )
    broken = msgspec.structs.replace(
        parse_manifest(good, NAME), quality=Quality(results=[result], forced=False)
    )
    with pytest.raises(ManifestError) as refused:
        dump_manifest(broken)
    assert refused.value.what == (
        "manifest.json: Expected a finite number - at `$.quality.results[0].value`"
    )


def test_a_value_out_of_range_is_not_written(good: bytes) -> None:
    synthesis = msgspec.structs.replace(SYNTHESIS, silent_run_limit=-1)
    broken = msgspec.structs.replace(parse_manifest(good, NAME), synthesis=synthesis)
    with pytest.raises(ManifestError) as refused:
        dump_manifest(broken)
    assert refused.value.what == (
        "manifest.json: Expected `int` >= 0 - at `$.synthesis.silent_run_limit`"
    )


def test_editing_a_manifest_on_disk_is_noticed(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice")
    edit_manifest(bundle, "audio.sample_rate", -1)
    with pytest.raises(ManifestError, match=r"manifest\.json: Expected `int` >= 1"):
        parse_manifest((bundle / "manifest.json").read_bytes(), bundle / "manifest.json")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def places(tree: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree, as the keys and indices that lead there."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = [place]
    for key, value in inner:
        found += places(value, (*place, key)) if isinstance(value, dict | list) else [(*place, key)]
    return found


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_changed_anywhere_parses_or_is_refused_as_one(
    good: bytes, data: st.DataObject
) -> None:
    tree = copy.deepcopy(json.loads(good))
    place = data.draw(st.sampled_from(places(tree)[1:]))
    holder = tree
    for key in place[:-1]:
        holder = holder[key]
    action = data.draw(st.sampled_from(["set", "delete", "add"]))
    if action == "delete":
        del holder[place[-1]]
    elif action == "add" and isinstance(holder, dict):
        holder[data.draw(st.text(max_size=8))] = data.draw(JSON)
    else:
        holder[place[-1]] = data.draw(JSON)
    parses_or_is_refused(json.dumps(tree).encode())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), junk=st.binary(max_size=6), removed=st.integers(0, 40))
def test_a_manifest_with_damaged_bytes_parses_or_is_refused_as_one(
    good: bytes, position: float, junk: bytes, removed: int
) -> None:
    at = int(position * len(good))
    parses_or_is_refused(good[:at] + junk + good[at + removed :])


def parses_or_is_refused(text: bytes) -> None:
    try:
        manifest = parse_manifest(text, NAME)
    except ManifestError as refused:
        assert refused.what.startswith(str(NAME))
        assert refused.hint
    else:
        assert parse_manifest(dump_manifest(manifest), NAME) == manifest


def test_the_format_page_names_every_field() -> None:
    page = (DOCS / "bundle.md").read_text(encoding="utf-8")
    records: list[type[msgspec.Struct]] = [Manifest]
    for record in records:
        for one in msgspec.structs.fields(record):
            assert f"`{one.name}`" in page, one.name
            inner = structs_in(msgspec.inspect.type_info(one.type))
            records += [found for found in inner if found not in records]
    assert len(records) >= 12


def structs_in(kind: Any) -> list[type[msgspec.Struct]]:
    """The records that a field's type leads to."""
    if isinstance(kind, msgspec.inspect.StructType):
        return [kind.cls]
    parts = [getattr(kind, name, None) for name in ("item_type", "value_type")]
    parts += getattr(kind, "types", ())
    return [record for part in parts if part is not None for record in structs_in(part)]
