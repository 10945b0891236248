"""Speakers as files in folders: added, found, listed, removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.bundle_examples import PROMPT_SPEC
from support.speaker_examples import embedding_alone, speaker

from cosyvoice_cpu.errors import OutputError, SpeakerError
from cosyvoice_cpu.frontend.speaker_folders import (
    add_speaker,
    find_speaker,
    list_speakers,
    remove_speaker,
)
from cosyvoice_cpu.frontend.speakers import Speaker


def test_speakers_are_added_found_listed_and_removed(tmp_path: Path) -> None:
    own, other = tmp_path / "new" / "speakers", tmp_path / "bundle"
    assert list_speakers([own, other]) == {}
    path = add_speaker(own, speaker("anna"))
    add_speaker(other, speaker("anna", tokens=5))
    add_speaker(other, embedding_alone())
    assert list_speakers([own, other]) == {"anna": path, "中文女": other / "中文女.safetensors"}
    assert find_speaker([own, other], "anna", PROMPT_SPEC).speech_tokens.size == 25
    assert remove_speaker([own, other], "anna") == path
    assert find_speaker([own, other], "anna").speech_tokens.size == 5


def test_a_taken_name_needs_overwrite(tmp_path: Path) -> None:
    add_speaker(tmp_path, speaker("anna"))
    with pytest.raises(SpeakerError, match="there already is a speaker 'anna'"):
        add_speaker(tmp_path, speaker("anna", tokens=5))
    assert find_speaker([tmp_path], "anna").speech_tokens.size == 25
    add_speaker(tmp_path, speaker("anna", tokens=5), overwrite=True)
    assert find_speaker([tmp_path], "anna").speech_tokens.size == 5


def test_no_name_means_the_only_speaker(tmp_path: Path) -> None:
    with pytest.raises(SpeakerError, match="there is no speaker") as caught:
        find_speaker([tmp_path], None)
    assert "cache-speaker" in caught.value.hint
    add_speaker(tmp_path, speaker("anna"))
    assert find_speaker([tmp_path], None).name == "anna"
    add_speaker(tmp_path, speaker("berta"))
    with pytest.raises(SpeakerError, match="there are several speakers") as caught:
        find_speaker([tmp_path], None)
    assert "anna, berta" in caught.value.hint


def test_a_missing_speaker_is_named_with_those_there_are(tmp_path: Path) -> None:
    add_speaker(tmp_path, speaker("anna"))
    for call in (find_speaker, remove_speaker):
        with pytest.raises(SpeakerError, match="there is no speaker 'berta'") as caught:
            call([tmp_path], "berta")
        assert "anna" in caught.value.hint


def test_links_hidden_and_other_files_are_no_speakers(tmp_path: Path) -> None:
    path = add_speaker(tmp_path / "a", speaker("anna"))
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "link.safetensors").symlink_to(path)
    (folder / ".anna.safetensors").write_bytes(path.read_bytes())
    (folder / "notes.txt").touch()
    assert list_speakers([folder]) == {}
    with pytest.raises(SpeakerError, match="is a symbolic link"):
        Speaker.load(folder / "link.safetensors")


def test_a_damaged_speaker_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "anna.safetensors").write_bytes(b"nonsense")
    remove_speaker([tmp_path], "anna")
    assert not os.listdir(tmp_path)


def test_a_folder_that_can_not_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"):
        add_speaker(tmp_path / "file" / "speakers", speaker())


@pytest.mark.parametrize("name", ["anna", None])
def test_a_link_in_the_place_of_a_speaker_is_named(tmp_path: Path, name: str | None) -> None:
    own = tmp_path / "speakers"
    own.mkdir()
    file = add_speaker(tmp_path / "blobs", speaker("anna"))
    (own / "anna.safetensors").symlink_to(file)
    with pytest.raises(SpeakerError, match=r"anna\.safetensors is a symbolic link, which is not"):
        find_speaker([own], name)
    with pytest.raises(SpeakerError, match="there is no speaker 'bob'"):
        find_speaker([own], "bob")
