"""Options of a command from a TOML file, below what the command line and the environment say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_LARGEST_BYTES = 1 << 16


def read_options(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of the file `path` the defaults of the command that `context` is about.

    Keys are names of options, with `-` or `_`. Returns `path`.
    Raises: UsageError for a file that can't be read or is no TOML, for unknown keys, and for values
    that no option takes.
    """
    if path is None:
        return None
    options = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.param_type_name == "option" and parameter.name not in ("config", "help")
    }
    values: dict[str, Any] = {}
    for key, value in _table(path).items():
        name = key.replace("-", "_")
        if name not in options:
            known = ", ".join(sorted(str(option).replace("_", "-") for option in options))
            raise _refusal(path, f"there is no option {key[:100]!r}", f"options: {known}")
        if name in values:
            raise _refusal(path, f"{key!r} is given twice", "leave one of them away")
        if not isinstance(value, str | int | float):
            raise _refusal(
                path, f"{key} is neither text nor a number nor true or false", "correct it"
            )
        values[name] = value
    context.default_map = {**(context.default_map or {}), **values}
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Take options from a TOML file, as in `queue = 4`; those given here win.",
        is_eager=True,  # before the options that it is the default of
        callback=read_options,
    ),
]


def _table(path: Path) -> dict[str, Any]:
    import msgspec

    hint = "give a readable TOML file with a line for each option, as in: port = 8000"
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
        if len(text) > _LARGEST_BYTES:
            raise _refusal(path, f"it is larger than {_LARGEST_BYTES >> 10} KB", hint)
        return msgspec.toml.decode(text, type=dict[str, Any])
    except OSError as error:
        raise _refusal(path, error.strerror or str(error), hint) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(path, f"it is no TOML: {error}", hint) from error


def _refusal(path: Path, what: str, hint: str) -> Exception:
    from cosyvoice_cpu.errors import UsageError

    return UsageError(f"{path}: {what}", hint)
