"""After a Replace: switch back to the previous database, or drop it, with administrator credentials only."""

from __future__ import annotations

from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Swap
from tenant_backup.contract.reasons import Reason

from . import endpoint, exchange, failures, names
from .administrator import Administrator, administer


def carry_out(job: Swap) -> dict[str, Any]:
    """Carry out the action, however often; return {action, previousDatabase}. Raises Failure."""
    login = endpoint.login_from_secret(paths.ADMIN, job.database.admin_secret)
    server = endpoint.find(job.database, login)
    try:
        with administer(server, login, job.uid) as administrator:
            return _undo(job, administrator) if job.action == "Undo" else _drop_previous(job, administrator)
    except psycopg.Error as error:
        raise failures.of_error(
            error, Reason.LOAD_FAILED, "exchanging the databases", retriable=True
        ) from error


def _undo(job: Swap, admin: Administrator) -> dict[str, Any]:
    exchange.switch_back(admin, job.target_database)
    return {"action": job.action, "previousDatabase": names.previous_database(job.target_database, job.uid)}


def _drop_previous(job: Swap, admin: Administrator) -> dict[str, Any]:
    admin.drop(names.previous_database(job.target_database, job.uid))
    return {"action": job.action, "previousDatabase": None}
