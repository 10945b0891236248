"""The flow in pieces: the same mel as of the whole, whatever the pieces and the prompt."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.flow_voices import a_voice, speech
from support.networks_golden import CHECKPOINT, FLOW_PROMPT, ids, relative_error
from support.networks_golden import stages as reference

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import BundleError, SynthesisError, UsageError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.frontend.bundle_models import text_tokenizer
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.networks.reference.flow_estimator import POSITION_KERNEL
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.prompt_past import PromptPast, PromptPasts
from cosyvoice_cpu.stage_api import FlowStream, Stages

MEL = 1e-3
CHUNK = 50  # mel frames
DB = 20 / np.log(10)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> BundleStages:
    bundle = tmp_path_factory.mktemp("stream") / "bundle"
    export_checkpoint(CHECKPOINT, bundle, max_seconds=12, front_end=False)
    return BundleStages.load(bundle)


def joined(stream: FlowStream, tokens: list[int], cuts: list[int]) -> np.ndarray:
    edges = [0, *sorted(min(cut, len(tokens)) for cut in cuts), len(tokens)]
    pieces = [stream.push(tokens[a:b]) for a, b in pairwise(edges)]
    return np.concatenate([*pieces, stream.finish()], axis=1)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=st.sampled_from([0, 3, 22, 25, 27, 28, 50, 61]),
    length=st.integers(1, 110),
    cuts=st.lists(st.integers(0, 110), max_size=8),
)
def test_any_pieces_give_the_mel_of_the_whole(
    stages: BundleStages, prompt: int, length: int, cuts: list[int]
) -> None:
    voice, tokens = a_voice(prompt), speech(length)
    got = joined(stages.flow_stream(**voice), tokens, cuts)
    assert relative_error(got, stages.tokens_to_mel(tokens, **voice, streaming=True)) <= MEL


@pytest.mark.parametrize("prompt", [0, 25, 28, 43])
def test_the_bundle_streams_what_the_reference_does(stages: BundleStages, prompt: int) -> None:
    voice, tokens = a_voice(prompt), speech(70)
    want = reference().tokens_to_mel(tokens, **voice, streaming=True)
    cuts = [10, 40, 41]
    assert relative_error(joined(reference().flow_stream(**voice), tokens, cuts), want) <= MEL
    assert relative_error(joined(stages.flow_stream(**voice), tokens, cuts), want) <= MEL


def test_the_mel_of_a_whole_chunk_is_given_once_its_look_ahead_is_there(
    stages: BundleStages,
) -> None:
    for engine in (stages, reference()):
        stream = engine.flow_stream(**a_voice(30))  # 60 frames: ten of the second chunk
        tokens = speech(80)
        given = [stream.push([token]).shape[1] for token in tokens]
        last = stream.finish().shape[1]
        # Frames up to 100, 150, 200 are final with 53, 78, 103 tokens, the prompt's 30 included.
        assert {n + 1: frames for n, frames in enumerate(given) if frames} == {
            23: 40,
            48: 50,
            73: 50,
        }
        assert last == 2 * 80 - 140


def test_a_longer_window_is_nearer_to_the_whole(stages: BundleStages) -> None:
    voice, tokens = a_voice(30), speech(140)
    whole = joined(stages.flow_stream(**voice), tokens, [])
    differences = []
    for seconds in (1.0, 2.0, 6.0):
        stream = stages.flow_stream(**voice, window_seconds=seconds)
        differences.append(np.abs(joined(stream, tokens, [50, 51]) - whole).mean() * DB)
    print("dB at 1, 2, 6 s:", *(f"{value:.3f}" for value in differences))
    assert differences[0] > differences[1] > differences[2]


def test_three_seconds_of_window_change_the_demo_voice_by_less_than_a_tenth_of_a_decibel() -> None:
    demo = BundleStages.load(DEMO_BUNDLE)
    speaker = Speaker.load(min((DEMO_BUNDLE / "speakers").iterdir()))
    voice = {
        "prompt_tokens": list(speaker.speech_tokens),
        "prompt_mel": speaker.mel,
        "embedding": speaker.embedding,
    }
    tokenizer = text_tokenizer(demo.bundle)
    assert tokenizer
    text = (
        "The morning train was late again, so we walked along the river and talked about"
        " the summer, and about the snow on the old church roof."
    )
    tokens = demo.generate_speech_tokens(
        tokenizer.encode(text), prompt_speech_ids=list(speaker.speech_tokens)
    )
    assert len(tokens) > 90
    whole = demo.tokens_to_mel(tokens, **voice, streaming=True)
    windowed = joined(demo.flow_stream(**voice, window_seconds=3), tokens, [])
    assert 0 < np.abs(windowed - whole).mean() * DB <= 0.1


@pytest.mark.parametrize("tokens", [25, 26, 50])
def test_with_a_window_a_prompt_is_a_constant_to_its_last_whole_chunk(
    stages: BundleStages, tokens: int
) -> None:
    stream = stages.flow_stream(**a_voice(tokens), window_seconds=3)
    assert stream._prompt.frames == 2 * tokens // CHUNK * CHUNK
    voice, target = a_voice(tokens), [1, 2, 28, *speech(60)]  # silence follows, as supposed
    whole = stages.tokens_to_mel(target, **voice, streaming=True)
    got = joined(stages.flow_stream(**voice, window_seconds=60), target, [20])
    assert relative_error(got, whole) <= MEL


def test_what_a_stream_keeps_is_bounded_by_its_window(stages: BundleStages) -> None:
    stream = stages.flow_stream(**a_voice(30), window_seconds=2)
    kept = []
    for start in range(0, 250, 25):
        stream.push(speech(250)[start : start + 25])
        kept.append(sum(array.nbytes for array in stream._recent.all()))
    assert len(set(kept[4:])) == 1


def test_the_memory_of_an_ended_stream_serves_the_next_one(stages: BundleStages) -> None:
    voice = a_voice(30)
    memory = stages._flow_stream().memory
    want = joined(stages.flow_stream(**voice, window_seconds=2), speech(120), [])
    (kept,) = memory._free
    for array in kept:
        array.fill(np.nan)  # a read of what was never written shows
    assert np.array_equal(
        joined(stages.flow_stream(**voice, window_seconds=2), speech(120), [30]), want
    )
    dropped = stages.flow_stream(**voice, window_seconds=2)
    dropped.push(speech(60))
    assert not memory._free
    others = [stages.flow_stream(**voice, window_seconds=2) for _ in range(2)]
    results = [np.concatenate([o.push(speech(120)), o.finish()], axis=1) for o in others]
    assert all(np.array_equal(result, want) for result in results)
    del dropped
    assert len(memory._free) == 1


def test_a_prompt_is_computed_once_and_shared(
    stages: BundleStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []
    stage = stages._flow_stream()
    compute = stage.prompt_past
    monkeypatch.setattr(
        stage, "prompt_past", lambda *a, **k: computed.append(1) or compute(*a, **k)
    )
    voice = a_voice(33)
    threads = [threading.Thread(target=stages.flow_stream, kwargs=voice) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(computed) == 1
    streams = [stages.flow_stream(**voice) for _ in range(2)]
    assert streams[0]._prompt is streams[1]._prompt
    joined(streams[0], speech(40), [])
    assert (
        relative_error(
            joined(streams[1], speech(40), []),
            stages.tokens_to_mel(speech(40), **voice, streaming=True),
        )
        <= MEL
    )  # what the first did left no trace in what they share


def test_prompts_are_forgotten_when_others_take_their_room() -> None:
    preset = reference().synthesis.solver

    def past(size: int) -> PromptPast:
        return PromptPast(0, [np.zeros((size, 1, 1, 1, 1, 1), np.float16)], [])

    pasts = PromptPasts(most_bytes=100)
    made = []

    def get(number: int, size: int = 20) -> PromptPast:
        voice = ([number], np.zeros((0, 80), np.float32), np.zeros(192, np.float32))
        return pasts.get(*voice, True, preset, lambda _: made.append(number) or past(size))

    first = get(1)
    get(2)
    assert get(1) is first
    get(3)  # 120 bytes: the second goes, it was used longest ago
    assert get(1) is first
    get(2)
    assert made == [1, 2, 3, 2]
    get(4, size=500)  # more than all: the last one is kept
    get(4, size=500)
    assert made == [1, 2, 3, 2, 4]


def test_a_stream_gives_nothing_behind_its_end(stages: BundleStages) -> None:
    for engine in (stages, reference()):
        stream = engine.flow_stream(**a_voice(5))
        stream.push(speech(3))
        assert stream.finish().shape == (80, 6)
        assert stream.finish().shape == (80, 0)
        with pytest.raises(ValueError, match="has ended"):
            stream.push([1])


def test_what_no_stream_can_do_is_refused(stages: BundleStages) -> None:
    voice = a_voice(5)
    engines: tuple[Stages, ...] = (stages, reference())
    for engine in engines:
        with pytest.raises(SynthesisError, match="leave no mel frame"):
            engine.flow_stream(**voice).finish()
        with pytest.raises(SynthesisError, match="speech id 100000"):
            joined(engine.flow_stream(**voice), [100000], [])
    with pytest.raises(UsageError, match="can't take 7 euler steps of this grid: it knows no t"):
        stages.flow_stream(**voice, steps=7)
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="holds nothing"):
            stages.flow_stream(**voice, window_seconds=seconds)
    with pytest.raises(UsageError, match="without a window"):
        reference().flow_stream(**voice, window_seconds=2.0)


def test_a_bundle_without_the_graph_for_streams_is_refused(tmp_path: Path) -> None:
    import json
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(DEMO_BUNDLE, bundle)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    files = manifest["components"]["flow_estimator"]["files"]
    files[:] = [entry for entry in files if not entry["path"].endswith("stream.onnx")]
    path.write_text(json.dumps(manifest))
    (bundle / "flow_estimator" / "stream.onnx").unlink()
    with pytest.raises(BundleError, match=r"stream\.onnx"):
        BundleStages.load(bundle).flow_stream(**a_voice(5))


def test_the_golden_prompt_streams_the_originals_chunks(stages: BundleStages) -> None:
    tokens = ids("flow_token")
    want = reference().tokens_to_mel(tokens, **FLOW_PROMPT, streaming=True)
    assert relative_error(joined(stages.flow_stream(**FLOW_PROMPT), tokens, [7]), want) <= MEL


def test_the_table_knows_the_taps_of_the_position_convolutions() -> None:
    spec = reference().generation.components["flow_estimator"]
    assert spec.sizes["taps_before"] == POSITION_KERNEL - 1
