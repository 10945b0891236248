"""The page in a real browser, where one is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import soundfile
from support.command_line import CLIP, TRANSCRIPT
from support.served import ScriptedSynthesizer, Served, serving, until

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.serving.voices import Uploads
from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip
from tools.browser import PROGRAM, Page, browser

in_a_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")

TAB, ENTER = ("Tab", 9), ("Enter", 13, "\r")


@pytest.fixture
def served(synthesizer: ScriptedSynthesizer, voices: Path, tmp_path: Path) -> Iterator[Served]:
    kept = tmp_path / "kept"
    uploads = Uploads(kept, partial(speaker_from_clip, open_bundle(DEMO_BUNDLE)))
    with serving(synthesizer, [kept, voices], uploads) as server:
        yield server


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, served: Served) -> Page:
    chromium.open(served.url)
    chromium.until("document.querySelectorAll('#voice option').length === 2")
    return chromium


def text_of(page: Page, name: str) -> str:
    return page.value(f"document.getElementById('{name}').textContent")


def write(page: Page, name: str, text: str) -> None:
    page.value(f"document.getElementById('{name}').select()")
    page.type(text)


def test_the_page_names_nothing_outside_itself(served: Served) -> None:
    with served.client() as client:
        answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@in_a_browser
def test_speech_is_heard_while_it_is_made(
    page: Page, synthesizer: ScriptedSynthesizer, tmp_path: Path
) -> None:
    write(page, "text", "one two three four wait " + "word " * 8)
    page.value("document.getElementById('speak').click()")
    buffered = "document.getElementById('audio').buffered"
    before = page.until(f"{buffered}.length && {buffered}.end(0)")
    assert 0 < before < 1.2
    assert re.fullmatch(r"\d+\.\d\d s", text_of(page, "first"))
    assert text_of(page, "status") == "Speaking …"
    assert page.value("document.getElementById('download').hidden")
    synthesizer.go.set()
    page.until("document.getElementById('status').textContent === 'Done.'")
    assert page.value("document.getElementById('audio').duration") == pytest.approx(3.25, abs=0.2)
    assert page.value(f"{buffered}.end(0)") > before
    assert re.fullmatch(r"\d+\.\d\d", text_of(page, "rtf"))
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.value("document.getElementById('download').click()")
    until(lambda: any(file.stat().st_size for file in tmp_path.glob("*.mp3")))
    assert soundfile.info(tmp_path / "speech.mp3").duration == pytest.approx(3.25, abs=0.2)


@in_a_browser
def test_the_keyboard_is_enough_to_speak(page: Page, synthesizer: ScriptedSynthesizer) -> None:
    page.press(*TAB)
    assert page.value("document.activeElement.id") == "text"
    page.value("document.activeElement.select()")
    page.type("one two three four")
    reached = []
    while "speak" not in reached:
        page.press(*TAB)
        reached.append(page.value("document.activeElement.id"))
    assert reached == ["voice", "speed", "speak"]
    page.press(*ENTER)
    page.until("document.getElementById('status').textContent === 'Done.'")
    assert synthesizer.calls[-1][:2] == ("one two three four", "anna")


@in_a_browser
def test_every_control_has_a_name_that_is_read_out(page: Page) -> None:
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    controls = {"textbox", "combobox", "slider", "button", "checkbox", "link"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if node.get("role", {}).get("value") in controls
    ]
    assert len(named) >= 4
    assert all(name for _, name in named), named


@in_a_browser
def test_stop_ends_the_work(page: Page, synthesizer: ScriptedSynthesizer, served: Served) -> None:
    write(page, "text", "one wait second")
    page.value("document.getElementById('speak').click()")
    page.until("!document.getElementById('stop').disabled")
    assert synthesizer.waiting.acquire(timeout=20)
    page.value("document.getElementById('stop').click()")
    page.until("document.getElementById('status').textContent === 'Stopped.'")
    assert text_of(page, "error") == ""


@in_a_browser
def test_what_the_server_refuses_is_shown(page: Page) -> None:
    write(page, "text", "fail")
    page.value("document.getElementById('speak').click()")
    page.until("document.getElementById('error').textContent")
    assert "nothing but silence came" in text_of(page, "error")
    assert page.value("document.getElementById('error').getAttribute('role')") == "alert"
    assert not page.value("document.getElementById('speak').disabled")


@in_a_browser
def test_a_voice_is_uploaded_and_chosen(page: Page) -> None:
    page.value("document.getElementById('adding').open = true")
    page.choose_file("#clip", CLIP)
    write(page, "name", "carla")
    write(page, "words", TRANSCRIPT)
    page.value("document.getElementById('add').click()")
    assert text_of(page, "added") == ""  # the browser asks for the consent first
    page.value("document.getElementById('consent').click()")
    page.value("document.getElementById('add').click()")
    page.until("document.getElementById('added').textContent.startsWith('Added carla.')")
    assert page.value("document.getElementById('voice').value") == "carla"


@in_a_browser
def test_the_microphone_gives_a_clip(page: Page, synthesizer: ScriptedSynthesizer) -> None:
    page.value("document.getElementById('adding').open = true")
    page.value("document.getElementById('record').click()")
    page.until("document.getElementById('recorded').textContent === 'Recording …'")
    synthesizer.go.wait(1.0)
    page.value("document.getElementById('record').click()")
    page.until("/Recorded \\d+\\.\\d s/.test(document.getElementById('recorded').textContent)")
    assert page.value("recording.size") > 20_000
