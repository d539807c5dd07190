"""Container `load`: holds the database's and the administrator's credentials, and sees rows in the clear.

The administrator's connection creates, renames and drops; everything the tenant wrote is loaded as the
temporary login. The new database is built beside the live one and gets its name only when it is complete and
checked.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Job, Restore
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.postgresql import (
    definitions,
    endpoint,
    exchange,
    failures,
    names,
    properties,
    standing,
)
from tenant_backup.engines.postgresql.administrator import Administrator, administer
from tenant_backup.engines.postgresql.endpoint import Endpoint

from . import wire
from .load_content import Loaded, Source, load_content

PEER = "open"
_SHOWN = 8  # skipped entries in the facts; a termination message is small
_SHOWN_LENGTH = 100  # characters of each


def run(job: Job) -> dict[str, Any]:
    """Restore one backup; return {restored, check, previousDatabase, keepLive, skipped}. Raises Failure.

    `restored` is {tables, rows, bytes}, `check` {rowsMatch, constraintsValid}, `keepLive` {kept,
    withoutMatch}.
    """
    assert isinstance(job, Restore)
    tenant = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    admin = _administrator_login(job)
    with contextlib.closing(wire.connect(paths.RUN / paths.OPEN_SOCKET, PEER)) as control:
        try:
            catalogue = _catalogue(control)
            server = endpoint.find(job.database, tenant)
            with administer(server, admin, job.uid) as administrator:
                facts = _restore(job, administrator, server, catalogue)
        except psycopg.Error as error:
            raise failures.of_error(error, Reason.LOAD_FAILED, "restoring", retriable=True) from error
        except OSError as error:  # of the socket
            raise wire.peer_failed(PEER) from error
        # The database is in place: what becomes of `open` now changes nothing.
        with contextlib.suppress(OSError):
            wire.send(control, {"done": True})
        return facts


def _administrator_login(job: Restore) -> endpoint.Login:
    mounted = paths.SECRETS / paths.ADMIN
    if not job.database.admin_secret and not (mounted.is_dir() and any(mounted.iterdir())):
        message = (
            "the Tenant names no adminCredentialsSecretRef, and a restore has to create a database; add it"
        )
        raise Failure(Reason.SECRET_NOT_FOUND, message)
    return endpoint.login_from_secret(paths.ADMIN, job.database.admin_secret)


def _catalogue(control: socket.socket) -> dict[str, Any]:
    wire.send(control, {"get": "catalogue"})
    return dict(wire.Reader(control, PEER).message()["catalogue"])


def _restore(
    job: Restore, admin: Administrator, server: Endpoint, catalogue: dict[str, Any]
) -> dict[str, Any]:
    _refuse_partial(job, catalogue)
    definitions.refuse_unsupported(catalogue, admin.connection.info.server_version)
    if standing.decide(_seen(job, admin)) is standing.Next.ANSWER:
        admin.drop_login()
        return _facts_again(job, admin, catalogue)
    live = admin.properties(job.database.name)
    owner = admin.owner_for(_owners(job, server, catalogue, live))
    with admin.speaking_for(owner), _cleared(job, admin):
        side = names.side_database(job.target_database, job.uid)
        admin.create_side(side, owner, live if _replaces(job) and live else catalogue["database"])
        login = admin.create_login(owner, job.deadline_seconds)
        source = Source(server.as_login(login).on(side), owner, server if live else None, catalogue, job)
        loaded = load_content(source)
        return _put_in_place(job, admin, source, loaded)


def _refuse_partial(job: Restore, catalogue: dict[str, Any]) -> None:
    if catalogue["partial"] and _replaces(job):
        modules = ", ".join(catalogue["modules"])
        message = f"the backup has only the rows of {modules}; use strategy NewDatabase, or a complete backup"
        raise Failure(Reason.PARTIAL_BACKUP, message)


def _replaces(job: Restore) -> bool:
    return job.strategy == "Replace"


def _seen(job: Restore, admin: Administrator) -> standing.Standing:
    target = job.target_database
    return standing.Standing(
        replace=_replaces(job),
        target=target,
        target_exists=admin.exists(target),
        target_is_ours=admin.mark(target) == _restored_mark(job),
        side_exists=admin.exists(names.side_database(target, job.uid)),
        previous_exists=admin.exists(names.previous_database(target, job.uid)),
    )


def _restored_mark(job: Restore) -> str:
    return f"restored {names.handle(job.uid)}"


def _owners(
    job: Restore, server: Endpoint, catalogue: dict[str, Any], live: dict[str, Any] | None
) -> list[str | None]:
    """Who may own the new database, best first. Another tenant's role is nobody here."""
    recorded = catalogue["database"]["owner"] if job.source == job.tenant else None
    return [live["owner"] if live else recorded, server.login.user]


