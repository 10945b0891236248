"""Read a prompt clip: a file's name, its bytes, an open file, or samples with their rate."""

from __future__ import annotations

import contextlib
import io
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError, UsageError
from cosyvoice_cpu.frontend.channels import Mixer
from cosyvoice_cpu.frontend.containers import container_of, decode
from cosyvoice_cpu.frontend.pcm import within_full_scale
from cosyvoice_cpu.frontend.resampling import HIGHEST_RATE
from cosyvoice_cpu.frontend.wav_header import WithSize, wav_sizes

if TYPE_CHECKING:
    import soundfile

LONGEST_PROMPT = 30.0  # seconds; the speech tokenizer's limit
LONGEST_TO_TRIM = 180.0  # seconds of a longer recording among which `best_cut` chooses
LOWEST_RATE = 16_000  # Hz; below, the bands that the models look at are empty
LARGEST_STREAM = 1 << 28  # bytes that are kept of a file object that can't be sought in

_BLOCK = 1 << 20  # values per read
_MOST_CHANNELS = 64
_UNKNOWN_LENGTH = 1 << 60  # samples; libsndfile says more of FLAC from a pipe
_WRONG_SIZE = re.compile(r"^(?:data|SSND) : \d+ \(should be \d+\)", re.MULTILINE)
_MP3_SLACK = 4 * 1152  # samples that encoder delay and padding may hide
_HINT = "give a WAV, FLAC, OGG or MP3 file with 3 to 10 seconds of speech"


class Sound(Protocol):
    """Samples with a rate, as `cosyvoice_cpu.Audio`."""

    @property
    def samples(self) -> Floats:
        """[n]."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...


Samples: TypeAlias = "tuple[NDArray[Any], int]"  # [n] or [n, channels], and Hz
ClipSource: TypeAlias = "str | Path | bytes | BinaryIO | Samples | Sound"


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono `samples` [n] at `rate` Hz; `warnings` say what was made good on the way."""

    samples: Floats
    rate: int
    warnings: tuple[str, ...] = ()


def load_clip(path: str | Path, *, trim: bool = False) -> tuple[Floats, int]:
    """Samples and rate of `read_clip`. Raises: as it does."""
    clip = read_clip(path, trim=trim)
    return clip.samples, clip.rate


def read_clip(source: ClipSource, *, trim: bool = False) -> Clip:
    """A clip, averaged over its channels.

    Integer samples are divided by their full scale; floating-point ones stay as they are and may
    exceed 1 a little. A file of more than 30 s is refused from its header; with `trim` the first
    3 minutes are read, in blocks, whatever the file's length.
    Made good, with a warning: a WAV header that promises a little more than there is, channels that
    cancel each other, floating-point samples at an integer's scale.
    Raises: AudioError naming the file if it can't be read or decoded, is truncated or empty, has a
    rate below 16 kHz, is too long, or holds samples that are not finite; UsageError for what is no
    clip at all.
    Source: CosyVoice cosyvoice/utils/file_utils.py, `load_wav`.
    """
    limit = LONGEST_TO_TRIM if trim else LONGEST_PROMPT
    with contextlib.ExitStack() as opened:
        where = "the clip"
        if isinstance(source, tuple) and len(source) == 2:
            rate_first = isinstance(source[0], (int, np.integer))  # as scipy.io.wavfile has it
            track = _of_samples(*(reversed(source) if rate_first else source))
        elif hasattr(source, "sample_rate") and hasattr(source, "samples"):
            track = _of_samples(source.samples, source.sample_rate)
        else:
            file, where = _opened(source, opened)
            track = _of_file(file, where, limit)
        if not LOWEST_RATE <= track.rate <= HIGHEST_RATE:
            raise AudioError(
                f"{where} has a sample rate of {track.rate} Hz; a prompt needs at least"
                f" {LOWEST_RATE} Hz",
                "record the clip at 16 kHz or more; resampling a lower rate adds nothing",
            )
        if not trim and track.length and track.length > limit * track.rate:
            raise _too_long(where, f"{track.length / track.rate:.0f} s")
        most = int(limit * track.rate) + 1
        mixer = Mixer()
        audio = mixer.mean(_first(track.blocks(), most))
        _check_complete(track, mixer.count, most, where)
        if (channel := mixer.channel_that_cancels) is not None:
            audio = mixer.only(_first(track.blocks(), most), channel)
    warnings = list(track.warnings)
    if mixer.warning:
        warnings.append(f"{where}: {mixer.warning}")
    if not audio.size:
        raise AudioError(f"{where} has no samples", _HINT)
    if audio.size > limit * track.rate:
        if not trim:  # the header promised less
            raise _too_long(where, f"more than {limit:.0f} s")
        audio = audio[:-1]
    if not np.all(np.isfinite(audio)):
        raise AudioError(f"{where} holds samples that are not finite (NaN or infinity)", _HINT)
    audio, scaled = within_full_scale(audio, where)
    return Clip(audio, track.rate, (*warnings, *scaled))


