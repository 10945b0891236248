"""The command line: one thin file per command.

A command parses, calls the library and prints; results go to stdout, everything else to stderr.
To add one, write its file and register it below.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from cosyvoice_cpu.cli import (
    bench,
    cache_speaker,
    doctor,
    export,
    info,
    profile,
    quantize,
    serve,
    synth,
    tune,
    verify,
)
from cosyvoice_cpu.cli.failures import (
    FAILED,
    INTERRUPTED,
    FailureLines,
    give_up_full_stdout,
    of_system,
    report,
    report_interrupt,
)
from cosyvoice_cpu.cli.options import ENVIRONMENT_PREFIX

app = typer.Typer(
    name="cosyvoice-cpu",
    cls=FailureLines,
    help=(
        "CosyVoice speech synthesis on a CPU.\n\n"
        'Example: cosyvoice-cpu synth "Hello" --output hello.wav'
    ),
    epilog=(
        "Exit codes: 0 done, 1 the work failed, 2 wrong usage, 3 a quality gate refused,"
        " 130 interrupted."
    ),
    context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX},
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text: the same on a terminal, in a pipe and in docs/cli.md
    pretty_exceptions_enable=False,
)

app.command("export")(export.export)
app.command("quantize")(quantize.quantize)
app.command("cache-speaker")(cache_speaker.cache_speaker)
app.command("synth")(synth.synth)
app.command("serve")(serve.serve)
app.command("verify")(verify.verify)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("profile")(profile.profile)
app.command("tune")(tune.tune)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cosyvoice_cpu._version import __version__

        typer.echo(f"cosyvoice-cpu {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            is_eager=True,
            callback=_print_version,
            allow_from_autoenv=False,
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Log what happens, and show the traceback of an error. Goes anywhere in the line.",
        ),
    ] = False,
) -> None:
    if debug:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line; the entry point of `cosyvoice-cpu` and `python -m cosyvoice_cpu`."""
    _fill_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Transcripts and file names of any script, whatever the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="cosyvoice-cpu")
    except KeyboardInterrupt:  # between the commands' own handling and the interpreter's end
        report_interrupt()
        sys.exit(INTERRUPTED)
    except OSError as error:  # `--help` on a full disk, say: printed before there is a command
        report(of_system(error))
        give_up_full_stdout()
        sys.exit(FAILED)


def _fill_closed_streams() -> None:
    """Make up for streams that a service or `>&-` closed before the start.

    Python has None for them. Their numbers are taken, or the next file that is opened would get
    them, with whatever native code prints inside. stdout stays None: what is meant to read audio
    from it must not believe that it got some.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
    if not sys.stdin:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if not sys.stderr:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