@contextlib.contextmanager
def _cleared(job: Restore, admin: Administrator) -> Iterator[None]:
    """Start without what a killed attempt left, and leave nothing behind when this one fails."""
    _clear(job, admin)
    try:
        yield
    except BaseException:
        _clear_at_the_end(job, admin)
        raise
    admin.drop_login()


def _clear_at_the_end(job: Restore, admin: Administrator) -> None:
    """Clear as well as it goes: the next attempt does it again, and the first error is the one to tell."""
    for _ in range(2):
        try:
            _clear(job, admin)
        except KeyboardInterrupt:
            # All are told to stop, once; a peer that obeyed first may be why we are here.
            continue
        except (Failure, psycopg.Error):
            pass
        return


def _clear(job: Restore, admin: Administrator) -> None:
    admin.drop(names.side_database(job.target_database, job.uid))
    admin.drop_login()


def _put_in_place(job: Restore, admin: Administrator, source: Source, loaded: Loaded) -> dict[str, Any]:
    """Rename, with everything a rename would lose: until now only the side database changed."""
    target = job.target_database
    live = admin.properties(target) if _replaces(job) else None
    if live:
        previous = names.previous_database(target, job.uid)
        side = source.side.database
        statements = [
            *_change_owner(side, source.owner, live["owner"]),
            *exchange.carry_over(side, live, live["comment"]),
            exchange.previous_mark(admin, target, live["comment"]),
        ]
        stays = [f"{name} stays with the previous database" for name in admin.attached(target)]
        exchange.take_place(admin, side, target, previous, statements)
        return _facts(loaded, previous, stays)
    skipped = _carry_recorded(job, source)
    exchange.take_place(admin, source.side.database, target, None, [])
    return _facts(loaded, None, skipped)


def _change_owner(side: str, owner: str, wanted: str) -> list[str]:
    if owner == wanted:
        return []
    return [f"ALTER DATABASE {names.quoted(side)} OWNER TO {names.quoted(wanted)}"]


def _carry_recorded(job: Restore, source: Source) -> list[str]:
    """Apply what the backup recorded, with the owner's rights only: it comes from another place or time."""
    recorded = source.catalogue["database"]
    acl = [
        {**entry, "grantee": source.owner if entry["grantee"] == recorded["owner"] else entry["grantee"]}
        for entry in recorded["acl"]
    ]
    like = {**recorded, "owner": source.owner, "acl": acl}
    comment = properties.with_mark(recorded["comment"], _restored_mark(job))
    with source.side.connect({"role": source.owner}) as connection:
        return exchange.apply_where_allowed(
            connection, exchange.carry_over(source.side.database, like, comment)
        )


def _facts(loaded: Loaded, previous: str | None, skipped: list[str] | None = None) -> dict[str, Any]:
    told = [*loaded.skipped, *(skipped or [])]
    more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
    return {
        "restored": {"tables": loaded.tables, "rows": loaded.rows, "bytes": loaded.bytes},
        "check": {"rowsMatch": True, "constraintsValid": loaded.constraints_valid},
        "previousDatabase": previous,
        "keepLive": {"kept": loaded.kept.kept, "withoutMatch": loaded.kept.without_match},
        "skipped": [text[:_SHOWN_LENGTH] for text in told[:_SHOWN]] + more,
    }


def _facts_again(job: Restore, admin: Administrator, catalogue: dict[str, Any]) -> dict[str, Any]:
    """The facts of a restore that ended in a pod that was lost: what can still be known."""
    previous = names.previous_database(job.target_database, job.uid)
    tables = catalogue["tables"]
    loaded = Loaded(tables=len(tables), rows=sum(table["rows"] for table in tables))
    return _facts(loaded, previous if admin.exists(previous) else None)
