"""After a Replace: switch back to the previous database, or drop it, with administrator credentials only."""

from __future__ import annotations

from typing import Any

from MySQLdb import Error

from tenant_backup.contract import paths
from tenant_backup.contract.job import Swap
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines import reaching
from tenant_backup.engines.clearing import cleared
from tenant_backup.engines.marks import noted
from tenant_backup.engines.replacing import nothing_kept

from . import endpoint, exchange, failures, grants, moving, names
from .administrator import Administrator, administer
from .endpoint import Login


def carry_out(job: Swap) -> dict[str, Any]:
    """Carry out the action, however often; return {action, previousDatabase}. Raises Failure."""
    login = Login(*reaching.credentials(paths.ADMIN, job.database.admin_secret))
    live = job.target_database
    try:
        with administer(endpoint.find(job.database, login), login, job.uid) as admin, admin.hold(live):
            grants.refuse_weak(admin.connection, live, job.uid, exchanges=True)
            # What an attempt left is settled first, and after a failure.
            with cleared(lambda: exchange.settle(admin, live), _nothing, Error):
                kept = names.previous_database(live, job.uid)
                _undo(admin, live, kept) if job.action == "Undo" else _drop(admin, kept)
    except Error as error:
        raise failures.of_error(
            error, Reason.LOAD_FAILED, "exchanging the databases", retriable=True
        ) from error
    return {"action": job.action, "previousDatabase": kept if job.action == "Undo" else None}


def _undo(admin: Administrator, live: str, kept: str) -> None:
    """A second call does nothing. Raises DATABASE_NOT_FOUND when nothing is kept."""
    mark = admin.mark(kept)
    if mark == noted("undone", admin.uid):
        return
    if mark != noted("previous", admin.uid):
        raise nothing_kept(kept)
    exchange.switch_back(admin, live)


def _drop(admin: Administrator, kept: str) -> None:
    if admin.mark(kept) is not None:
        moving.drop_code(admin.connection, kept)  # a database that is dropped leaves the rights on routines
        admin.drop(kept)


def _nothing() -> None:
    """Nothing is left to do after it."""
