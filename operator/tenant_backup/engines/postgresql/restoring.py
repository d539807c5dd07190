"""A restore: a new database is built beside the live one, and gets its name when it is complete and checked.

The administrator's connection creates, renames and drops; everything the tenant wrote is loaded as the
temporary login.
"""

from __future__ import annotations

from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines import facts, reaching
from tenant_backup.engines.clearing import cleared
from tenant_backup.engines.marks import noted
from tenant_backup.engines.replacing import refuse_partial
from tenant_backup.engines.seam import Contents

from . import definitions, endpoint, exchange, failures, names, properties, standing
from .administrator import Administrator, administer
from .content import Loaded, Source, load_content
from .endpoint import Endpoint


def restore(job: Restore, contents: Contents) -> dict[str, Any]:
    """Restore one backup, however often; return the facts of stage load. Raises Failure."""
    tenant = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    admin = endpoint.write_passfile(paths.ADMIN, *reaching.administrators_credentials(job.database))
    try:
        catalogue = contents.catalogue()
        server = endpoint.find(job.database, tenant)
        with administer(server, admin, job.uid) as administrator:
            return _restore(job, administrator, server, catalogue, contents)
    except psycopg.Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, "restoring", retriable=True) from error


def _restore(
    job: Restore, admin: Administrator, server: Endpoint, catalogue: dict[str, Any], contents: Contents
) -> dict[str, Any]:
    refuse_partial(job, catalogue)
    definitions.refuse_newer(catalogue)
    committed = standing.decide(_seen(job, admin)) is standing.Next.ANSWER
    contents.begin(committed=committed)
    if committed:
        admin.drop_login()
        return _facts_again(job, admin, catalogue)
    live = admin.properties(job.database.name)
    owner = admin.owner_for(_owners(job, server, catalogue, live))
    clean = cleared(lambda: _clear(job, admin), admin.drop_login, psycopg.Error)
    with admin.speaking_for(owner), clean:
        side = names.side_database(job.target_database, job.uid)
        admin.create_side(side, owner, live if job.replaces and live else catalogue["database"])
        login = admin.create_login(owner, job.deadline_seconds)
        target = server.as_login(login).on(side)
        source = Source(target, owner, server if live else None, catalogue, contents, job)
        loaded = load_content(source)
        with contents.committing(lambda: standing.is_in_place(_seen(job, admin))):
            return _put_in_place(job, admin, source, loaded)


def _seen(job: Restore, admin: Administrator) -> standing.Standing:
    target = job.target_database
    return standing.Standing(
        replace=job.replaces,
        target=target,
        target_exists=admin.exists(target),
        target_is_ours=admin.mark(target) == _restored_mark(job),
        side_exists=admin.exists(names.side_database(target, job.uid)),
        previous_exists=admin.exists(names.previous_database(target, job.uid)),
    )


def _restored_mark(job: Restore) -> str:
    return noted("restored", job.uid)


def _owners(
    job: Restore, server: Endpoint, catalogue: dict[str, Any], live: dict[str, Any] | None
) -> list[str | None]:
    """Who may own the new database, best first. Another tenant's role is nobody here."""
    recorded = catalogue["database"]["owner"] if job.source == job.tenant else None
    return [live["owner"] if live else recorded, server.login.user]


def _clear(job: Restore, admin: Administrator) -> None:
    admin.drop(names.side_database(job.target_database, job.uid))
    admin.drop_login()


def _put_in_place(job: Restore, admin: Administrator, source: Source, loaded: Loaded) -> dict[str, Any]:
    """Rename, with everything a rename would lose: until now only the side database changed."""
    target = job.target_database
    live = admin.properties(target) if job.replaces else None
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
    restored = facts.Restored(loaded.tables, loaded.rows, loaded.bytes)
    kept = {"kept": loaded.kept.kept, "withoutMatch": loaded.kept.without_match}
    told = [*loaded.skipped, *(skipped or [])]
    return facts.of_load(restored, previous, kept, told, constraints_valid=loaded.constraints_valid)


def _facts_again(job: Restore, admin: Administrator, catalogue: dict[str, Any]) -> dict[str, Any]:
    """The facts of a restore that ended in a pod that was lost: what can still be known."""
    previous = names.previous_database(job.target_database, job.uid)
    tables = catalogue["tables"]
    loaded = Loaded(tables=len(tables), rows=sum(table["rows"] for table in tables))
    return _facts(loaded, previous if admin.exists(previous) else None)
