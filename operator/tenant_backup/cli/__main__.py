"""`tenant-backup COMMAND …` and `python -m tenant_backup.cli COMMAND …`."""

from __future__ import annotations

import signal
import sys

import click

from tenant_backup.contract.reasons import Failure

from . import console
from .commands import commands

EXIT_FAILED = 1  # damaged, refused, not found: somebody has to do something
EXIT_USAGE = 2  # click's own
EXIT_RETRY = 75  # may heal by itself: the store or the server cannot be reached
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run one command and end the process with its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # ends as Ctrl-C does: nothing is left behind
    sys.exit(_run())


def _run() -> int:
    try:
        result = commands.main(prog_name="tenant-backup", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.say("interrupted; nothing was left behind")
        return EXIT_INTERRUPTED
    except Failure as failure:
        console.complain(failure, as_json="--json" in sys.argv)
        return EXIT_RETRY if failure.retriable else EXIT_FAILED


if __name__ == "__main__":
    main()
