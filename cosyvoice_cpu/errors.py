"""Expected failures, each with the fact and the remedy.

`cli` turns a `CosyVoiceError` into one or two plain lines and its exit code; anything else is a bug
of ours and keeps its traceback. One class per cause, so that callers of the library can tell them
apart.
"""

from __future__ import annotations

LONGEST_LINE = 2000  # characters of a fact or a remedy


class CosyVoiceError(Exception):
    """An expected failure: `what` states the fact with names and values, `hint` the next action."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        self.what, self.hint = shortened(what), shortened(hint)
        super().__init__(self.what)

    def lines(self) -> str:
        """The fact and the remedy as people are shown them, a line each."""
        fact = f"error: {one_line(self.what)}"
        return f"{fact}\nhint:  {one_line(self.hint)}" if self.hint else fact


class UsageError(CosyVoiceError):
    """The request itself can't be carried out: contradictory or out-of-range options."""

    exit_code = 2


class CheckpointError(CosyVoiceError):
    """An official checkpoint folder is incomplete, damaged or of another kind."""


class BundleError(CosyVoiceError):
    """A bundle is incomplete, damaged, unsafe or of another version."""


class ManifestError(BundleError):
    """`manifest.json` does not parse strictly or disagrees with the files beside it."""


class OutputError(CosyVoiceError):
    """An output can't be written: no such folder, no permission, full disk."""


class SpeakerError(CosyVoiceError):
    """A speaker file is missing, damaged or made with another model."""


class AudioError(CosyVoiceError):
    """An audio file can't be read, or can't serve as a prompt."""


class TextError(CosyVoiceError):
    """A text can't be spoken: empty, not decodable, or with ids outside the model's table."""


class ParityError(CosyVoiceError):
    """An exported graph differs from the torch reference by more than the tolerance."""


class EngineParityError(CosyVoiceError):
    """An engine gives something else than ONNX Runtime with the same bundle."""


class SynthesisError(CosyVoiceError):
    """The models produced no usable speech, or the request exceeds their limits."""


class MissingExtraError(CosyVoiceError):
    """An optional dependency is needed; the hint names the extra to install."""


def library_error(error: ImportError, need: str, extra: str = "export") -> CosyVoiceError:
    """Why an import failed: the library is not there, or it is there and can't be loaded."""
    if isinstance(error, ModuleNotFoundError):
        return MissingExtraError(need, f'install it with: pip install "cosyvoice-cpu[{extra}]"')
    return CosyVoiceError(
        f"{need}, but what is installed can't be loaded: {first_line(error)}",
        "it is broken or of another version; install it again",
    )


class GateRefusedError(CosyVoiceError):
    """A quality gate refused the result."""

    exit_code = 3


def shortened(text: str) -> str:
    """`text` with its middle left out if it is long: files may hold keys of megabytes."""
    if len(text) <= LONGEST_LINE:
        return text
    half = LONGEST_LINE // 2
    return f"{text[:half]} … {text[-half:]}"


def one_line(text: str) -> str:
    """`text` with line ends and other control characters escaped: file names may hold them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: Exception, limit: int = 300) -> str:
    """The first line of another library's exception, or its class if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__
