"""The `greenroom` command: one module per command or family of commands.

What a command needs (torch, httpx, the store) is imported inside its function, so that `greenroom --help` is quick and
`greenroom submit` works on a machine that could not render.
"""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.batch import batch
from app.cli.config_cmd import config
from app.cli.demo import demo
from app.cli.doctor import doctor
from app.cli.drill.command import drill
from app.cli.render import render
from app.cli.serve import serve
from app.cli.submit import derive, submit
from app.cli.tasks import cancel, task, tasks

app = typer.Typer(
    name="greenroom",
    help="A portrait and a voice go in, a talking video comes out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"greenroom {version('greenroom')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A portrait and a voice go in, a talking video comes out."""


app.command()(serve)
app.command()(render)
app.command()(submit)
app.command()(derive)
app.command()(batch)
app.command()(tasks)
app.command()(task)
app.command()(cancel)
app.command()(config)
app.command()(doctor)
app.command()(drill)
app.command()(demo)

__all__ = ["app"]
