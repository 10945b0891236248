"""Read a prompt clip from an audio file."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend.resampling import HIGHEST_RATE

if TYPE_CHECKING:
    import soundfile

LONGEST_PROMPT = 30.0  # seconds; the speech tokenizer's limit
LONGEST_TO_TRIM = 180.0  # seconds of a longer recording among which `best_cut` chooses
LOWEST_RATE = 16_000  # Hz; below, the bands that the models look at are empty

_BLOCK = 1 << 20  # values per read
_MOST_CHANNELS = 64
_STREAMED = 0x7FFF_F000  # a writer that can't seek back leaves a size of this order in the header
_DATA_SIZE = re.compile(r"^data : (\d+) \(should be \d+\)", re.MULTILINE)
_MP3_SLACK = 4 * 1152  # samples that encoder delay and padding may hide
_HINT = "give a WAV, FLAC, OGG or MP3 file with 3 to 10 seconds of speech"


def load_clip(path: str | Path, *, trim: bool = False) -> tuple[Floats, int]:
    """Samples [n] of an audio file, averaged over its channels, and their rate in Hz.

    16-bit samples are divided by 32768; floating-point ones stay as they are and may exceed 1.
    A file of more than 30 s is refused from its header; with `trim` the first 3 minutes are read,
    in blocks, whatever the file's length.
    Raises: AudioError naming the file if it can't be read or decoded, is truncated or empty, has a
    rate below 16 kHz, is too long, or holds samples that are not finite.
    Source: CosyVoice cosyvoice/utils/file_utils.py, `load_wav`.
    """
    path = Path(path)
    with _open(path) as file:
        rate = file.samplerate
        limit = LONGEST_TO_TRIM if trim else LONGEST_PROMPT
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(
                f"{path} has a sample rate of {rate} Hz; a prompt needs at least {LOWEST_RATE} Hz",
                "record the clip at 16 kHz or more; resampling a lower rate adds nothing",
            )
        if not trim and file.frames > limit * rate:
            raise _too_long(path, f"{file.frames / rate:.0f} s")
        audio = _read(path, file, most=int(limit * rate) + 1)
    if not audio.size:
        raise AudioError(f"{path} has no samples", _HINT)
    if audio.size > limit * rate:
        if not trim:  # the header promised less
            raise _too_long(path, f"more than {limit:.0f} s")
        audio = audio[:-1]
    if not np.all(np.isfinite(audio)):
        raise AudioError(f"{path} holds samples that are not finite (NaN or infinity)", _HINT)
    return audio, rate


def _open(path: Path) -> soundfile.SoundFile:
    import soundfile

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe can't be read twice, nor sought in
            fact = "is a folder" if path.is_dir() else "is not a file"
            raise AudioError(f"{path} {fact}", "check the name of the clip")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise AudioError(
            f"{path} can't be read ({error.strerror})", "check the name of the clip"
        ) from error
    if empty:
        raise AudioError(f"{path} is empty", _HINT)
    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(f"{path} is not an audio file that can be read", _HINT) from error
    declared = _DATA_SIZE.search(sound.extra_info)
    if declared and int(declared[1]) < _STREAMED:
        sound.close()
        raise _truncated(path)
    if sound.channels > _MOST_CHANNELS:
        sound.close()
        raise AudioError(f"{path} has {sound.channels} channels", _HINT)
    return sound


def _read(path: Path, file: soundfile.SoundFile, most: int) -> Floats:
    """Up to `most` samples, mono; one block of the file at a time is in memory beside them."""
    import soundfile

    parts: list[Floats] = []
    count = 0
    while count < most:
        wanted = min(most - count, _BLOCK // file.channels)
        try:
            block = file.read(wanted, dtype="float32", always_2d=True)  # [samples, channels]
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise _truncated(path) from error
        if not len(block):
            break
        with np.errstate(invalid="ignore"):  # infinities of both signs; refused when all is read
            parts.append(block.mean(axis=1))
        count += len(block)
    if count + _MP3_SLACK < min(file.frames, most) and file.format == "MP3":
        raise _truncated(path)  # the MP3 decoder ends early without a word
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _too_long(path: Path, length: str) -> AudioError:
    return AudioError(
        f"{path} lasts {length}; a prompt may have at most {LONGEST_PROMPT:.0f} s",
        "cut it, or let --trim choose a part; 3 to 10 seconds are best",
    )


def _truncated(path: Path) -> AudioError:
    return AudioError(f"{path} is damaged or incomplete", "copy the file again")
