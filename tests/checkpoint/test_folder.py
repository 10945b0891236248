"""A folder is opened when everything needed is there, else one error names all that is wrong."""

import hashlib
import shutil
import subprocess
import sys

import pytest
import torch

from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.checkpoint.sizes import TINY
from cosyvoice_cpu.errors import CheckpointError, UsageError
from cosyvoice_cpu.networks.reference.weights import empty_networks, expected_tensors
from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint

PARTS = ("speech_lm", "flow", "vocoder")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_synthetic_checkpoint(tmp_path_factory.mktemp("folder") / "tiny", size="tiny")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def refusal(folder, **options):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, **options)
    assert str(folder) in caught.value.what
    assert "\n" not in caught.value.what
    return caught.value


def tensors(checkpoint, part):
    """What the reference networks read of a part."""
    networks = empty_networks(checkpoint.config, checkpoint.generation, part)
    return checkpoint.tensors(part, expected_tensors(networks))


def test_an_official_folder_gives_configuration_and_tensors(made):
    checkpoint = open_checkpoint(made)
    assert checkpoint.folder == made
    assert checkpoint.generation.name == "cosyvoice3"
    assert checkpoint.config == TINY
    assert checkpoint.has_front_end
    sizes = {part: len(tensors(checkpoint, part)) for part in PARTS}
    assert sizes == {"speech_lm": 28, "flow": 49, "vocoder": 328}
    with pytest.raises(ValueError, match="unknown part 'llm'"):
        checkpoint.tensors("llm", {})


def test_opening_a_folder_imports_no_torch(made):
    program = (
        "import sys; from pathlib import Path\n"
        "import cosyvoice_cpu.networks.synthetic_checkpoint\n"
        "from cosyvoice_cpu.checkpoint.folder import open_checkpoint\n"
        f"open_checkpoint(Path({str(made)!r}))\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_missing_file_is_named_at_once(folder):
    for file in ("llm.pt", "hift.pt", "campplus.onnx", "CosyVoice-BlankEN/merges.txt"):
        (folder / file).unlink()
    assert refusal(folder).what == (
        f"{folder} is incomplete: missing: llm.pt, hift.pt, campplus.onnx, "
        "CosyVoice-BlankEN/merges.txt"
    )


def test_without_front_end_its_files_are_not_needed(folder):
    for file in ("campplus.onnx", "speech_tokenizer_v3.onnx"):
        (folder / file).unlink()
    for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / "CosyVoice-BlankEN" / file).unlink()
    checkpoint = open_checkpoint(folder, front_end=False)
    assert not checkpoint.has_front_end
    assert set(checkpoint.digests()) == {
        "cosyvoice3.yaml",
        "CosyVoice-BlankEN/config.json",
        "llm.pt",
        "flow.pt",
        "hift.pt",
    }
    (folder / "CosyVoice-BlankEN/config.json").unlink()
    assert "missing: CosyVoice-BlankEN/config.json" in refusal(folder, front_end=False).what


