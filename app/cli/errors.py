"""How a command fails: a line with code and message, a line with a hint, an exit code. A stack trace only on demand."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

EXIT_FAILED = 1
EXIT_INPUT = 2
"""Something the caller gave (a file, an option, a setting) cannot be used; a wrong command line exits so too."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


class CommandError(Exception):
    """A failure that the person at the terminal should read: `code`, `message`, `hint`."""

    def __init__(self, code: str, message: str, hint: str = "", *, exit_code: int = EXIT_FAILED) -> None:
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        super().__init__(message)


def exit_code_for(code: str) -> int:
    """The exit code of a failure code: 2 for the caller's own input, else 1."""
    return EXIT_INPUT if code.startswith("INPUT_") else EXIT_FAILED


def _validation_lines(error: Exception) -> str:
    from pydantic import ValidationError

    assert isinstance(error, ValidationError)
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors())


_SET_AT = re.compile(r"(\w+) \(from (.*?)\): ")
"""How `ConfigError` names a setting and where it was set."""


def _config_hint(message: str) -> str:
    """Where to correct it. Not `greenroom config`: that reads the same settings and fails in the same way."""
    places = [f"`{name}` {_place(origin)}" for name, origin in _SET_AT.findall(message)]
    if places:
        return f"Correct {', '.join(places)}, or take it out to have the default."
    return "Name a TOML file of settings with --config or GREENROOM_CONFIG; greenroom.toml is read where neither is."


def _place(origin: str) -> str:
    if origin == "flag":
        return "on the command line"
    return f"in the variable {origin}" if origin.startswith("GREENROOM_") else f"in the file {origin}"


def as_command_error(error: Exception) -> CommandError:
    """Any exception in the words of this module. Unknown ones become INTERNAL."""
    from pydantic import ValidationError

    from app.config import ConfigError
    from app.render.registry import UnknownRenderer
    from app.retry.taxonomy import CodedError

    if isinstance(error, CommandError):
        return error
    if isinstance(error, CodedError):
        failure = error.failure
        return CommandError(failure.code, failure.message, failure.hint, exit_code=exit_code_for(failure.code))
    if isinstance(error, ConfigError):
        return CommandError("CONFIG_INVALID", str(error), _config_hint(str(error)), exit_code=EXIT_INPUT)
    if isinstance(error, UnknownRenderer):
        return CommandError("RENDERER_UNKNOWN", str(error.args[0]), exit_code=EXIT_INPUT)
    if isinstance(error, ValidationError):
        return CommandError("OPTION_INVALID", _validation_lines(error), "See `--help`.", exit_code=EXIT_INPUT)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return CommandError("INTERNAL", text, "Run the command again with --debug to see where it happened.")


def say(error: CommandError) -> None:
    """Write code, message and hint to stderr."""
    typer.secho(f"error {error.code}: {error.message}", fg="red", err=True)
    if error.hint:
        typer.echo(f"hint: {error.hint}", err=True)


@contextmanager
def shown(debug: bool) -> Iterator[None]:
    """Run a command's body: failures are written to stderr and become its exit code; with `debug` they pass through."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if debug:
            raise
        failure = as_command_error(error)
        say(failure)
        raise typer.Exit(failure.exit_code) from None


@contextmanager
def ending_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C does, so that a service of the command's own never outlives it."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
