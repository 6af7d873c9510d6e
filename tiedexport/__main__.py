"""Entry point of the command line: every way out has its documented exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import NoReturn

import click

from tiedexport import errors
from tiedexport.cli import cli

_INTERRUPTED = 130  # 128 + SIGINT, as shells count
_READER_GONE = 141  # 128 + SIGPIPE: what `| head` makes of every other tool


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line on `arguments`, by default the process's own, and exit."""
    # numpy's pool would spin beside those of torch and ONNX Runtime and starve them, and itself:
    # on two shared cores a product of matrices then takes 40 times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # systemd and `docker stop` ask with SIGTERM: leave as cleanly as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str] | None) -> int:
    try:
        result = cli.main(arguments, prog_name="tiedexport", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return errors.EXIT_USAGE
    except errors.TiedExportError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; whatever was not finished is as it was before", err=True)
        return _INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click and rich leave a closed pipe by the latter
        _abandon_standard_output()
        return _READER_GONE
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tiedexport"):
            return _internal_error()
        click.echo(f"error: the package {error.name} is not installed", err=True)
        click.echo("  next:     pip install 'tiedexport[train]'", err=True)
        return errors.EXIT_MISSING
    except OSError as error:
        # Only standard output has no name here: whoever writes a file names it.
        click.echo(f"error: {error.strerror}: {error.filename or 'standard output'}", err=True)
        if error.filename is None:
            _abandon_standard_output()
        return errors.EXIT_BAD_INPUT
    except Exception:
        return _internal_error()
    return result if isinstance(result, int) else errors.EXIT_DONE


def _abandon_standard_output() -> None:
    """Send what is still buffered nowhere, or the interpreter's last flush would fail as well."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _internal_error() -> int:
    traceback.print_exc()
    click.echo("This is a fault of tiedexport: please report the lines above.", err=True)
    return errors.EXIT_INTERNAL


if __name__ == "__main__":
    main()
