"""Texts of many scripts, very long ones, and what looks like text and is none."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from support.command_line import CLIP
from support.fuzz_command import refused

from cosyvoice_cpu.frontend.bundle_models import text_tokenizer
from cosyvoice_cpu.frontend.sentences import split_sentences
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

SENTENCES = {
    "Latin": "The sky is clear today.",
    "Vietnamese": "Hôm nay trời rất đẹp.",
    "Greek": "Σήμερα ο καιρός είναι καλός.",
    "Cyrillic": "Сегодня хорошая погода.",
    "Armenian": "Այսօր եղանակը լավն է։",
    "Georgian": "დღეს კარგი ამინდია.",
    "Hebrew": "היום מזג האוויר יפה.",
    "Arabic": "الطقس جميل اليوم؟",
    "Syriac": "ܫܠܡܐ ܠܟܘܠܟܘܢ܀",
    "Thaana": "މިއަދު މޫސުން ރަނގަޅު.",
    "N'Ko": "ߌ ߣߌ ߕߟߋ߫.",
    "Devanagari": "आज मौसम अच्छा है।",
    "Bengali": "আজ আবহাওয়া ভালো।",
    "Gurmukhi": "ਅੱਜ ਮੌਸਮ ਚੰਗਾ ਹੈ।",
    "Gujarati": "આજે હવામાન સારું છે.",
    "Odia": "ଆଜି ପାଗ ଭଲ ଅଛି।",
    "Tamil": "இன்று வானிலை நன்றாக உள்ளது.",
    "Telugu": "ఈరోజు వాతావరణం బాగుంది.",
    "Kannada": "ಇಂದು ಹವಾಮಾನ ಚೆನ್ನಾಗಿದೆ.",
    "Malayalam": "ഇന്ന് കാലാവസ്ഥ നല്ലതാണ്.",
    "Sinhala": "අද කාලගුණය හොඳයි.",
    "Thai": "วันนี้อากาศดี",
    "Lao": "ມື້ນີ້ອາກາດດີ",
    "Tibetan": "དེ་རིང་གནམ་གཤིས་ཡག་པོ་འདུག །",
    "Burmese": "ဒီနေ့ ရာသီဥတု ကောင်းတယ်။",
    "Khmer": "ថ្ងៃនេះ អាកាសធាតុល្អ។",
    "Ethiopic": "ዛሬ አየሩ ጥሩ ነው።",
    "Cherokee": "ᎣᏏᏲ ᏙᎯᏧ?",
    "Canadian syllabics": "ᐅᓪᓗᒥ ᓯᓚ ᐱᐅᔪᖅ.",
    "Mongolian": "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ᠃",
    "Han, simplified": "今天天气很好。",
    "Han, traditional": "今天天氣很好。",
    "Kana": "きょうは いい てんき です。",
    "Hangul": "오늘은 날씨가 좋습니다.",
    "Bopomofo": "ㄋㄧˇ ㄏㄠˇ。",
    "Yi": "ꆈꌠꉙ。",
    "Javanese": "ꦲꦏ꧀ꦱꦫꦗꦮ꧉",
    "Adlam": "𞤀𞤣𞤤𞤢𞤥.",
    "Gothic": "𐌲𐌿𐍄𐌹𐍃𐌺.",
    "Cuneiform": "𒀭𒂗𒆤 𒈗.",
}
ODD = {
    "right-to-left-marks": "\u202eabc\u202c \u2067def\u2069 \u200fghi.",
    "zalgo": "H̷̢̨̛̗e̴̡͖͗l̵̨̛̫l̶͎̈́o̸̼͝ " + "a" + "\u0301\u0323" * 200 + ".",
    "emoji-in-words": "Good 👩‍👩‍👧‍👦 morning 🇩🇪🏳️‍🌈!",
    "zero-width": "G\u200bo\u200do\u2060d\ufeff mor\u00adning.",
    "line-separators": "One.\u2028Two.\u2029Three.\x85Four.",
    "wide-letters": "Ｇｏｏｄ　ｍｏｒｎｉｎｇ．",
    "mathematical-letters": "𝓖𝓸𝓸𝓭 𝕞𝕠𝕣𝕟𝕚𝕟𝕘.",
    "private-use": "A \ue000 b \U000f0000 c.",
    "no-characters": "A \ufffe b \U0010ffff c.",
    "tags": "A \U000e0041\U000e0042 b.",
    "markup": "<strong>A</b> <|nothing|> [x] {y} &amp; %s ${HOME} `ls`.",
    "a-long-number": "9" * 2000,
}
NO_TEXT = {
    "nothing": "",
    "blanks": " " * 100_000,
    "wide-blanks": "\u3000\u00a0\u2003",
    "dots": "." * 100_000,
    "zero-width-only": "\u200b\u200d\ufeff",
    "marks-only": "\u0301\u0302\u0303",
    "emoji-only": "🎉🎉🎉",
    "zero": "a\x00b",
    "escape": "\x1b[31mred",
    "delete": "a\x7fb",
    "c1-control": "a\x80b",
    "lone-high-surrogate": "a\ud800b",
    "lone-low-surrogate": "a\udc00",
    "bytes-that-are-not-utf-8": "caf\udce9",
    "surrogates-in-a-pair": "\ud83d\ude00",
}


@pytest.fixture(scope="module")
def stages(tiny_bundle: Path) -> BundleStages:
    """The tiny bundle, loaded once."""
    return BundleStages.load(tiny_bundle)


def test_there_are_thirty_scripts() -> None:
    assert len(SENTENCES) >= 30


@pytest.mark.parametrize("text", (SENTENCES | ODD).values(), ids=SENTENCES | ODD)
def test_a_text_of_any_script_is_cut_without_loss_and_spoken(
    text: str, stages: BundleStages
) -> None:
    tokenizer = text_tokenizer(stages.bundle)
    assert tokenizer is not None
    segments = split_sentences(text, tokenizer.count)
    assert "".join("".join(segments).split()) == "".join(text.split())
    ids = tokenizer.encode(segments[0])
    assert tokenizer.decode(ids)
    tokens = stages.generate_speech_tokens(ids, max_tokens=8)
    mel = stages.tokens_to_mel(
        tokens,
        prompt_tokens=(),
        prompt_mel=np.zeros((0, 80), np.float32),
        embedding=np.ones(192, np.float32),
    )
    audio = stages.mel_to_waveform(mel)
    assert audio.size == 960 * len(tokens)
    assert np.all(np.isfinite(audio))


@pytest.mark.parametrize("text", NO_TEXT.values(), ids=NO_TEXT)
@pytest.mark.parametrize("where", ["TEXT", "--text-file", "stdin"])
def test_what_can_not_be_spoken_is_refused(
    where: str, text: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    output, content = tmp_path / "o.wav", text.encode(errors="surrogatepass")
    source: tuple[str | Path, ...] = (text,)
    if where == "--text-file":
        (tmp_path / "t.txt").write_bytes(content)
        source = ("--text-file", tmp_path / "t.txt")
    elif where == "stdin":
        source = ("-",)
    options = ("--output", output, "--bundle", tiny_bundle, "--audio", CLIP)
    fact = refused("synth", *source, *options, stdin=content)
    assert len(fact) < 300
    assert not output.exists()


UNITS = {
    "sentences": "Good morning. ",
    "one-word": "a",
    "han-without-stops": "天",
    "marks-on-one-letter": "\u0301",
    "stops": ".",
    "quotes": '"a',
    "brackets": "([{<",
    "flags": "🇩",
    "joiners": "👩\u200d",
    "line-ends": "\r\n",
    "numbers": "1,",
}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_a_megabyte_is_cut_in_seconds(unit: str, tiny_bundle: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_bundle / "text_tokenizer", in_bundle=True)
    text = unit * (250_000 // len(unit.encode()))
    started = time.process_time()
    segments = split_sentences(text, tokenizer.count)
    assert time.process_time() - started < 10
    assert "".join("".join(segments).split()) == "".join(text.split())
