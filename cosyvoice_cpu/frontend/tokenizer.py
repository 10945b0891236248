"""Text ids: Qwen2 byte-level BPE with CosyVoice's special tokens behind it.

The official folder has `vocab.json` and `merges.txt` and no `tokenizer.json`, so the tokenizer is
built from these two. CosyVoice numbers its special tokens by their place in a list, from the first
id after the base vocabulary; later Qwen2 releases put other tokens there, which is why no
`tokenizer.json` of theirs may be used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosyvoice_cpu.errors import BundleError, CheckpointError, CosyVoiceError, TextError
from cosyvoice_cpu.generations import generation_named

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
LARGEST_FILE = 64 << 20  # bytes; the official files have 3 MB and 2 MB

# Qwen2's pre-tokenization: contractions, words with one leading mark, digits, symbols, blanks.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class TextTokenizer:
    """Text to ids, for the speech LM. Build it with `load`."""

    def __init__(self, engine: Tokenizer, first_special_id: int, end_of_prompt_id: int) -> None:
        self._engine = engine
        self._first_special_id = first_special_id
        self.end_of_prompt_id = end_of_prompt_id
        self.vocabulary_size: int = engine.get_vocab_size(with_added_tokens=True)

    @classmethod
    def load(
        cls, folder: str | Path, generation: str = "cosyvoice3", *, in_bundle: bool = False
    ) -> TextTokenizer:
        """The tokenizer of an official `CosyVoice-BlankEN` folder, or a bundle's `text_tokenizer/`.

        Raises: CheckpointError, or BundleError with `in_bundle`, naming the file that is missing or
        damaged; UsageError for an unknown generation.
        Source: CosyVoice cosyvoice/tokenizer/tokenizer.py, `CosyVoice3Tokenizer`.
        """
        row = generation_named(generation)
        files = _TokenizerFiles(Path(folder), in_bundle)
        vocabulary = files.vocabulary()
        engine = _byte_level_bpe(vocabulary, files.merges(vocabulary))
        engine.add_special_tokens(list(row.special_tokens))
        expected = range(len(vocabulary), len(vocabulary) + len(row.special_tokens))
        if [engine.token_to_id(token) for token in row.special_tokens] != list(expected):
            raise files.error(VOCABULARY_FILE, "already holds one of CosyVoice's special tokens")
        first = len(vocabulary)
        return cls(engine, first, first + row.special_tokens.index(row.end_of_prompt))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special strings in it become their one id, wherever they stand.

        Special tokens are found in the text as typed and only what lies between them is brought to
        NFC, so a mark spelled with combining accents is plain text, as in the original.
        Raises: TextError for a lone surrogate, which has no encoding.
        """
        if found := _SURROGATE.search(text):
            raise TextError(
                f"the text has a broken character (U+{ord(found[0]):04X}) at position "
                f"{found.start()}",
                "save the text as UTF-8 again",
            )
        ids: list[int] = self._engine.encode(text).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included; what is not UTF-8 becomes U+FFFD.

        Raises: TextError for an id outside the vocabulary.
        """
        if wrong := [number for number in ids if not 0 <= number < self.vocabulary_size]:
            raise TextError(
                f"text id {wrong[0]} is outside the vocabulary of {self.vocabulary_size}",
                "take ids that this tokenizer made",
            )
        parts: list[str] = []
        # One by one, because the byte decoder would take the letters of `[à]` for bytes.
        for special, run in groupby(ids, key=lambda number: number >= self._first_special_id):
            if special:
                parts += [self._engine.id_to_token(number) or "" for number in run]
            else:
                parts.append(self._engine.decode(list(run)))
        return "".join(parts)

    def count(self, text: str) -> int:
        """Number of ids of `text`, as `split_sentences` wants it."""
        return len(self.encode(text))


def _byte_level_bpe(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    engine = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    engine.normalizer = NFC()
    engine.decoder = ByteLevelDecoder()
    engine.pre_tokenizer = Sequence(
        [
            Split(Regex(_SPLIT), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return engine


class _TokenizerFiles:
    """Reads the two files and refuses what the tokenizer would misread without a word."""

    def __init__(self, folder: Path, in_bundle: bool) -> None:
        self._folder = folder
        self._error: type[CosyVoiceError] = BundleError if in_bundle else CheckpointError
        self._hint = (
            "copy the bundle again, or rebuild it with `cosyvoice-cpu export`"
            if in_bundle
            else "download this file of the official checkpoint again"
        )

    def error(self, name: str, fact: str) -> CosyVoiceError:
        return self._error(f"{self._folder / name} {fact}", self._hint)

    def vocabulary(self) -> dict[str, int]:
        """Token to id; the ids are 0..n-1, each once, and every byte has a token."""
        text = self._read(VOCABULARY_FILE)
        try:
            pairs = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise self.error(VOCABULARY_FILE, f"is not valid JSON ({error})") from error
        if text.lstrip()[:1] != "{" or not pairs:
            raise self.error(VOCABULARY_FILE, "is not a table of tokens and ids")
        self._check_ids(pairs)
        vocabulary: dict[str, int] = dict(pairs)
        if len(vocabulary) != len(pairs):
            raise self.error(
                VOCABULARY_FILE, f"names {_first_repeated(t for t, _ in pairs)!r} twice"
            )
        if _SURROGATE.search("".join(vocabulary)):  # half a character, which has no encoding
            raise self.error(VOCABULARY_FILE, "holds a broken character (a lone surrogate)")
        if missing := set(_byte_tokens()) - vocabulary.keys():
            raise self.error(VOCABULARY_FILE, f"lacks the byte token {min(missing)!r}")
        return vocabulary

    def merges(self, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
        """Pairs in order of rank, each of known tokens with a known result."""
        lines = self._read(MERGES_FILE).replace("\r\n", "\n").split("\n")
        first = 1 if lines[0].startswith("#version") else 0
        pairs = [tuple(line.split(" ")) for line in lines[first:] if line]
        # The whole file at once, since loading is part of the first audio's delay; the line is
        # looked for only when there is something to say about it.
        if set(map(len, pairs)) != {2} or not all(map(all, pairs)):
            number, line = _find_line(lines, first, lambda pair: len(pair) != 2 or not all(pair))
            raise self.error(MERGES_FILE, f"line {number}: expected two tokens, got {line!r}")
        if not all(a in vocabulary and b in vocabulary and a + b in vocabulary for a, b in pairs):
            number, line = _find_line(
                lines, first, lambda pair: not {*pair, "".join(pair)} <= vocabulary.keys()
            )
            raise self.error(
                MERGES_FILE, f"line {number}: {line!r} names a token that {VOCABULARY_FILE} lacks"
            )
        return [(a, b) for a, b in pairs]

    def _check_ids(self, pairs: list[tuple[str, Any]]) -> None:
        if {type(number) for _, number in pairs} != {int}:
            token, number = next(pair for pair in pairs if type(pair[1]) is not int)
            raise self.error(VOCABULARY_FILE, f"gives {token!r} the id {str(number)[:40]!r}")
        ids = sorted(number for _, number in pairs)
        if ids != list(range(len(ids))):
            repeated = _first_repeated(ids)
            raise self.error(
                VOCABULARY_FILE,
                f"gives the id {repeated} twice"
                if repeated is not None
                else f"has ids {ids[0]}..{ids[-1]} for {len(ids)} tokens; they must be 0..n-1",
            )

    def _read(self, name: str) -> str:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except OSError as error:
            fact = "is missing" if isinstance(error, FileNotFoundError) else "can't be read"
            raise self.error(name, f"{fact} ({error.strerror})") from error
        if len(content) > LARGEST_FILE:
            raise self.error(name, f"is larger than {LARGEST_FILE >> 20} MB")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(name, f"is not UTF-8 (byte {error.start})") from error


def _find_line(lines: list[str], first: int, wrong: Callable[[list[str]], bool]) -> tuple[int, str]:
    """Number and start of the first wrong line; of the end of the file if it holds no merges."""
    for number, line in enumerate(lines[first:], start=first + 1):
        if line and wrong(line.split(" ")):
            return number, line[:40]
    return len(lines), ""


def _byte_tokens() -> Sequence[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return list(ByteLevel.alphabet())


def _first_repeated(values: Iterable[Any]) -> Any:
    """The first value seen a second time, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
