"""The one place that turns what went wrong into plain lines and an exit code."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from cosyvoice_cpu.errors import CosyVoiceError, UsageError, first_line

# How torch's and ONNX Runtime's allocators say it; neither raises MemoryError.
_NO_MEMORY = re.compile(r"can't allocate memory|bad_alloc|Failed to allocate memory|out of memory")
_OUT_OF_MEMORY = CosyVoiceError("out of memory", "give a shorter text, or free some memory")
FAILED = 1
INTERRUPTED = 130


class FailureLines(TyperGroup):
    """The group of all commands; every exception of a command ends here.

    Wrong usage is found by Typer, which names the option; it is said in the same two lines.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--debug` from anywhere in the line: it is typed behind what just failed."""
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            rest = [argument for argument in args[:end] if argument != "--debug"]
            args = ["--debug", *rest, *args[end:]]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            _report_usage(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises: typer.Exit with the code of what went wrong."""
        try:
            return super().invoke(ctx)
        except CosyVoiceError as error:
            _show_traceback(ctx)
            report(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            report_interrupt()
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _close_stdout()
            raise typer.Exit(FAILED) from None
        except MemoryError as error:
            _show_traceback(ctx)
            report(_OUT_OF_MEMORY)
            raise typer.Exit(FAILED) from error
        except OSError as error:
            _show_traceback(ctx)
            report(of_system(error))
            give_up_full_stdout()
            raise typer.Exit(FAILED) from error
        except ImportError as error:
            _show_traceback(ctx)
            report(_of_import(error))
            raise typer.Exit(FAILED) from error
        except Exception as error:
            if type(error).__module__.startswith(("typer.", "click.")):
                _report_usage(error)
                raise  # exits, aborts, and help in place of arguments
            if type(error).__module__.startswith("onnxruntime."):
                _show_traceback(ctx)
                report(_OUT_OF_MEMORY if _NO_MEMORY.search(str(error)) else _of_engine(error))
                raise typer.Exit(FAILED) from error
            _show_traceback(ctx)
            if _NO_MEMORY.search(str(error)):
                report(_OUT_OF_MEMORY)
                raise typer.Exit(FAILED) from error
            hint = "" if ctx.params.get("debug") else "run again with --debug and report the output"
            report(CosyVoiceError(f"internal error, {type(error).__name__}: {error}", hint))
            raise typer.Exit(FAILED) from error


def _report_usage(error: Any) -> None:
    """Print what Typer says of wrong usage. Raises: typer.Exit if that is what `error` is."""
    name = type(error).__name__
    if getattr(error, "exit_code", None) != UsageError.exit_code or name == "NoArgsIsHelpError":
        return
    command = error.ctx.command_path if error.ctx else "cosyvoice-cpu"
    hint = f"`{command} --help` lists what it takes"
    if name == "NoSuchOption" and not error.possibilities:  # a text like "-5 degrees"
        hint = "what begins with - and is no option goes behind --, at the end"
    report(UsageError(error.format_message(), hint))
    raise typer.Exit(UsageError.exit_code) from None


def of_system(error: OSError) -> CosyVoiceError:
    """What the system refused, in its own words: nothing that a command foresaw, and no bug."""
    reason = error.strerror or str(error)
    what = (
        f"{error.filename}: {reason}" if error.filename else f"reading or writing failed: {reason}"
    )
    return CosyVoiceError(what, "check file and disk; --debug shows what was under way")


def _of_engine(error: Exception) -> CosyVoiceError:
    """What ONNX Runtime says of a graph that loads and then can't be run."""
    return CosyVoiceError(
        f"ONNX Runtime can't run a graph: {first_line(error)}",
        "check the bundle with `cosyvoice-cpu verify`",
    )


def _of_import(error: ImportError) -> CosyVoiceError:
    """A library that is not there, or is there and can't be loaded."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name.partition(".")[0]
        return CosyVoiceError(f"the library {name} is not installed", f"pip install {name}")
    return CosyVoiceError(
        f"a library can't be loaded: {first_line(error)}",
        "it is installed but broken or of another version; install it again",
    )


def report(error: CosyVoiceError) -> None:
    """Print the fact and the remedy, a line each."""
    print(error.lines(), file=sys.stderr)


def report_interrupt() -> None:
    """Say that the user ended the command."""
    print("interrupted", file=sys.stderr)


def _show_traceback(ctx: Any) -> None:
    if ctx.params.get("debug"):
        traceback.print_exc()


def give_up_full_stdout() -> None:
    """Drop what a full stdout still holds: the interpreter would try it again, and fail."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _close_stdout()


def _close_stdout() -> None:
    """Nobody reads stdout any more; the interpreter's last flush must not complain again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
