"""Whole texts on stages small enough to see through."""

from __future__ import annotations

import numpy as np
import pytest
from support.table_stages import TableStages

from cosyvoice_cpu.decoding.length_guard import attempt_seed, find_trouble
from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.frontend.reading import Note, Pause, Sentence
from cosyvoice_cpu.synthesis.audio import join
from cosyvoice_cpu.synthesis.delivery import Delivery
from cosyvoice_cpu.synthesis.loudness import loudness_lufs
from cosyvoice_cpu.synthesis.pipeline import Pipeline
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.request import Request

PREFIX = "You are a helpful assistant.<|endofprompt|>"
FIRST = f"First {'of ' * 68}all."
SECOND = f"Second {'to ' * 68}none."


def encode(text: str) -> list[int]:
    """One id per word, or per character where there are no blanks."""
    return [sum(map(ord, word)) % 997 + 1 for word in (text.split() or [text])]


def prompt(tokens: int = 10, speech: bool = True) -> Prompt:
    ids = tuple(range(3, 3 + tokens)) if tokens < 30 else (3,) * tokens
    return Prompt(
        mode="zero-shot" if speech else "cross-lingual",
        text=PREFIX,
        transcript_ids=(21, 22) if speech else (),
        speech_ids=ids if speech else (),
        tokens=ids,
        mel=np.zeros((2 * tokens, 80), np.float32),
        embedding=np.ones(192, np.float32),
    )


def request(text: str, **fields) -> Request:
    return Request(**{"text": text, "prompt": prompt(), "seed": 0, **fields})


def speak(stages: TableStages, wish: Request):
    pipeline = Pipeline(stages, encode)
    return list(pipeline.speak(wish))


def varied(length: int, start: int = 0) -> list[int]:
    """Tokens without silence or a loop."""
    return (np.random.default_rng(start).integers(3, 40, length)).tolist()


def test_each_piece_gets_the_same_prompt_and_one_audio():
    stages = TableStages(stop_bias=4.0)
    parts = speak(stages, request(f"{FIRST} {SECOND}"))
    assert len(parts) == 2
    for call in stages.lm_calls:
        assert call["prompt_text_ids"] == [*encode(PREFIX), 21, 22]
        assert call["prompt_speech_ids"] == tuple(range(3, 13))
    assert [call["text_ids"] for call in stages.lm_calls] == [encode(FIRST), encode(SECOND)]
    assert all(call["prompt_tokens"] == list(range(3, 13)) for call in stages.flow_calls)


def test_the_length_limits_count_the_target_without_the_prefix():
    stages = TableStages(stop_bias=4.0)
    speak(stages, request("one two three", prompt=prompt(speech=False)))
    call = stages.lm_calls[0]
    assert (call["min_tokens"], call["max_tokens"]) == (6, 60)
    assert call["prompt_speech_ids"] == ()


