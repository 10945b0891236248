"""Which language a text is in, by evidence."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.frontend.language import check_language, language_of, language_of_sentence


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The bus comes in 25 minutes.", "en"),
        ("The café has 25 tables.", "en"),
        ("25 apples", "en"),
        ("Der Bus kommt in 25 Minuten.", "de"),
        ("Le train part dans 25 minutes.", "fr"),
        ("El tren sale en 25 minutos.", "es"),
        ("Il treno parte tra 25 minuti.", "it"),
        ("De trein vertrekt over 25 minuten.", "nl"),
        ("Tren 25 dakika sonra kalkıyor.", "tr"),
        ("Kereta berangkat 25 menit lagi.", "id"),
        ("기차는 25분 후에 출발합니다.", "ko"),
        ("Поезд отправляется через 25 минут.", "ru"),
        ("القطار يغادر بعد 25 دقيقة.", "ar"),
        ("火车25分钟后出发。", "zh"),
        ("電車は25分後に出発します。", "ja"),
        ("東京都知事選、3人が立候補", "ja"),
        ("鲜の每日牛奶售价25元", "zh"),
        ("We sold units in 上海 last year.", "en"),
        ("请下载Visual Studio Code Extensions", "zh"),
        ("GPT-4", None),
        ("25", None),
        ("42。", "zh"),
        ("in 2024", None),
    ],
)
def test_a_language_is_known_by_its_script_and_its_small_words(text, language):
    assert language_of(text) == language


def test_marks_and_addresses_are_no_evidence():
    assert language_of("[breath] https://the.of/and/with") is None


@pytest.mark.parametrize(
    ("sentence", "paragraph", "language"),
    [
        ("42。", "zh", "zh"),
        ("I have 3.", "zh", "en"),
        ("GPT-4", "zh", "zh"),
        ("東京。", "ja", "ja"),
        ("I have 25 apples and you have 3.", "de", "en"),
        ("In Band 25.", "de", "de"),
        ("Total 25", "en", "en"),
        ("25", None, None),
    ],
)
def test_a_sentence_follows_its_paragraph_unless_it_is_clearly_in_another(
    sentence, paragraph, language
):
    assert language_of_sentence(sentence, paragraph) == language


@pytest.mark.parametrize(
    ("given", "code"), [("en", "en"), ("EN", "en"), ("zh-CN", "zh"), ("pt_BR", "pt"), (None, None)]
)
def test_a_language_code_is_taken_with_or_without_its_region(given, code):
    assert check_language(given) == code


@pytest.mark.parametrize("given", ["", "english", "e", "en us", "12"])
def test_what_is_no_language_code_is_refused(given):
    with pytest.raises(UsageError, match="is no language code"):
        check_language(given)
