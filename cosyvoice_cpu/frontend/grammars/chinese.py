"""Chinese: what wetext's grammar reads wrongly, written so that it reads it right.

| written | the grammar | here |
|---|---|---|
| 12,345,678台 | 十二,三百四十五,... | 一千二百三十四万五千六百七十八台 |
| 220V, 50Hz | 两百二十V, 五十Hz | 两百二十伏, 五十赫兹 |
| 1.2.3版本 | 一.二点三版本 | 一点二点三版本 |
| 1990s | 一千九百九十秒 | 二十世纪九十年代 |
| ￥9.9万 | ￥九点九万 | 九点九万元 |
| 138 1234 5678 | 一百三十八 ... | 幺三八幺二三四五六七八 |
| GPT-4, A4, 5G, Qwen2 | GPT负四, ... | as they are: names |
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

__all__ = ["DIGITS", "KEPT", "prepare"]

DIGITS = "零一二三四五六七八九"
_BY_PHONE = str.maketrans("0123456789", "零幺二三四五六七八九")
_BY_DIGIT = str.maketrans("0123456789", DIGITS)

_UNITS = {
    "g": "克", "t": "吨",
    "V": "伏", "kV": "千伏", "mV": "毫伏", "W": "瓦", "kW": "千瓦", "KW": "千瓦", "MW": "兆瓦",
    "kWh": "千瓦时", "Wh": "瓦时", "mAh": "毫安时", "mA": "毫安", "Hz": "赫兹", "hz": "赫兹",
    "kHz": "千赫兹", "KHz": "千赫兹", "MHz": "兆赫兹", "GHz": "吉赫兹", "Ω": "欧姆",
    "kΩ": "千欧", "dB": "分贝", "db": "分贝", "Pa": "帕", "hPa": "百帕", "kPa": "千帕",
    "MPa": "兆帕", "cal": "卡", "kcal": "千卡", "J": "焦耳", "kJ": "千焦", "μg": "微克",
    "µg": "微克", "ug": "微克", "μm": "微米", "µm": "微米", "nm": "纳米", "㎡": "平方米",
    "㎥": "立方米", "m2": "平方米", "m3": "立方米", "㎝": "厘米", "㎜": "毫米", "㎞": "公里",
    "㎏": "千克", "㎎": "毫克", "㎖": "毫升", "km²": "平方公里", "km2": "平方公里",
    "cm²": "平方厘米", "cm2": "平方厘米", "cm3": "立方厘米", "ha": "公顷", "rpm": "转每分钟",
    "fps": "帧每秒", "bpm": "次每分钟", "Mbps": "兆比特每秒", "Gbps": "吉比特每秒",
    "kbps": "千比特每秒", "px": "像素", "min": "分钟", "mins": "分钟", "hrs": "小时",
    "hr": "小时", "sec": "秒", "ft": "英尺", "lb": "磅", "lbs": "磅", "oz": "盎司",
    "mph": "英里每小时", "mmHg": "毫米汞柱",
}  # fmt: skip
# Symbols that the grammar knows; a number stays with them.
_GRAMMAR_UNITS = (
    "km/h m/s kg/m³ km cm mm dm m kg mg g ml mL L l h s ms t km² m² m³ cm³ °C ℃ °F ℉"
).split()
_LETTER_UNITS = "GB MB KB TB PB kB GB/s MB/s KB/s K k p P w W".split()  # spelled, but units
_NAMES = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_ALL_UNITS = "|".join(
    sorted(
        (re.escape(unit) for unit in {*_UNITS, *_GRAMMAR_UNITS, *_LETTER_UNITS[:8]}),
        key=len,
        reverse=True,
    )
)

# Names with Latin letters: Qwen2, GPT-4, an address; and letters behind a number that are no unit:
# 5G, 3D, 4K, 1080p. A unit behind its number is not a name.
KEPT = re.compile(
    r"((?<![0-9A-Za-z.,/])[A-Za-z](?:[!-~]*[A-Za-z0-9/])?"
    rf"|(?<![0-9A-Za-z.,])\d[\d.]*(?!(?:{_ALL_UNITS})(?![A-Za-z0-9]))[A-Za-z][A-Za-z0-9.+-]*(?<![.+-]))"
)

_CURRENCY = {
    "¥": "元", "￥": "元", "$": "美元", "＄": "美元", "€": "欧元", "£": "英镑", "￡": "英镑",
    "₩": "韩元", "₽": "卢布", "HK$": "港元", "NT$": "新台币", "US$": "美元", "RMB": "元",
    "CNY": "元", "USD": "美元", "EUR": "欧元", "JPY": "日元", "GBP": "英镑", "HKD": "港元",
}  # fmt: skip
_CURRENCY_NAMES = "|".join(sorted(map(re.escape, _CURRENCY), key=len, reverse=True))
# Counted with 两, and not all known to the grammar.
_MEASURES = "种款部台辆栋颗粒朵匹头只件本张块片座封架艘棵双对次遍趟场顿份杯瓶碗盒箱袋包位名群组支枝"
_DIGIT_BY_DIGIT = (
    "邮编|邮政编码|验证码|校验码|密码|口令|编号|学号|工号|卡号|账号|帐号|尾号|代码|单号|订单号|身份证号?|"
    "车牌号?|房间|航班|热线|电话|手机号?|客服|拨打|QQ号?|微信号?|致电|传真"
)


def prepare(text: str) -> str:
    """`text` with what the grammar gets wrong written so that it gets it right."""
    text = _WIDE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text


def cardinal(written: str) -> str:
    """Digits, with or without a decimal part, as a number: 一千二百, 十二点五."""
    whole, _, part = written.partition(".")
    words = _whole(whole.lstrip("0"))
    return words + ("点" + part.translate(_BY_DIGIT) if part else "")


def _whole(number: str) -> str:
    """Digits without leading zeros; beyond 16 of them one by one."""
    if len(number) > 16:
        return number.translate(_BY_DIGIT)
    words = _places(number) or "零"
    return words.removeprefix("一") if words.startswith("一十") else words


def _places(number: str) -> str:
    """The number, with 一十 for ten; "" for zero."""
    number = number.lstrip("0")
    for digits, scale in ((8, "亿"), (4, "万"), (3, "千"), (2, "百"), (1, "十")):
        if len(number) > digits:
            head, tail = number[:-digits], number[-digits:]
            zero = "零" if tail.startswith("0") and tail.strip("0") else ""
            return _places(head) + scale + zero + _places(tail)
    return DIGITS[int(number)] if number else ""


def _with_commas(found: re.Match[str]) -> str:
    return found[0].replace(",", "").replace("，", "")


def _grouped(found: re.Match[str]) -> str:
    """A number with commas in words, since without them it may look like a telephone number."""
    return cardinal(_with_commas(found))


def _money(found: re.Match[str]) -> str:
    amount = _with_commas(found_amount) if (found_amount := _AMOUNT.match(found["amount"])) else ""
    whole, _, part = amount.partition(".")
    part = part.rstrip("0")
    number = cardinal(f"{whole}.{part}" if part else whole)
    if not part and whole == "2" and not found["scale"]:
        number = "两"
    return (
        f"{'负' if found['minus'] else ''}{number}{found['scale'] or ''}{_CURRENCY[found['unit']]}"
    )


def _unit(found: re.Match[str]) -> str:
    return f"{found[1].replace(',', '')}{_UNITS[found[2]]}"


def _phone(found: re.Match[str]) -> str:
    plus = "加" if found[0].startswith("+") else ""
    return plus + re.sub(r"\D", "", found[0]).translate(_BY_PHONE)


def _decade(found: re.Match[str]) -> str:
    century, ten = int(found[1]) + 1, found[2]
    return (
        f"{cardinal(str(century))}世纪{DIGITS[int(ten)]}十年代"
        if ten != "0"
        else f"{found[1]}00年代"
    )


def _range(found: re.Match[str]) -> str:
    """3-5 as from 3 to 5, which the grammar subtracts; 10-7 is a score."""
    first, second = found[1], found[2]
    if first.startswith("0") or second.startswith("0"):
        return found[0]
    return f"{first}{'到' if int(first) < int(second) else '比'}{second}"


_WIDE = re.compile("[０-９Ａ-Ｚａ-ｚ％＋－．／＄]+")
_AMOUNT = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_RULES: tuple[Rule, ...] = (
    (re.compile(r"[\u2212\u2010\u2011](?=\d)"), "-"),
    (re.compile(r"(?<=\d)\s?[\u2013\u2014〜～]\s?(?=\d)"), "~"),
    (re.compile(r"(?<=\d)\s+(?=[%‰℃])"), ""),
    (re.compile(r"(?<=\d)：(?=\d)"), ":"),
    (
        re.compile(r"(\d{1,2}:\d\d)\s?([AaPp])\.?[Mm]\.?(?![A-Za-z])"),
        lambda found: ("上午" if found[2] in "Aa" else "下午") + found[1],
    ),
    (re.compile(rf"(?<![\d.,:/第-])2(?=[{_MEASURES}])"), "两"),
    (re.compile(r"(?<=\d)\s?°\s?C(?![A-Za-z])"), "℃"),
    (re.compile(r"(?<=\d)\s?°\s?F(?![A-Za-z])"), "℉"),
    (
        re.compile(r"(\d[\d,.]*[百千]?[万亿]?[元人个]?)/(平方(?:千米|公里|厘米|米)|立方米)"),
        r"每\2\1",
    ),
    (
        re.compile(
            r"(?<![\w.])(\d[\d,.]*[百千]?[万亿]?)\s?(RMB|CNY|USD|EUR|JPY|GBP|HKD)(?![A-Za-z])",
            re.ASCII,
        ),
        lambda found: found[1] + _CURRENCY[found[2]],
    ),
    (
        re.compile(
            r"(?<![\w.+])(?:\+?86[ -]?)?1[3-9]\d[ -]\d{4}[ -]\d{4}(?![\d-])"
            r"|\+\d{1,3}[ -]?\d{2,4}(?:[ -]?\d{3,4}){1,3}(?![\d-])"
            r"|(?<![\w.])0\d{2,3}[ -]\d{3,4}[ -]?\d{3,4}(?![\d-])"
            r"|(?<![\w.])[48]00[ -]\d{3}[ -]?\d{4}(?![\d-])"
            r"|(?<![\w.])0\d{2,3}-\d{4,8}(?![\d-])",
            re.ASCII,
        ),
        _phone,
    ),
    (
        re.compile(rf"({_DIGIT_BY_DIGIT})([:：是为]?\s?)(\d{{3,}})(?![\d.,%年月日元个人])"),
        lambda found: found[1] + found[2] + found[3].translate(_BY_PHONE),
    ),
    (
        re.compile(r"(?<![\w.-])(\d{3,4})(?=(?:号?房间?|室|航班|次列车))", re.ASCII),
        lambda found: found[1].translate(_BY_PHONE),
    ),
    (re.compile(r"(?<![\w.])(1\d|20)(\d)0[’']?s(?![A-Za-z])", re.ASCII), _decade),
    (
        re.compile(r"(?<![\w.])(\d\d)(?=后(?:[^\d天年个月小分秒来面续期悔退半]|\Z))", re.ASCII),
        lambda found: found[1].translate(_BY_DIGIT),
    ),
    (
        re.compile(
            rf"(?<![\w.])(?P<minus>-)?(?P<unit>{_CURRENCY_NAMES})\s?"
            rf"(?P<amount>{_AMOUNT.pattern})\s?(?P<scale>[百千]?[万亿]|千)?(?![\d.])"
            r"(?:元(?!/))?",
            re.ASCII,
        ),
        _money,
    ),
    (re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])"), _grouped),
    (
        re.compile(r"(?<![\w.])\d+(?:\.\d+){2}(?!\.?\d)", re.ASCII),
        lambda found: "点".join(map(cardinal, found[0].split("."))),
    ),
    (re.compile(rf"(?<![A-Za-z.])(\d[\d,]*(?:\.\d+)?)\s?({_NAMES})(?![A-Za-z0-9/²³])"), _unit),
    (re.compile(rf"(?<=\d)\s+(?=(?:{_ALL_UNITS})(?![A-Za-z0-9]))"), ""),
    (re.compile(r"(\d+(?:\.\d+)?)‰"), lambda found: "千分之" + cardinal(found[1])),
    (re.compile(r"[①-⑳]"), lambda found: cardinal(str(ord(found[0]) - 0x245F))),
    (re.compile(r"(?<![\w.=+*/×÷-])(\d{1,4})-(\d{1,4})(?![\d.=-]|\s*=)", re.ASCII), _range),
    (re.compile(r"=(?=\s*[？?])"), "等于"),
    (re.compile("½"), "二分之一"),
    (re.compile("¼"), "四分之一"),
    (re.compile("¾"), "四分之三"),
)