def test_the_same_seed_gives_the_same_audio_and_another_seed_other_audio():
    first, again, other = (
        join(speak(TableStages(), request(f"{FIRST} {SECOND}", seed=seed))).samples
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_sentence_twice_is_not_spoken_the_same_way_twice():
    stages = TableStages()
    speak(stages, request(f"{FIRST} {FIRST}"))
    assert stages.lm_calls[0]["seed"] != stages.lm_calls[1]["seed"]


def test_the_report_counts_what_was_done():
    stages = TableStages(script=lambda call, _: varied(200 + call))
    whole = join(speak(stages, request(f"{FIRST} {SECOND}", frontend_seconds=9.0)))
    report = whole.report
    assert report is not None
    assert (report.speech_tokens, report.sentences, report.retries) == (401, 2, 0)
    assert report.seconds_audio == pytest.approx(whole.seconds)
    assert whole.seconds == 401 * 2 * 480 / 24000
    assert report.warnings == ()
    assert set(report.stages) == {"frontend", "speech_lm", "flow", "vocoder"}
    assert 9.0 < report.stages["frontend"] < report.seconds_computing


def test_a_failed_attempt_is_repeated_with_another_seed_and_told():
    stages = TableStages(script=lambda call, _: [] if call == 0 else varied(30))
    (audio,) = speak(stages, request("a b c d"))
    assert audio.report is not None
    assert audio.report.retries == 1
    assert audio.report.warnings == ("piece 1, attempt 1: no speech tokens",)
    seeds = [call["seed"] for call in stages.lm_calls]
    assert seeds == [attempt_seed(0, 0, 0), attempt_seed(0, 0, 1)]


def test_without_a_good_attempt_the_least_bad_one_is_used_and_told():
    loop, endless = [7, 8] * 40, varied(80)
    stages = TableStages(script=lambda call, _: [[], endless, loop][call])
    (audio,) = speak(stages, request("a b c d"))
    assert stages.flow_calls[0]["tokens"] == endless
    assert audio.report is not None
    assert audio.report.warnings == (
        "piece 1, attempt 1: no speech tokens",
        "piece 1, attempt 2: no end within 80 speech tokens",
        "piece 1, attempt 3: 2 speech tokens repeated over and over",
        "piece 1: attempts used up, the least bad one is taken",
    )


def test_without_retries_the_first_attempt_is_taken_as_it_comes():
    stages = TableStages(script=lambda *_: [7, 8] * 30)
    (audio,) = speak(stages, request("a b c d", retries=0))
    assert len(stages.lm_calls) == 1
    assert audio.report is not None
    assert audio.report.retries == 0


def test_no_speech_in_any_attempt_is_an_error_that_names_the_text():
    stages = TableStages(script=lambda *_: [])
    with pytest.raises(SynthesisError) as caught:
        speak(stages, request("a b c d"))
    assert caught.value.what == "no speech came of 'a b c d' in 3 attempts"
    assert caught.value.hint == "try another --seed or speaker, or reword the text"


@pytest.mark.parametrize("tokens", [[1], [1, 2] * 3, [2] * 70])
@pytest.mark.parametrize("retries", [0, 2])
def test_silence_in_every_attempt_is_an_error_that_names_the_text(tokens, retries):
    stages = TableStages(script=lambda *_: tokens)
    with pytest.raises(SynthesisError) as caught:
        speak(stages, request("a b c d", retries=retries))
    attempts = "3 attempts" if retries else "an attempt"
    assert caught.value.what == f"nothing but silence came of 'a b c d' in {attempts}"
    assert stages.flow_calls == []


def test_a_silent_waveform_is_an_error_whatever_its_tokens(monkeypatch):
    stages = TableStages(stop_bias=4.0)
    monkeypatch.setattr(
        stages, "mel_to_waveform", lambda mel: np.full(480 * mel.shape[1], 1e-4, np.float32)
    )
    with pytest.raises(SynthesisError, match="nothing but silence came of 'a b c d' in"):
        speak(stages, request("a b c d"))


def test_silence_is_tried_again_before_it_is_an_error():
    stages = TableStages(script=lambda call, _: [1] * 9 if call == 0 else varied(30))
    (audio,) = speak(stages, request("a b c d"))
    assert audio.report is not None
    assert audio.report.warnings == ("piece 1, attempt 1: 9 speech tokens of silence only",)


@pytest.mark.parametrize("speed", [1.0, 0.8, 1.7])
def test_the_vocoder_sees_the_first_and_last_frame_go_on_and_that_part_is_cut(speed, monkeypatch):
    stages = TableStages(script=lambda *_: varied(30))
    seen = []

    def numbered(mel):
        seen.append(mel)
        return np.repeat(np.arange(mel.shape[1], dtype=np.float32) / 1000, 480)

    monkeypatch.setattr(stages, "mel_to_waveform", numbered)
    (audio,) = speak(stages, request("a b c d", speed=speed))
    (mel,) = seen
    assert (mel[:, :11] == mel[:, [10]]).all() and (mel[:, -11:] == mel[:, [-11]]).all()
    assert len(audio.samples) == 480 * (mel.shape[1] - 20)
    ends = [10 / 1000, (mel.shape[1] - 11) / 1000]
    assert audio.samples[[240, -240]].tolist() == pytest.approx(ends)


def test_where_the_vocoder_clips_it_gets_a_softer_mel_and_this_is_told(monkeypatch):
    stages = TableStages(script=lambda *_: varied(30))
    calls = []

    def loud(mel):
        calls.append(mel)
        gain = (3.0, 1.5, 0.9)[len(calls) - 1]
        return np.clip(gain * np.sin(np.arange(480 * mel.shape[1]) / 10), -0.99, 0.99).astype(
            np.float32
        )

    monkeypatch.setattr(stages, "mel_to_waveform", loud)
    (audio,) = speak(stages, request("a b c d"))
    assert [round(float((calls[0] - mel).mean()), 3) for mel in calls] == [0, 0.693, 1.386]
    assert audio.report is not None
    assert audio.report.warnings == ("piece 1: the vocoder clipped; made again, softer",)


def test_audio_leaves_at_the_rate_and_loudness_that_are_asked_for():
    stages = TableStages(script=lambda *_: varied(60))
    delivery = Delivery(rate=16000, loudness=-20.0)
    first, second = speak(stages, request(f"{FIRST} {SECOND}", delivery=delivery))
    for audio in (first, second):
        assert audio.sample_rate == 16000
        assert audio.report is not None
        assert audio.seconds == audio.report.seconds_audio == 60 / 25
        assert loudness_lufs(audio.samples, 16000) == pytest.approx(-20, abs=0.5)


def test_long_silence_is_shortened_before_the_flow():
    tokens = [*varied(20), *[1, 2] * 10, *varied(20, 1)]
    stages = TableStages(script=lambda *_: tokens)
    speak(stages, request("a b c d"))
    assert stages.flow_calls[0]["tokens"] == [*tokens[:25], *tokens[40:]]


def test_a_piece_too_long_for_the_model_is_cut_before_it_is_spoken():
    # 110 tokens, 100 of them behind the prompt: 16 words
    stages = TableStages(220, stop_bias=4.0)
    words = [f"w{k}" for k in range(40)]
    speak(stages, request(" ".join(words)))
    spoken = [identity for call in stages.lm_calls for identity in call["text_ids"]]
    assert spoken == encode(" ".join(words))
    assert all(call["max_tokens"] <= 100 for call in stages.lm_calls)


def test_a_piece_that_outgrows_the_model_is_cut_and_spoken_again():
    stages = TableStages(220, script=lambda _, call: varied(11 * len(call["text_ids"])))
    parts = speak(stages, request("one two three four five six seven eight nine ten"))
    whole, left, right = (call["text_ids"] for call in stages.lm_calls)
    assert left + right == whole
    assert [len(call["tokens"]) for call in stages.flow_calls] == [55, 55]
    report = join(parts).report
    assert report is not None
    assert (report.retries, report.warnings) == (1, ())


def test_a_piece_that_can_not_be_cut_ends_at_the_limit_and_this_is_told():
    stages = TableStages(80, script=lambda *_: varied(500))
    (audio,) = speak(stages, request("a"))
    assert audio.report is not None
    assert audio.report.warnings[0] == "piece 1, attempt 1: no end within 20 speech tokens"


def test_slow_speech_leaves_room_for_the_vocoder():
    stages = TableStages(400, script=lambda _, call: varied(call["max_tokens"] - 1))
    (audio,) = speak(stages, request("a b c d e f g h i j k", speed=0.5))
    assert max(stages.vocoder_frames) <= 400
    assert audio.seconds == pytest.approx(2 * 94 / 25)


def test_speed_shortens_the_audio_by_its_factor():
    stages = TableStages(script=lambda *_: varied(70))
    (audio,) = speak(stages, request("a b c d", speed=1.25))
    assert len(audio.samples) == int(140 / 1.25) * 480


def test_a_prompt_that_fills_the_model_is_refused_before_anything_runs():
    pipeline = Pipeline(TableStages(240), encode)
    with pytest.raises(SynthesisError) as caught:
        pipeline.speak(request("a", prompt=prompt(100)))
    assert caught.value.what == (
        "the speaker's clip of 4.0 s leaves less than a second of the 4.8 s that this bundle takes"
    )
    assert "--max-seconds" in caught.value.hint


def test_joins_neither_click_nor_jump():
    stages = TableStages(stop_bias=4.0)
    parts = speak(stages, request(f"{FIRST} {SECOND}"))
    for part in parts:
        assert abs(part.samples[0]) < 0.005
        assert abs(part.samples[-1]) < 0.005
    border = len(parts[0].samples)
    whole = join(parts).samples
    assert np.abs(np.diff(whole[border - 3 : border + 3])).max() < 0.02


def test_a_broken_network_is_an_error_not_noise(monkeypatch):
    stages = TableStages(stop_bias=4.0)
    broken = np.full((80, 4), np.nan, np.float32)
    monkeypatch.setattr(stages, "tokens_to_mel", lambda *_, **__: broken)
    with pytest.raises(SynthesisError, match="the flow put out values that are not finite"):
        speak(stages, request("a b"))


def test_progress_only_grows_and_ends_with_the_seconds_that_were_made():
    told: list[tuple[str, float, float]] = []
    stages = TableStages(stop_bias=4.0)
    parts = speak(
        stages, request(f"{FIRST} {SECOND}", progress=lambda *update: told.append(update))
    )
    assert [stage for stage, _, _ in told] == ["speech_lm", "flow", "vocoder"] * 2 + ["done"]
    done = [share for _, share, _ in told]
    assert done == sorted(done)
    assert done[-1] == 1.0
    assert told[-1][2] == pytest.approx(join(parts).seconds)


def test_audio_of_the_first_piece_comes_before_the_second_is_begun():
    stages = TableStages(stop_bias=4.0)
    stream = Pipeline(stages, encode).speak(request(f"{FIRST} {SECOND}"))
    next(stream)
    assert len(stages.lm_calls) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the text is empty"),
        ("  \n", "the text is empty"),
        ("… $ 😀!", "there is nothing to speak in '… $ 😀!'"),
    ],
)
def test_a_text_with_nothing_to_say_is_refused_before_anything_runs(text, what):
    stages = TableStages()
    with pytest.raises(TextError) as caught:
        Pipeline(stages, encode).speak(request(text))
    assert caught.value.what == what
    assert stages.lm_calls == []


