"""English: what wetext's grammar reads wrongly, written out before it.

| written | the grammar | here |
|---|---|---|
| 1,500 units | thousand five hundred | one thousand five hundred |
| the 1990s | nineteen hundred and ninety seconds | nineteen nineties |
| $3.50 | three point five dollars | three dollars and fifty cents |
| 555-1234 | ... to one thousand ... | five five five, one two three four |
| 100 m | one hundred minutes | one hundred meters |
| 1.2.3 | one.two point three | one point two point three |
| https://a.b | HTTPS colon slash slash a dot b | a dot b |
| 24/7, 9/11 | twenty four sevenths | twenty four seven, nine eleven |
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cosyvoice_cpu.frontend.grammars.english_words import cardinal, digits, number, plural, year

# Words with letters that the grammar doesn't have.
KEPT = re.compile(r"(\S*[^\W\d_A-Za-z²³]\S*)")

_AMOUNT = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALES = {
    "k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion",
    "t": "trillion", "tn": "trillion",
}  # fmt: skip
_MONEY = {  # unit, its plural, the hundredth and its plural
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "￥": ("yen", "yen", "sen", "sen"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₺": ("lira", "lira", "kurush", "kurush"),
}
_DOLLARS = {"US": "US", "A": "Australian", "AU": "Australian", "C": "Canadian", "CA": "Canadian",
            "HK": "Hong Kong", "NZ": "New Zealand", "S": "Singapore"}  # fmt: skip
_CODES = {"USD": "US dollar", "EUR": "euro", "GBP": "pound", "JPY": "yen", "CNY": "yuan",
          "RMB": "yuan", "CHF": "Swiss franc", "CAD": "Canadian dollar",
          "AUD": "Australian dollar"}  # fmt: skip
_UNITS = {  # symbols that the grammar lacks or takes for something else
    "m": "meter", "sec": "second", "secs": "second", "hr": "hour", "hrs": "hour", "h": "hour",
    "fps": "frame per second", "rpm": "revolution per minute", "V": "volt", "kV": "kilovolt",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour", "Wh": "watt hour",
    "mAh": "milliamp hour", "dB": "decibel", "px": "pixel", "kcal": "kilocalorie", "L": "liter",
    "l": "liter", "dl": "deciliter", "cl": "centiliter", "tbsp": "tablespoon",
    "tsp": "teaspoon", "kHz": "kilohertz", "kPa": "kilopascal", "hPa": "hectopascal",
    "kB": "kilobyte", "KB": "kilobyte", "TB": "terabyte", "Mbps": "megabit per second",
    "Gbps": "gigabit per second", "kbps": "kilobit per second", "MB/s": "megabyte per second",
    "m/s": "meter per second",
    "m/s²": "meter per second squared", "m/s^2": "meter per second squared",
    "mi": "mile", "yd": "yard", "yds": "yard", "µg": "microgram",
    "μg": "microgram", "mcg": "microgram", "ms": "millisecond", "mm": "millimeter", "t": "ton",
    "ha": "hectare", "bpm": "beat per minute",
}  # fmt: skip
_UNIT_NAMES = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_FRACTIONS = {
    "½": "one half", "⅓": "one third", "⅔": "two thirds", "¼": "one quarter",
    "¾": "three quarters", "⅕": "one fifth", "⅛": "one eighth", "⅜": "three eighths",
    "⅝": "five eighths", "⅞": "seven eighths",
}  # fmt: skip
_SYMBOLS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "~": "tilde", "?": "question mark",
    "=": "equals", "&": "and", "#": "hash", ":": "colon", "@": "at", "%": "percent", "+": "plus",
    ",": "comma",
}  # fmt: skip
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_ADDRESS_PARTS = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z\d]")


def prepare(text: str) -> str:
    """`text` with what the grammar gets wrong in words already."""
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text


def _address(found: re.Match[str]) -> str:
    written = re.sub(r"^(?:https?://|mailto:)", "", found[0], flags=re.IGNORECASE).rstrip("/")
    words = []
    for part in _ADDRESS_PARTS.findall(written):
        words.append(digits(part) if part.isdigit() and len(part) > 4 else
                     cardinal(int(part)) if part.isdigit() else
                     "W W W" if part.lower() == "www" else _SYMBOLS.get(part, part))  # fmt: skip
    return " ".join(words)


def _money(found: re.Match[str]) -> str:
    one, many, cent, cents = _MONEY[found["symbol"]]
    country = f"{_DOLLARS[found['country']]} " if found["country"] else ""
    amount, scale = found["amount"].replace(",", ""), found["scale"]
    minus = "minus " if found["minus"] else ""
    if scale:
        return f"{minus}{number(amount)} {_SCALES.get(scale.lower(), scale)} {country}{many}"
    whole, _, part = amount.partition(".")
    if len(part) > 2 or (part and many in ("yen", "won")):
        return f"{minus}{number(amount)} {country}{many}"
    hundredths = int(part.ljust(2, "0")) if part else 0
    units = f"{cardinal(int(whole))} {country}{one if int(whole) == 1 else many}"
    small = f"{cardinal(hundredths)} {cent if hundredths == 1 else cents}"
    if not hundredths:
        return minus + units
    return minus + (small if int(whole) == 0 else f"{units} and {small}")


def _currency_code(found: re.Match[str]) -> str:
    unit = _CODES[found["code"] or found["code_before"]]
    amount = found["amount"] or found["amount_behind"]
    same = unit in ("yen", "yuan") or amount == "1"
    return f"{number(amount.replace(',', ''))} {unit if same else plural(unit)}"


def _unit(found: re.Match[str]) -> str:
    amount, unit = found["amount"].replace(",", ""), _UNITS[found["unit"]]
    minus = "minus " if found["minus"] else ""
    return f"{minus}{number(amount)} {unit if amount == '1' else plural(unit)}"


def _phone(found: re.Match[str]) -> str:
    plus = "plus " if "+" in found[0] else ""
    groups = re.findall(r"\d+", found[0])
    return plus + ", ".join(digits(group) for group in groups)


def _decade(found: re.Match[str]) -> str:
    century, ten = int(found[1]), int(found[2]) * 10
    tens = plural(cardinal(ten)) if ten else "hundreds"
    if century == 20 and not ten:
        return "two thousands"
    return f"{cardinal(century)} {tens}"


def _version(found: re.Match[str]) -> str:
    prefix = f"{found[1]} " if found[1] else ""
    return prefix + " point ".join(cardinal(int(part)) for part in found[2].split("."))


def _mixed(found: re.Match[str]) -> str:
    fraction = _FRACTIONS[found[2]]
    if not found[1]:
        return fraction
    return f"{number(found[1])} and {fraction.replace('one ', 'a ', 1)}"


def _whole_and_part(found: re.Match[str]) -> str:
    """1 1/2 as "1½"."""
    part = {"1/2": "½", "1/4": "¼", "3/4": "¾", "1/3": "⅓", "2/3": "⅔"}[found[2]]
    return found[1] + part


def _season(found: re.Match[str]) -> str:
    return f"{year(int(found[1]))} {cardinal(int(found[2]))}"


def _day(found: re.Match[str]) -> str:
    """3 May as "the 3rd of May", which the grammar reads."""
    day = int(found[2])
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 * (day not in (11, 12, 13)), "th")
    return f"the {day}{suffix} of {found[3]}"


def _port(found: re.Match[str]) -> str:
    return f"{found[1]} port {digits(found[2])}"


def _years(found: re.Match[str]) -> str:
    return f"{year(int(found[1]))} to {year(int(found[2]))}"


def _height(found: re.Match[str]) -> str:
    return f"{cardinal(int(found[1]))} foot {cardinal(int(found[2]))}"


def _scaled(found: re.Match[str]) -> str:
    return f"{number(found[1])} {_SCALES[found[2].lower()]}"


Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_RULES: tuple[Rule, ...] = (
    (re.compile(r"(?:https?://|www\.)[!#-;=?-~]{0,300}[A-Za-z0-9/#=&_-]", re.IGNORECASE), _address),
    (re.compile(r"(?:mailto:)?[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.ASCII), _address),
    (
        re.compile(
            r"(?<![\w.@/-])[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.(?:com|org|net|io|edu|gov|dev|co\.uk)"
            r"\b(?:/[\w./?=&%#-]*[\w/])?"
        ),
        _address,
    ),
    (re.compile(r"[\u2212\u2010\u2011](?=\d)"), "-"),
    (re.compile(r"(?<=\d)\s?[\u2013\u2014]\s?(?=[$€£]?\d)"), "-"),
    (re.compile(r"(?<=[\d%CF])\s?[-\u2013\u2014]\s?(?=[$€£]\d)"), " to "),
    (re.compile(r"(?<=\d%|°[CF])\s?[-\u2013\u2014]\s?(?=\d)"), " to "),
    (re.compile(r"(?<=\d,\d{3})-(?=\d)"), " to "),
    (re.compile(r"(?<=\d)\s?×\s?(?=\d)"), " times "),
    (re.compile(r"\b(\d{1,3}) (1/2|1/4|3/4|1/3|2/3)(?![\d/])"), _whole_and_part),
    (re.compile(r"(?<![\w/])((?:19|20)\d\d)/(\d\d)(?![\d/])"), _season),
    (re.compile(rf"(?<![\w.])(the )?(\d{{1,2}}) ({_MONTHS})\b"), _day),
    (re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3}):(\d{2,5})\b"), _port),
    (re.compile(r"(\d*)\s?([½⅓⅔¼¾⅕⅛⅜⅝⅞])"), _mixed),
    (
        re.compile(r"(?<![\w.])(ISBN(?: is|:)?)[ -]*(?:\d[\d -]{8,16}[\dX])\b"),
        lambda found: f"{found[1]} " + digits(re.sub(r"\D", "", found[0])),
    ),
    (
        re.compile(
            r"(?<![\w.+-])(?:"
            r"\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){1,5}(?<=\d)"
            r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"
            r"|(?:1[ .-])?\d{3}[.-]\d{3}[.-]\d{4}|\d{3} \d{3} \d{4}"
            r"|0\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}|0\d{9,10}"
            r"|(?<!\d )\d{3}-\d{4}"
            r")(?![\w-]|\.\d)"
        ),
        _phone,
    ),
    (
        re.compile(
            r"\b((?:call|dial|dialed|dialled|phone) )(911|999|112|411|211|311|511|811)\b",
            re.IGNORECASE,
        ),
        lambda found: found[1] + digits(found[2]),
    ),
    (
        re.compile(
            r"(?<![\w$€£¥])(?P<minus>[-−])?(?P<country>US|AU|CA|HK|NZ|[ACS])?"
            r"(?P<symbol>[$€£¥￥₩₹₽₺])\s?"
            rf"(?P<amount>{_AMOUNT})(?:\s?(?P<scale>hundred|thousand|million|billion|trillion"
            r"|mn|bn|tn|[kKmMbBtT])\b)?(?!\.?\d)"
        ),
        _money,
    ),
    (
        re.compile(
            rf"(?<![\w.])(?:(?P<amount>{_AMOUNT})\s(?P<code>{'|'.join(_CODES)})\b"
            rf"|(?P<code_before>{'|'.join(_CODES)})\s(?P<amount_behind>{_AMOUNT}))(?!\.?\d)"
        ),
        _currency_code,
    ),
    (
        re.compile(r"(?<![\w.])(\d+)\s?¢"),
        lambda found: f"{cardinal(int(found[1]))} cent{'s' * (found[1] != '1')}",
    ),
    (re.compile(r"(?<![\w.,'’])(1\d|20)(\d)0['’]?s\b"), _decade),
    (re.compile(r"(?<![\w.,])((?:1[1-9]|20)\d\d)-((?:1[1-9]|20)\d\d)(?![\w-])"), _years),
    (re.compile(r"(?<![\w.])(\d)['′’]\s?(\d{1,2})[\"″”]"), _height),
    (
        re.compile(r"\b(24)/(7)\b|\b(50)/(50)\b|\b(9)/(11)\b"),
        lambda found: " ".join(cardinal(int(part)) for part in found.groups() if part),
    ),
    (re.compile(r"(?<![\w.])([vV])?(\d+(?:\.\d+){2})(?![\w]|\.\d)"), _version),
    (re.compile(r"(?<![\w.])([vV])(\d+\.\d+)(?![\w]|\.\d)"), _version),
    (
        re.compile(
            rf"(?<![\w.,])(?P<minus>-)?(?P<amount>{_AMOUNT})\s?(?P<unit>{_UNIT_NAMES})"
            r"(?![\w/²³°'’]|\.\d)"
        ),
        _unit,
    ),
    (re.compile(r"(?<![\w.])(\d+\.\d+|\d+(?=[Mbm]))(M|bn|mn|B)\b(?!/)"), _scaled),
    (re.compile(r"(?<=\d)\s?in(?=\s+(?:long|wide|tall|high|deep|thick)\b)"), " inches"),
    (re.compile(r"(?<![\w.,])(\d[\d.,]*) s(?![\w/'’])"), r"\1 seconds"),
    (re.compile(r"#\s?(?=\d)"), "number "),
    (re.compile(r"\b([Nn])o\.\s?(?=\d)"), r"\1umber "),
    (re.compile(r"\bpp\.\s?(?=\d)"), "pages "),
    (re.compile(r"\bp\.\s?(?=\d)"), "page "),
    (re.compile(r"\b[Ff]igs?\.\s?(?=\d)"), "figure "),
    (re.compile(r"\b[Vv]ol\.\s?(?=\d)"), "volume "),
    (re.compile(r"\b[Cc]h(?:ap)?\.\s?(?=\d)"), "chapter "),
    (re.compile(r"(?<=[a-z] )St\.(?= [A-Z][a-z])"), "Saint"),
    (re.compile(r"(?<=[A-Z][a-z] )St\.|(?<=[a-z][a-z] )St\.(?=[,;!?]|\s*\Z)"), "Street"),
    # What the grammar would begin with a bare "thousand" or call "ten hundred".
    (
        re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+)(\.\d+)?(?![\w,]|\.\d)"),
        lambda found: number(found[1].replace(",", "") + (found[2] or "")),
    ),
    (
        re.compile(r"(?<![\w.,:/-])([1-9])000(?![\w,:/-]|\.\d)"),
        lambda found: f"{cardinal(int(found[1]))} thousand",
    ),
    (
        re.compile(r"(?<![\w.,:/-])(1[1-9]|20)0([1-9])(?![\w,:/%-]|\.\d)"),
        lambda found: year(int(found[0])),
    ),
)