class _Track:
    """What can be read of a clip, as often as needed."""

    rate: int  # Hz
    length: int | None = None  # samples that the header promises
    warnings: tuple[str, ...] = ()
    slack: int | None = None  # samples that may be missing of `length`; None for any number

    def blocks(self) -> Iterator[Floats]:
        """[samples, channels] from the beginning. Raises: AudioError."""
        raise NotImplementedError


class _Array(_Track):
    def __init__(self, samples: Floats, rate: int) -> None:
        self.rate, self.length, self._samples = rate, len(samples), samples

    def blocks(self) -> Iterator[Floats]:
        step = max(1, _BLOCK // self._samples.shape[1])
        for start in range(0, len(self._samples), step):
            yield self._samples[start : start + step]


def _of_samples(samples: Any, rate: Any) -> _Track:
    """Raises: UsageError for a rate or an array that can't be a sound's."""
    array = np.asarray(samples)
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)):
        raise UsageError(f"the clip's rate is {rate!r}, not a number of Hz", "give (samples, rate)")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or min(array.shape) > _MOST_CHANNELS:
        raise UsageError(
            f"the clip is an array of shape {list(np.shape(samples))}",
            "give samples [n], or [n, channels]",
        )
    if array.shape[1] > _MOST_CHANNELS:  # [channels, n], as torchaudio has it
        array = array.T
    if array.dtype.kind == "u" and array.dtype.itemsize == 1:
        array = (array.astype(np.float32) - 128) / 128
    elif array.dtype.kind == "i":
        array = array.astype(np.float64) / (1 << 8 * array.dtype.itemsize - 1)
    elif array.dtype.kind != "f":
        raise UsageError(f"the clip's samples are {array.dtype}", "give floats or 16-bit integers")
    return _Array(array.astype(np.float32), int(rate))


