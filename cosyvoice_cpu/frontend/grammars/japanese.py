"""Japanese: what wetext's grammar reads wrongly, written so that it reads it right."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from cosyvoice_cpu.frontend.grammars import chinese

__all__ = ["KEPT", "prepare"]

_DIGITS = str.maketrans("0123456789", "ゼ一二三四五六七八九")  # ゼ stands for ゼロ, below
_UNITS = {
    "V": "ボルト", "W": "ワット", "kW": "キロワット", "kWh": "キロワット時", "Hz": "ヘルツ",
    "kHz": "キロヘルツ", "MHz": "メガヘルツ", "GHz": "ギガヘルツ", "GB": "ギガバイト",
    "MB": "メガバイト", "TB": "テラバイト", "KB": "キロバイト", "dB": "デシベル",
    "kcal": "キロカロリー", "mAh": "ミリアンペア時", "㎡": "平方メートル", "m²": "平方メートル",
    "m2": "平方メートル", "km²": "平方キロメートル", "hPa": "ヘクトパスカル",
    "ml": "ミリリットル", "mL": "ミリリットル", "L": "リットル", "fps": "フレーム毎秒",
}  # fmt: skip
_NAMES = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
KEPT = chinese.KEPT


def prepare(text: str) -> str:
    """`text` with what the grammar gets wrong written so that it gets it right."""
    text = _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text


def _phone(found: re.Match[str]) -> str:
    groups = re.findall(r"\d+", found[0])
    plus = "プラス" if found[0].startswith("+") else ""
    return plus + "の".join(group.translate(_DIGITS).replace("ゼ", "ゼロ") for group in groups)


def _celsius(found: re.Match[str]) -> str:
    return f"{'マイナス' if found[1] else ''}{found[2]}度"


_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ％＋－．／＄]+")
Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_RULES: tuple[Rule, ...] = (
    (re.compile(r"[\u2212\u2010\u2011](?=\d)"), "-"),
    (re.compile(r"(?<=\d)\s?[\u2013\u2014〜～]\s?(?=\d)"), "-"),
    (re.compile(r"(?<=\d)：(?=\d)"), ":"),
    (
        re.compile(
            r"(?<![\w.])(?:\+\d{1,3}[ -]\d{1,4}|0\d{1,4})"
            r"[ -]\d{1,4}[ -]\d{3,4}(?![\d-])",
            re.ASCII,
        ),
        _phone,
    ),
    (re.compile(r"(?<![\w.])([-−])?(\d+(?:\.\d+)?)\s?(?:℃|°C)", re.ASCII), _celsius),
    (
        re.compile(rf"(?<![A-Za-z.])(\d[\d,]*(?:\.\d+)?)\s?({_NAMES})(?![A-Za-z0-9/])"),
        lambda found: found[1] + _UNITS[found[2]],
    ),
    (
        re.compile(r"(?<![\w.])\d+(?:\.\d+){2}(?!\.?\d)", re.ASCII),
        lambda found: "点".join(map(chinese.cardinal, found[0].split("."))),
    ),
    (re.compile(r"[①-⑳]"), lambda found: chinese.cardinal(str(ord(found[0]) - 0x245F))),
)
