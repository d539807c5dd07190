"""The operator as tests start it: it notes every write to the API, and can kill itself at one of them.

CRASH_AT is `before:N` or `after:N`: SIGKILL before or after the N-th write of this process; or `after:N:ENDING`,
which counts writes to paths that end so. WRITES names a file that gets one line per write. AHEAD is by how
many seconds its clock is. Everything else is the operator users run.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes.aio.config import kube_config

from tenant_backup.cluster import Cluster
from tenant_backup.cluster.api_server import ApiServer
from tenant_backup.controllers.look import Look
from tenant_backup.controllers.operator import run
from tenant_backup.controllers.settings import Configuration
from tenant_backup.telemetry.logs import configure


class CrashingApiServer(ApiServer):
    """The real API server, and a process that may die beside it."""

    count = 0

    async def _send(self, method: str, path: str, *rest: Any) -> bytes:
        changes_nothing = method == "GET" or (rest and ("dryRun", "All") in (rest[0] or ()))
        if changes_nothing:
            return await super()._send(method, path, *rest)
        when, at, *ending = os.environ["CRASH_AT"].split(":")
        counts = not ending or path.endswith(ending[0])
        CrashingApiServer.count += counts
        number = CrashingApiServer.count if counts else 0
        _die((when, int(at)) == ("before", number))
        with Path(os.environ["WRITES"]).open("a") as log:  # noqa: ASYNC230 - must be there before the request
            log.write(f"{method} {path}\n")
        try:
            return await super()._send(method, path, *rest)
        finally:
            _die((when, int(at)) == ("after", number))


def _die(it_is_time: bool) -> None:
    if it_is_time:
        os.kill(os.getpid(), signal.SIGKILL)


def now() -> datetime:
    """The time of this operator's decisions."""
    return datetime.now(UTC) + timedelta(seconds=float(os.environ["AHEAD"]))


async def connect() -> Cluster:
    """Connect as the operator does."""
    return await CrashingApiServer.connect()


def main() -> None:
    """Run the operator until it is told to stop."""
    Look.now = staticmethod(now)  # type: ignore[method-assign]
    configuration = Configuration.from_environment(os.environ)
    configure(configuration.log_level)
    asyncio.run(run(configuration, connect))


def forked(environment: Mapping[str, str], log: str) -> None:
    """Be a process of one's own after a fork: with this environment, and this file for what is said."""
    os.environ.clear()
    os.environ.update(environment)
    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = environment["KUBECONFIG"]  # read when it was imported
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    main()


if __name__ == "__main__":
    main()
