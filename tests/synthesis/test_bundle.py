"""From a bundle on disk to audio, as a user of the library does it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyvoice_cpu import Speaker, Synthesizer
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import BundleError, SpeakerError
from cosyvoice_cpu.frontend.speaker_folders import add_speaker
from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip

SPEECH_LIKE = np.random.default_rng(0).normal(0, 0.1, 24000 * 3).astype(np.float32)


def export(folder: Path, **options) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from cosyvoice_cpu.export.exporter import export_checkpoint
    from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint

    make_synthetic_checkpoint(folder / "checkpoint", size="tiny")
    export_checkpoint(folder / "checkpoint", folder / "bundle", max_seconds=20.0, **options)
    return folder / "bundle"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return export(tmp_path_factory.mktemp("speaking"))


@pytest.fixture(scope="module")
def speakers(bundle, tmp_path_factory):
    """A folder with the speaker "anna", made from a clip by the bundle's own front end."""
    folder = tmp_path_factory.mktemp("speakers")
    clip = folder / "clip.wav"
    soundfile.write(clip, SPEECH_LIKE, 24000)
    prepared = speaker_from_clip(open_bundle(bundle), "anna", clip, "some words")
    add_speaker(folder, prepared.speaker)
    return folder


def test_a_bundle_and_a_clip_give_audio_by_the_speakers_name(bundle, speakers):
    synthesizer = Synthesizer.load(bundle, threads=1, speakers=speakers)
    audio = synthesizer.speak("Hi.", speaker="anna", retries=0)
    again = synthesizer.speak("Hi.", retries=0)  # the only speaker there is
    assert np.array_equal(audio.samples, again.samples)
    assert len(audio.samples) > 0
    assert np.isfinite(audio.samples).all()


def test_a_speaker_is_made_saved_and_loaded_in_python(bundle, tmp_path, caplog):
    synthesizer = Synthesizer.load(bundle, threads=1)
    path = tmp_path / "clip.wav"
    soundfile.write(path, SPEECH_LIKE, 24000, subtype="FLOAT")
    with path.open("rb") as file:
        sources = [path, str(path), path.read_bytes(), file, (SPEECH_LIKE, 24000)]
        made = [synthesizer.make_speaker("bob", source, "some words") for source in sources]
    assert "level hardly changes" in caplog.text
    made[0].save(tmp_path / "bob.safetensors")
    loaded = Speaker.load(tmp_path / "bob.safetensors")
    for speaker in (*made[1:], loaded):
        assert speaker.prompt_tokens == made[0].prompt_tokens
        assert np.array_equal(speaker.mel, made[0].mel)
        assert np.array_equal(speaker.embedding, made[0].embedding)
    spoken = [synthesizer.speak("Hi.", speaker, retries=0).samples for speaker in (made[4], loaded)]
    assert np.array_equal(*spoken)


def test_an_unknown_speaker_is_refused_with_the_names_that_are_known(bundle, speakers):
    synthesizer = Synthesizer.load(bundle, threads=1, speakers=speakers)
    with pytest.raises(SpeakerError) as caught:
        synthesizer.speak("Hi.", speaker="bob")
    assert caught.value.what == "there is no speaker 'bob'"
    assert caught.value.hint.endswith("anna")


def test_speaking_imports_no_torch(bundle, speakers, tmp_path):
    program = (
        "import sys; from cosyvoice_cpu import Synthesizer\n"
        f"synthesizer = Synthesizer.load({str(bundle)!r}, 1, speakers={str(speakers)!r})\n"
        f"synthesizer.speak('Hi.', retries=0).save({str(tmp_path / 'hi.wav')!r})\n"
        "print(sorted({'torch', 'onnx', 'cosyvoice_cpu.networks'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert soundfile.info(tmp_path / "hi.wav").samplerate == 24000


def test_a_bundle_without_a_text_tokenizer_says_so(tmp_path):
    bundle = export(tmp_path, front_end=False)
    with pytest.raises(BundleError) as caught:
        Synthesizer.load(bundle, threads=1)
    assert caught.value.what == f"{bundle} has no text_tokenizer, so it speaks from ids only"