def test_files_that_are_not_what_their_name_says_are_recognized(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (folder / "llm.pt").write_text(pointer)
    (folder / "flow.pt").write_text("")
    (folder / "hift.pt").write_text("\n<!DOCTYPE html><html><title>404</title></html>")
    (folder / "campplus.onnx").unlink()
    (folder / "campplus.onnx").mkdir()
    error = refusal(folder)
    assert error.what == (
        f"{folder} is incomplete: Git LFS pointer instead of the file: llm.pt; empty: flow.pt; "
        "a web page instead of the file: hift.pt; not a file: campplus.onnx"
    )
    assert "git lfs pull" in error.hint


def test_a_link_to_a_file_is_as_good_as_the_file(folder, tmp_path):
    (folder / "llm.pt").rename(tmp_path / "blob")
    (folder / "llm.pt").symlink_to(tmp_path / "blob")  # as the Hugging Face cache keeps them
    assert len(tensors(open_checkpoint(folder), "speech_lm")) == 28
    (tmp_path / "blob").unlink()
    assert "a link to a file that is not there: llm.pt" in refusal(folder).what


def test_what_is_no_model_folder_is_refused(folder, tmp_path):
    assert refusal(tmp_path / "nowhere").what == f"{tmp_path / 'nowhere'} does not exist"
    assert refusal(folder / "llm.pt").what == f"{folder / 'llm.pt'} is a file"
    (folder / "cosyvoice3.yaml").unlink()
    assert "holds none of cosyvoice.yaml, cosyvoice2.yaml, cosyvoice3.yaml" in refusal(folder).what


@pytest.mark.parametrize(
    ("name", "language_model"),
    [("cosyvoice.yaml", "TransformerLM"), ("cosyvoice2.yaml", "Qwen2LM"), ("cosyvoice2.yaml", "?")],
)
def test_another_generation_is_named(folder, name, language_model):
    text = (folder / "cosyvoice3.yaml").read_text().replace("CosyVoice3LM", language_model)
    (folder / "cosyvoice3.yaml").rename(folder / name).write_text(text)
    error = refusal(folder)
    assert f"({name}), not supported yet" in error.what
    assert error.hint == "supported: Fun-CosyVoice3"


def test_several_model_descriptions_are_refused(folder):
    shutil.copy(folder / "cosyvoice3.yaml", folder / "cosyvoice2.yaml")
    assert "cosyvoice2.yaml, cosyvoice3.yaml" in refusal(folder).what


def test_a_class_of_no_generation_is_refused(folder):
    yaml_file = folder / "cosyvoice3.yaml"
    yaml_file.write_text(yaml_file.read_text().replace("CosyVoice3LM", "OtherLM"))
    assert "llm is cosyvoice.llm.llm.OtherLM" in refusal(folder).what


def test_the_reinforced_language_model_is_chosen_by_name(folder):
    assert "has no llm.rl.pt, but llm.pt" in refusal(folder, speech_lm="rl").what
    (folder / "llm.pt").rename(folder / "llm.rl.pt")
    checkpoint = open_checkpoint(folder, speech_lm="rl")
    assert "llm.rl.pt" in checkpoint.files
    assert len(tensors(checkpoint, "speech_lm")) == 28
    with pytest.raises(UsageError, match="no speech LM 'large'"):
        open_checkpoint(folder, speech_lm="large")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_config_json_is_named(folder, content):
    (folder / "CosyVoice-BlankEN/config.json").write_bytes(content)
    assert "config.json is not" in refusal(folder).what


def test_training_snapshots_are_read(folder):
    for file in ("llm.pt", "flow.pt", "hift.pt"):
        state = torch.load(folder / file, weights_only=True)
        torch.save(state | {"epoch": 3, "step": 1000}, folder / file)
    state = torch.load(folder / "hift.pt", weights_only=True)
    trained = {f"generator.{key}": value for key, value in state.items()}
    torch.save(trained | {"discriminator.mpd.weight": torch.ones(2)}, folder / "hift.pt")
    checkpoint = open_checkpoint(folder)
    assert [len(tensors(checkpoint, part)) for part in PARTS] == [28, 49, 328]


def test_weights_of_another_size_are_refused_with_the_keys(folder):
    yaml_file = folder / "cosyvoice3.yaml"
    yaml_file.write_text(yaml_file.read_text().replace("depth: 2", "depth: 3"))
    with pytest.raises(CheckpointError, match=r"missing decoder\.estimator\.transformer_blocks\.2"):
        tensors(open_checkpoint(folder), "flow")


def test_digests_are_those_of_the_files(made):
    checkpoint = open_checkpoint(made)
    digests = checkpoint.digests()
    assert list(digests) == list(checkpoint.files)
    for file, digest in digests.items():
        content = (made / file).read_bytes()
        assert digest.size == len(content)
        assert digest.sha256 == hashlib.sha256(content).hexdigest()


def test_a_folder_with_the_other_speech_lm_alone_names_the_option(folder):
    (folder / "llm.pt").rename(folder / "llm.rl.pt")
    error = refusal(folder)
    assert error.what.endswith("has no llm.pt, but llm.rl.pt")
    assert error.hint.startswith("take that one with --speech-lm rl")
    assert open_checkpoint(folder, speech_lm="rl").speech_lm == "rl"


@pytest.mark.parametrize("name", ["cosyvoice.yaml", "cosyvoice2.yaml"])
def test_a_description_under_another_generations_name_names_the_true_one(folder, name):
    (folder / "cosyvoice3.yaml").rename(folder / name)
    error = refusal(folder)
    assert f"{name} describes a Fun-CosyVoice3-0.5B model" in error.what
    assert error.hint == "rename it to cosyvoice3.yaml, as in the official folder"


@pytest.mark.parametrize(
    ("language_model", "title"),
    [("Qwen2LM", "CosyVoice2-0.5B"), ("TransformerLM", "CosyVoice-300M")],
)
def test_another_generation_under_the_name_of_this_one_is_named(folder, language_model, title):
    path = folder / "cosyvoice3.yaml"
    path.write_text(path.read_text().replace("llm.llm.CosyVoice3LM", f"llm.llm.{language_model}"))
    error = refusal(folder)
    assert f"cosyvoice3.yaml describes a {title} model" in error.what
    assert error.hint == "supported: Fun-CosyVoice3"


def test_weights_as_safetensors_and_links_to_nowhere_are_named(folder):
    (folder / "llm.pt").rename(folder / "llm.safetensors")
    assert "missing, and llm.safetensors is no substitute" in refusal(folder).what
    (folder / "llm.safetensors").unlink()
    (folder / "llm.pt").symlink_to(folder / "blobs" / "0123")
    assert "a link to a file that is not there: llm.pt" in refusal(folder).what


def test_links_into_a_hub_cache_are_followed(folder, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    assert open_checkpoint(folder).digests()["llm.pt"].size > 1000
