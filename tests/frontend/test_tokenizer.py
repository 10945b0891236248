"""Text ids against the original's, and the files that must be refused."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.places import DATA

from cosyvoice_cpu.checkpoint.synthetic_text import write_text_tokenizer
from cosyvoice_cpu.errors import BundleError, CheckpointError, TextError, UsageError
from cosyvoice_cpu.frontend import TextTokenizer
from cosyvoice_cpu.generations import generation_named

SPECIAL = generation_named("cosyvoice3").special_tokens
GOLDEN = json.loads(gzip.decompress((DATA / "frontend/tokenizer.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("official")
    write_text_tokenizer(folder, 151936, SPECIAL)
    return TextTokenizer.load(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with 44 merges: as a small checkpoint has them."""
    write_text_tokenizer(tmp_path, 256 + 44 + len(SPECIAL), SPECIAL)
    return tmp_path


def test_the_ids_of_every_golden_string_are_the_originals(official: TextTokenizer) -> None:
    items = GOLDEN["items"]
    assert len(items) == 229
    wrong = [item["text"] for item in items if official.encode(item["text"]) != item["gen3"]]
    assert not wrong


def test_every_special_token_has_the_originals_id(official: TextTokenizer) -> None:
    for token, number in GOLDEN["special_tokens"]["3"].items():
        assert official.encode(token) == [number]
    assert official.end_of_prompt_id == 151646
    assert official.vocabulary_size == 151924


def test_marks_are_matched_as_typed_before_normalization(official: TextTokenizer) -> None:
    assert official.encode("[j][ǐ]") == [151797, 151913]
    decomposed = unicodedata.normalize("NFD", "[ǐ]")
    assert 151913 not in official.encode(decomposed)
    assert official.encode("[Laughter]") != official.encode("[laughter]")


def test_a_small_vocabulary_numbers_the_special_tokens_behind_itself(small: Path) -> None:
    tokenizer = TextTokenizer.load(small)
    assert tokenizer.vocabulary_size == 300 + len(SPECIAL)
    assert tokenizer.end_of_prompt_id == 300 + SPECIAL.index("<|endofprompt|>")
    assert tokenizer.encode("[breath]") == [300 + SPECIAL.index("[breath]")]


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_has_ids_inside_the_table(official: TextTokenizer, text: str) -> None:
    assert all(0 <= number < official.vocabulary_size for number in official.encode(text))


@settings(max_examples=50)
@given(st.lists(st.sampled_from([*SPECIAL, "Hello", " 你好", "à", "\n", "😀"])))
def test_decoding_gives_the_text_back(official: TextTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    assert official.decode(official.encode(text)) == text


def test_an_id_outside_the_table_can_not_be_decoded(official: TextTokenizer) -> None:
    with pytest.raises(TextError, match="text id 151924 is outside"):
        official.decode([1, 151924])


def test_a_lone_surrogate_is_refused_with_its_place(official: TextTokenizer) -> None:
    with pytest.raises(TextError, match=r"broken character \(U\+D83D\) at position 3"):
        official.encode("ab \ud83d")


def test_an_unknown_generation_is_a_usage_error(small: Path) -> None:
    with pytest.raises(UsageError, match="cosyvoice9"):
        TextTokenizer.load(small, "cosyvoice9")


def _edit_vocabulary(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "vocab.json"
        table = json.loads(path.read_text(encoding="utf-8"))
        change(table)
        path.write_text(json.dumps(table), encoding="utf-8")

    return damage


def _replace_text(name: str, old: str, new: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return damage


def _truncate(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "vocab.json").unlink(), r"vocab\.json is missing"),
    (lambda folder: (folder / "merges.txt").unlink(), r"merges\.txt is missing"),
    (_truncate("vocab.json", 1000), r"vocab\.json is not valid JSON"),
    (_truncate("vocab.json", 0), r"vocab\.json is not valid JSON"),
    (lambda f: (f / "vocab.json").write_text("[" * 99999), r"vocab\.json is not valid JSON"),
    (lambda f: (f / "vocab.json").write_text("{}"), "is not a table of tokens and ids"),
    (lambda f: (f / "vocab.json").write_text('[["a", 0]]'), "is not a table of tokens and ids"),
    (lambda f: (f / "vocab.json").write_bytes(b'{"\xff": 0}'), r"is not UTF-8 \(byte 2\)"),
    (_edit_vocabulary(lambda t: t.update({"!": 5})), "gives the id 5 twice"),
    (_edit_vocabulary(lambda t: t.update({"new": 9999})), r"has ids 0\.\.9999 for 301 tokens"),
    (_edit_vocabulary(lambda t: t.update({"!": "0"})), "gives '!' the id '0'"),
    (_edit_vocabulary(lambda t: t.update({"!": True})), "gives '!' the id 'True'"),
    (_edit_vocabulary(lambda t: t.update({"!!!": t.pop("!")})), "lacks the byte token '!'"),
    (_edit_vocabulary(lambda t: t.update({"[breath]": 300})), "already holds one of CosyVoice's"),
    (_replace_text("vocab.json", '"!":0,', '"!":0,"!":0,'), "gives the id 0 twice"),
    (_replace_text("merges.txt", "i n", "zq n"), r"line 4: 'zq n' names a token that vocab\.json"),
    (_replace_text("merges.txt", "i n", "in"), "line 4: expected two tokens, got 'in'"),
    (_replace_text("merges.txt", "i n", "i n g"), "line 4: expected two tokens, got 'i n g'"),
    (_truncate("merges.txt", 14), "expected two tokens, got ''"),
]


@pytest.mark.parametrize("damage, message", DAMAGE)
def test_a_damaged_file_is_named_in_the_error(
    small: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(small)
    with pytest.raises(CheckpointError, match=message) as caught:
        TextTokenizer.load(small)
    assert str(small) in caught.value.what
    assert caught.value.hint


def test_a_bundles_folder_raises_bundle_errors(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"vocab\.json is missing") as caught:
        TextTokenizer.load(tmp_path, in_bundle=True)
    assert "copy the bundle again" in caught.value.hint


def test_a_token_of_half_a_character_is_refused(small: Path) -> None:
    path = small / "vocab.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))
    (token,) = [token for token, number in vocabulary.items() if number == 299]
    vocabulary["\ud800"] = vocabulary.pop(token)
    path.write_text(json.dumps(vocabulary))
    with pytest.raises(CheckpointError, match="holds a broken character"):
        TextTokenizer.load(small)
