"""Audio to the sound card while it is made, by the package sounddevice (extra `play`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import CosyVoiceError, OutputError, first_line, library_error


class Player:
    """An open output of the sound card; a write waits while its buffer is full."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, samples: Floats) -> None:
        """Play `samples` [n] behind what was written. Raises: OutputError if the card is gone."""
        try:
            self._stream.write(np.ascontiguousarray(samples[:, None], np.float32))
        except Exception as error:  # PortAudio's own class, which needs the package to be named
            raise _failed(error) from error


@contextmanager
def player(sample_rate: int) -> Iterator[Player]:
    """The sound card's default output at `sample_rate` Hz; at the end what was written is played.

    Raises: MissingExtraError without the package, OutputError without a sound card.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise library_error(error, "--play needs the package sounddevice", "play") from None
    except OSError as error:  # the package is there and PortAudio is not
        raise CosyVoiceError(
            f"--play needs PortAudio ({first_line(error)})",
            "install it, on Debian with: apt install libportaudio2",
        ) from error
    try:
        stream = sounddevice.OutputStream(samplerate=sample_rate, channels=1, dtype="float32")
        stream.start()
    except Exception as error:
        raise _failed(error) from error
    try:
        yield Player(stream)
        stream.stop()
    finally:
        stream.close()


def _failed(error: Exception) -> OutputError:
    return OutputError(
        f"the sound card can't be used ({first_line(error)})",
        "leave --play away and give an --output",
    )
