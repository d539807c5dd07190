"""Run one stage: its name is the argument, its job is in the environment, its answer goes to the kubelet.

The stages of a volume have its name as a second argument: each volume has a container of its own.

Imports only the stage asked for: start-up time is on the path of every small backup.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import ExitCode, Failure, Reason
from tenant_backup.contract.results import Result, encode

from .wire import failed_flag, hold_life

STAGES = (
    "prepare",
    "dump",
    "gather",
    "archive",
    "upload",
    "download",
    "open",
    "load",
    "place",
    "swap",
    "switch",
    "preflight",
    "survey",
    "probe",
    "delete",
    "collect",
    "catalogue",
    "inspect",
    "examine",
)
OF_A_VOLUME = ("gather", "place", "switch", "survey")


def main(arguments: list[str]) -> int:
    """Run the stage named by the first argument; return its exit code."""
    if not arguments or arguments[0] not in STAGES or len(arguments) != 1 + (arguments[0] in OF_A_VOLUME):
        print(f"usage: python -m tenant_backup.stages {{{'|'.join(STAGES)}}} [VOLUME]", file=sys.stderr)
        print(f"The job is read as JSON from ${jobs.ENVIRONMENT_VARIABLE}.", file=sys.stderr)
        return ExitCode.PERMANENT
    stage = "-".join(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    # What imported modules make lasts: to look through it again and again is a seventh of the start.
    gc.set_threshold(50_000)
    if paths.RUN.is_dir():
        hold_life(paths.RUN, stage)
    result, code = _run(stage, *arguments)
    if code and paths.RUN.is_dir():
        failed_flag(paths.RUN, stage).write_bytes(encode(result))
    _answer(paths.TERMINATION_MESSAGE, encode(result))
    # Threads blocked on a dead peer must not keep the process: everything that matters is written.
    sys.stdout.flush()
    os._exit(code)


def _run(stage: str, module: str, *volume: str) -> tuple[Result, int]:
    try:
        job = jobs.from_json(os.environ.get(jobs.ENVIRONMENT_VARIABLE, ""))
        facts = importlib.import_module(f"tenant_backup.stages.{module}").run(job, *volume)
        return Result(True, facts), ExitCode.SUCCESS
    except Failure as failure:
        print(f"{stage}: {failure.reason}: {failure.message}", file=sys.stderr)
        return Result.of(failure), failure.exit_code
    except Exception as error:  # noqa: BLE001 - the last door: a bug must still answer the kubelet
        traceback.print_exc()
        message = f"{stage} met an unexpected {type(error).__name__}; its log has the details"
        return Result(False, {}, Reason.INTERNAL_ERROR, message, True), ExitCode.BUG


def _answer(target: Path, text: bytes) -> None:
    if target.exists():
        target.write_bytes(text)


class _Stopped(Failure, KeyboardInterrupt):
    """A stop order. psycopg cancels a running statement for a KeyboardInterrupt: the session stays usable.

    So what was begun in a server can be cleared away, and a CREATE DATABASE does not outlive us.
    """


def _terminate(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what we clear away now, we finish
    raise _Stopped(Reason.CANCELLED, "the container was asked to stop", retriable=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
