"""Streams of whole requests: what they give, when, and how they end."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from functools import lru_cache

import numpy as np
import pytest
from support.table_stages import SMALL, Anna, TableStages

from cosyvoice_cpu import Synthesizer
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import SynthesisError, TextError, UsageError
from cosyvoice_cpu.synthesis.audio import Audio, join

TEXT = "One two three. [pause 300ms] Four five six, seven eight nine."
LONG = "We walked along the river and talked about the summer. " * 6
SPEAKER = "hibari-heart-1"
COSTLY = dict(timeout=60)


def spell(text: str) -> list[int]:
    return [10 + ord(letter) % 20 for letter in text]


def synthesizer(stages: TableStages) -> Synthesizer:
    return Synthesizer(stages, spell, lambda name: Anna())  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def demo() -> Synthesizer:
    return Synthesizer.load(DEMO_BUNDLE, threads=1)


def stage_threads() -> list[str]:
    names = {"speech-lm", "flow", "vocoder"}
    return [thread.name for thread in threading.enumerate() if thread.name in names]


def plain(count: int) -> list[int]:
    """Tokens that are neither silence nor a loop."""
    return [3 + (number * number) % 37 for number in range(count)]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_the_sound_does_not_depend_on_the_threads(workers: int) -> None:
    got = join(list(demo().stream(TEXT, SPEAKER, workers=workers, seed=3)))
    want = demo().speak(TEXT, SPEAKER, streaming=True, seed=3)
    assert np.array_equal(got.samples, want.samples)
    assert not stage_threads()


def test_a_streams_report_adds_up() -> None:
    blocks = list(demo().stream(TEXT, SPEAKER))
    report = join(blocks).report
    assert report is not None
    assert report.sentences == 2
    assert report.seconds_audio == pytest.approx(sum(block.seconds for block in blocks))
    assert all(report.stages[stage] > 0 for stage in ("speech_lm", "flow", "vocoder"))
    assert [block.report.ends_text for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(len(block.samples) for block in blocks)


def test_sound_comes_a_second_at_a_time_and_before_the_rest_is_made() -> None:
    stream = demo().stream(LONG, SPEAKER)
    first = next(stream)
    blocks = [first, *stream]
    assert max(block.seconds for block in blocks) <= 1.1
    assert sum(block.seconds for block in blocks) > 10
    whole_s = join(blocks).report.seconds_computing
    assert first.report.first_audio_s < whole_s / 2


def test_a_stream_has_as_much_sound_as_its_tokens_last() -> None:
    stages = TableStages(script=lambda number, call: plain(60))
    audio = synthesizer(stages).speak("Hello there.", streaming=True)
    assert len(audio.samples) == 60 * 960
    assert audio.report.speech_tokens == 60


def test_pauses_and_speed_last_as_long_as_whole() -> None:
    for speed in (0.7, 1.0, 1.6):
        stages = TableStages(script=lambda number, call: plain(70))
        whole = synthesizer(stages).speak(TEXT, speed=speed)
        streamed = synthesizer(stages).speak(TEXT, speed=speed, streaming=True)
        assert abs(len(streamed.samples) - len(whole.samples)) <= 480


def test_a_streams_edges_are_silent_and_its_joins_do_not_click() -> None:
    audio = demo().speak(TEXT, SPEAKER, streaming=True)
    samples = audio.samples
    assert np.abs(samples[[0, -1]]).max() < 1e-3
    steps = np.abs(np.diff(samples))
    whole = np.abs(np.diff(demo().speak(TEXT, SPEAKER).samples))
    assert steps.max() <= 1.5 * whole.max()


@pytest.mark.parametrize("options", [{"rate": 16000}, {"rate": 48000}, {"loudness": -20.0}])
def test_rate_and_loudness_are_kept_across_blocks(options: dict) -> None:
    audio = demo().speak(TEXT, SPEAKER, streaming=True, **options)
    made = demo().speak(TEXT, SPEAKER, streaming=True)
    assert audio.sample_rate == options.get("rate", 24000)
    assert audio.seconds == pytest.approx(made.seconds, abs=0.01)
    assert np.abs(audio.samples).max() <= 1.0
    if "loudness" in options:
        from cosyvoice_cpu.synthesis.loudness import loudness_lufs

        assert loudness_lufs(audio.samples, 24000) == pytest.approx(-20.0, abs=2.0)


def test_a_loop_ends_its_piece_before_most_of_it_is_heard() -> None:
    loop = plain(60) + [7, 9, 11, 13] * 60
    stages = TableStages(script=lambda number, call: loop)
    audio = synthesizer(stages).speak("x" * 40, streaming=True)
    assert len(stages.lm_calls) == 1
    assert any("repeated over and over" in warning for warning in audio.report.warnings)
    assert 50 <= audio.report.speech_tokens <= 75  # of the loop less than a second


def test_a_short_piece_that_went_wrong_is_drawn_again_before_it_is_heard() -> None:
    stages = TableStages(script=lambda number, call: [] if number == 0 else plain(20))
    audio = synthesizer(stages).speak("Hello.", streaming=True)
    assert audio.report.retries == 1
    assert audio.report.speech_tokens == 20


def test_later_pieces_are_judged_whole() -> None:
    wrong = plain(10) + [1] * 120  # five seconds of silence
    stages = TableStages(script=lambda number, call: wrong if number == 1 else plain(60))
    audio = synthesizer(stages).speak("Hello. [pause 100ms] There we are.", streaming=True)
    assert audio.report.retries == 1
    assert audio.report.speech_tokens == 120


def test_what_is_wrong_with_a_request_shows_at_the_call() -> None:
    with pytest.raises(TextError, match="is empty"):
        demo().stream("", SPEAKER)
    with pytest.raises(UsageError, match="the seed"):
        demo().stream("Hello.", SPEAKER, seed=-1)
    with pytest.raises(UsageError, match="4 threads"):
        demo().stream("Hello.", SPEAKER, workers=4)
    assert not stage_threads()


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("stage", ["stream_speech_tokens", "flow_stream", "vocoder_stream"])
def test_an_error_in_any_stage_ends_the_request_with_its_own_message(
    stage: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = TableStages(script=lambda number, call: plain(60))

    def fail(*_: object, **__: object) -> None:
        raise SynthesisError(f"{stage} fails", "nothing helps")

    monkeypatch.setattr(stages, stage, fail)
    with pytest.raises(SynthesisError, match=f"{stage} fails"):
        list(synthesizer(stages).stream("Hello there.", workers=workers))
    assert not stage_threads()


def test_nothing_or_silence_alone_is_refused_with_the_text() -> None:
    for tokens, said in (([], "no speech"), ([1, 2] * 40, "nothing but silence")):
        stages = TableStages(script=lambda number, call, tokens=tokens: tokens)
        with pytest.raises(SynthesisError, match=f"{said} came of 'Hello there.'"):
            list(synthesizer(stages).stream("Hello there."))


def test_a_stream_that_is_not_read_on_waits_and_goes_on() -> None:
    stream = demo().stream(LONG, SPEAKER, workers=3)
    first = next(stream)
    time.sleep(1.0)  # a listener who does something else
    audio = join([first, *stream])
    assert np.array_equal(audio.samples, demo().speak(LONG, SPEAKER, streaming=True).samples)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_cancelling_at_any_moment_leaves_no_thread(workers: int) -> None:
    moments = random.Random(workers)
    for _ in range(12):
        stream = demo().stream(LONG, SPEAKER, workers=workers)
        timer = threading.Timer(moments.uniform(0, 1.0), stream.close)
        timer.start()
        list(stream)  # ends without an error
        timer.join(COSTLY["timeout"])
        assert not timer.is_alive()
        assert not stage_threads()


def test_a_stream_that_is_dropped_ends() -> None:
    stream = demo().stream(LONG, SPEAKER, workers=3)
    next(stream)
    assert stage_threads()
    del stream
    assert not stage_threads()


def test_closing_waits_for_no_more_than_a_kernel() -> None:
    stream = demo().stream(LONG, SPEAKER, workers=3)
    next(stream)
    started = time.perf_counter()
    stream.close()
    assert time.perf_counter() - started < 2.0  # of 15 s; a kernel here takes 0.1 s
    assert next(stream, None) is None
    stream.close()


def test_streams_side_by_side_are_what_they_are_alone() -> None:
    texts = [TEXT, "A lone sentence.", "Nobody in the village could remember it.", LONG[:110]]
    alone = [demo().speak(text, SPEAKER, streaming=True).samples for text in texts]
    together: dict[int, Audio] = {}

    def speak(number: int) -> None:
        together[number] = join(list(demo().stream(texts[number], SPEAKER, workers=2)))

    threads = [threading.Thread(target=speak, args=(n,)) for n in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(COSTLY["timeout"])
    for number, want in enumerate(alone):
        assert np.array_equal(together[number].samples, want)


def test_an_event_loop_stays_free_and_can_cancel() -> None:
    async def heard() -> list[Audio]:
        return [block async for block in demo().stream_async(TEXT, SPEAKER)]

    async def beats() -> int:
        count = 0
        task = asyncio.ensure_future(heard())
        while not task.done():
            await asyncio.sleep(0.01)
            count += 1
        audio = join(task.result())
        assert np.array_equal(audio.samples, demo().speak(TEXT, SPEAKER, streaming=True).samples)
        return count

    assert asyncio.run(beats()) > 5

    async def left() -> None:
        task = asyncio.ensure_future(heard())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(left())
    assert not stage_threads()


def test_the_table_stages_have_the_lookahead_of_the_real_ones() -> None:
    assert (
        SMALL.vocoder_lookahead_frames == demo()._pipeline.stages.synthesis.vocoder_lookahead_frames
    )
