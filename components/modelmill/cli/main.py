"""The ``modelmill`` command."""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

import modelmill
from modelmill.cli.groups import Groups
from modelmill.core.errors import ModelmillError

app = typer.Typer(
    name="modelmill",
    cls=Groups,
    help="Take a transformer from trained to promoted: fetch, retrain, export, optimize, calibrate-quantize, "
    "evaluate, gate, publish.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(modelmill.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


def _end(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> None:
    """Run the command line; an error that a user can mend is one message and an exit code."""
    if os.getpid() == 1:
        # The kernel has no default action for the first process of a container: unanswered, SIGTERM does nothing, and
        # whoever stops the container or its pod waits out the grace period and kills it.
        signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except ModelmillError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does: nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        sys.stderr.write(f"error: {error.strerror}\n  where: {error.filename or 'this machine'}\n")
        sys.stderr.write("  fix:   make room or give permission there, then run again: no finished step is lost\n")
        sys.exit(5)


if __name__ == "__main__":
    main()
