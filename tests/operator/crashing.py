"""The operator as tests start it: it notes every write to the API, and can kill itself at one of them.

CRASH_AT is `before:N` or `after:N`: SIGKILL before or after the N-th write of this process; or `after:N:ENDING`,
which counts creations below paths that end so. WRITES names a file that gets one line per write. AHEAD is by how
many seconds its clock is. Everything else is the operator users run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tenant_backup.cluster import Cluster
from tenant_backup.cluster.api_server import ApiServer
from tenant_backup.controllers.look import Look
from tenant_backup.controllers.operator import run
from tenant_backup.controllers.settings import Configuration
from tenant_backup.telemetry.logs import configure

WHEN, NUMBER, *ENDING = os.environ.get("CRASH_AT", "never:-1").split(":")
WRITES = Path(os.environ["WRITES"])
AHEAD = timedelta(seconds=float(os.environ.get("AHEAD", "0")))


class CrashingApiServer(ApiServer):
    """The real API server, and a process that may die beside it."""

    count = 0

    async def _send(self, method: str, path: str, *rest: Any) -> bytes:
        changes_nothing = method == "GET" or (rest and ("dryRun", "All") in (rest[0] or ()))
        if changes_nothing:
            return await super()._send(method, path, *rest)
        counts = not ENDING or (method == "POST" and path.endswith(ENDING[0]))
        CrashingApiServer.count += counts
        number = CrashingApiServer.count if counts else 0
        self._die("before", number)
        with WRITES.open("a") as log:  # noqa: ASYNC230 - the line must be there before the request
            log.write(f"{method} {path}\n")
        try:
            return await super()._send(method, path, *rest)
        finally:
            self._die("after", number)

    @staticmethod
    def _die(when: str, number: int) -> None:
        if (when, number) == (WHEN, int(NUMBER)):
            os.kill(os.getpid(), signal.SIGKILL)


def now() -> datetime:
    """The time of this operator's decisions."""
    return datetime.now(UTC) + AHEAD


async def connect() -> Cluster:
    """Connect as the operator does."""
    return await CrashingApiServer.connect()


if __name__ == "__main__":
    Look.now = staticmethod(now)  # type: ignore[method-assign]
    configuration = Configuration.from_environment(os.environ)
    configure(configuration.log_level)
    sys.exit(asyncio.run(run(configuration, connect)))
