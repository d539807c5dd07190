"""Run the operator: `python -m tenant_backup.controllers`, configured by TENANT_BACKUP_… variables."""

from __future__ import annotations

import asyncio
import os
import sys

from tenant_backup.cluster import ClusterError
from tenant_backup.cluster.api_server import ApiServer
from tenant_backup.telemetry.logs import configure

from .metrics import CannotServe
from .operator import run
from .settings import Configuration


def main() -> int:
    """Run until told to stop; return the exit code."""
    try:
        configuration = Configuration.from_environment(os.environ)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    configure(configuration.log_level)
    try:
        asyncio.run(run(configuration, ApiServer.connect))
    except (ClusterError, CannotServe) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