def test_a_piece_of_symbols_alone_is_dropped_and_told():
    stages = TableStages(stop_bias=4.0)
    (audio,) = speak(stages, request(f"{'☆ ' * 200}\n\nHello there."))
    assert stages.lm_calls[0]["text_ids"] == encode("Hello there.")
    assert audio.report is not None
    assert audio.report.warnings[0].startswith("not spoken, no letter or digit: '☆ ☆ ☆")


@pytest.mark.parametrize(
    ("tokens", "fact"),
    [
        ([], "no speech tokens"),
        ([1, 2] * 6, "12 speech tokens of silence only"),
        ([1], "1 speech tokens of silence only"),
        ([5] * 60, "1 speech tokens repeated over and over"),
        (varied(20) * 5, "20 speech tokens repeated over and over"),
        ([*varied(30), *[1] * 101, *varied(5)], "a silence of 101 speech tokens"),
        (varied(200), "no end within 200 speech tokens"),
        (varied(3), "only 3 speech tokens for 10 text ids"),
    ],
)
def test_lost_utterances_are_recognized(tokens, fact):
    trouble = find_trouble(tokens, text_ids=10, max_tokens=200, token_rate=25, silent={1, 2})
    assert trouble is not None
    assert trouble.fact == fact


@pytest.mark.parametrize(
    "tokens",
    [
        varied(60),
        [*varied(30), *[1] * 60],
        [*varied(20), *varied(20), *varied(20, 1)],  # said twice, not for ever
        [*[5] * 30, *varied(30)],
    ],
)
def test_plausible_speech_is_not_repeated(tokens):
    text_ids = min(10, len(tokens))
    found = find_trouble(tokens, text_ids=text_ids, max_tokens=200, token_rate=25, silent={1, 2})
    assert found is None