def _opened(source: Any, opened: contextlib.ExitStack) -> tuple[BinaryIO, str]:
    """The source as an open file that can be sought in, and its name. Raises: AudioError."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe can't be read twice, nor sought in
                fact = "is a folder" if path.is_dir() else "is not a file"
                raise AudioError(f"{path} {fact}", "check the name of the clip")
            file: BinaryIO = opened.enter_context(path.open("rb"))
        except OSError as error:
            raise AudioError(
                f"{path} can't be read ({error.strerror})", "check the name of the clip"
            ) from error
        return file, str(path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), "the clip"
    if not hasattr(source, "read"):
        raise UsageError(
            f"a clip can't be read from {type(source).__name__}",
            "give a path, bytes, an open file, or (samples, rate)",
        )
    name = getattr(source, "name", None)
    where = name if isinstance(name, str) else "the clip"
    try:
        if getattr(source, "seekable", bool)():
            source.seek(0)
            content, file = source.read(1), source
            source.seek(0)
        else:
            content = source.read(LARGEST_STREAM + 1)
            file = io.BytesIO(content) if isinstance(content, bytes) else source
    except OSError as error:
        raise AudioError(f"{where} can't be read ({error.strerror})", "open it again") from error
    if not isinstance(content, bytes):
        raise UsageError(f"{where} is open as text", 'open it with mode "rb"')
    if len(content) > LARGEST_STREAM:
        raise AudioError(f"{where} exceeds {LARGEST_STREAM >> 20} MB", _HINT)
    return file, where


def _of_file(file: BinaryIO, where: str, limit: float) -> _Track:
    import soundfile

    head = file.read(16)
    if not head:
        raise AudioError(f"{where} is empty", _HINT)
    file.seek(0)
    warnings: tuple[str, ...] = ()
    sizes = wav_sizes(file)
    readable: Any = file
    if sizes and (sizes.is_placeholder or sizes.is_small_lie):
        readable = WithSize(file, sizes)
        if not sizes.is_placeholder:
            warnings = (
                f"{where}: the header promises {sizes.missing} bytes more than there are; read to"
                " the end",
            )
    try:
        sound = soundfile.SoundFile(readable)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        if container := container_of(head):
            return _Decoded(file, where, container)
        raise AudioError(f"{where} is not an audio file that can be read", _HINT) from error
    with sound:
        if _WRONG_SIZE.search(sound.extra_info):
            raise _truncated(where)
        if sound.channels > _MOST_CHANNELS:
            raise AudioError(f"{where} has {sound.channels} channels", _HINT)
        return _Sound(readable, where, sound, warnings)


class _Sound(_Track):
    """What libsndfile reads."""

    def __init__(
        self, file: Any, where: str, sound: soundfile.SoundFile, warnings: tuple[str, ...]
    ) -> None:
        self._file, self._where = file, where
        self.rate, self.warnings = sound.samplerate, warnings
        self.length = sound.frames if sound.frames < _UNKNOWN_LENGTH else None
        # These decoders end early without a word.
        self.slack = {"MP3": _MP3_SLACK, "FLAC": 0}.get(sound.format)

    def blocks(self) -> Iterator[Floats]:
        import soundfile

        self._file.seek(0)
        try:
            sound: Any
            with soundfile.SoundFile(self._file) as sound:
                sound.seekable = lambda: False  # it would seek, and fail at the end of piped FLAC
                size = max(1, _BLOCK // sound.channels)
                while len(block := sound.read(size, dtype="float32", always_2d=True)):
                    yield block
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise _truncated(self._where) from error


class _Decoded(_Track):
    """What a decoder for further containers reads."""

    def __init__(self, file: BinaryIO, where: str, container: tuple[str, str]) -> None:
        self._file, self._where, self._container = file, where, container
        self.rate, _ = decode(file, where, container)

    def blocks(self) -> Iterator[Floats]:
        return decode(self._file, self._where, self._container)[1]


def _first(blocks: Iterator[Floats], most: int) -> Iterator[Floats]:
    """The first `most` samples of `blocks`."""
    for block in blocks:
        yield block[:most]
        most -= len(block)
        if most <= 0:
            return


def _check_complete(track: _Track, count: int, most: int, where: str) -> None:
    """Raises: AudioError if less came than the header promises and a decoder would have said."""
    if track.slack is None or track.length is None:
        return
    if count + track.slack < min(track.length, most):
        raise _truncated(where)


def _too_long(where: str, length: str) -> AudioError:
    return AudioError(
        f"{where} lasts {length}; a prompt may have at most {LONGEST_PROMPT:.0f} s",
        "cut it, or let --trim choose a part; 3 to 10 seconds are best",
    )


def _truncated(where: str) -> AudioError:
    return AudioError(f"{where} is damaged or incomplete", "copy the file again")