def test_attempt_seeds_are_stable_and_distinct():
    seeds = {
        attempt_seed(seed, piece, retry)
        for seed in (0, 1, 2**32, 2**62)
        for piece in range(6)
        for retry in range(3)
    }
    assert len(seeds) == 4 * 6 * 3
    assert attempt_seed(0, 0, 0) == 2635072618980576772


def read_items(*items):
    """A reader that gives `items` for any text."""
    return lambda text: iter(items)


def test_a_pause_is_that_much_silence_between_two_pieces():
    stages = TableStages(stop_bias=4.0)
    read = read_items(Pause(0.25), Sentence("One two."), Pause(1.0), Sentence(" Three four."))
    parts = speak(stages, request("...", read=read, speed=2.0))
    assert [len(part.samples) for part in parts[::2]] == [6000, 24000]
    assert all(not part.samples.any() for part in parts[::2])
    assert [call["text_ids"] for call in stages.lm_calls] == [
        encode("One two."),
        encode("Three four."),
    ]
    report = join(parts).report
    assert report is not None
    assert (report.sentences, report.retries) == (2, 0)


def test_pauses_alone_are_nothing_to_speak():
    with pytest.raises(TextError, match="nothing to speak"):
        speak(TableStages(), request("[pause 1s]", read=read_items(Pause(1.0))))


def test_notes_of_the_reader_are_warnings_of_the_report():
    read = read_items(Note("mind the mark"), Sentence("One two."), Note("and the end"))
    (audio,) = speak(TableStages(stop_bias=4.0), request("...", read=read))
    assert audio.report is not None
    assert audio.report.warnings == ("mind the mark", "and the end")


def test_a_text_is_read_no_further_than_it_is_spoken():
    read: list[int] = []

    def sentences(text):
        for number in range(1000):
            read.append(number)
            yield Sentence(f"Sentence {number} {'of ' * 68}all. ")

    stream = Pipeline(TableStages(stop_bias=4.0), encode).speak(request("...", read=sentences))
    next(stream)
    assert len(read) < 10


def test_what_is_shown_is_what_is_spoken():
    stages = TableStages(stop_bias=4.0)
    wish = request(f"{FIRST} {SECOND}", read=read_items(
        Sentence(FIRST), Note("a note"), Pause(0.5), Sentence(SECOND)
    ))  # fmt: skip
    shown = list(Pipeline(stages, encode).show(wish))
    assert stages.lm_calls == []
    assert shown == [Note("a note"), FIRST, Pause(0.5), SECOND]
    speak(stages, wish)
    assert [call["text_ids"] for call in stages.lm_calls] == [encode(FIRST), encode(SECOND)]
