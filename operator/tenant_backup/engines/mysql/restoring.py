"""A restore: a database is built, under its own name, or beside the live one that it then replaces.

Until it is complete and checked its comment says `restoring`, only the temporary login has rights on it, and
a failed or killed attempt's is dropped. Rows are loaded as the temporary login; views, routines, triggers
and events are created by the tenant's own login, whose they become: nothing of theirs runs meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from MySQLdb import Error

from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import facts, reaching
from tenant_backup.engines.clearing import cleared
from tenant_backup.engines.marks import noted
from tenant_backup.engines.replacing import refuse_partial
from tenant_backup.engines.seam import Contents
from tenant_backup.engines.selection import shown

from . import catalogue as catalogues
from . import definitions, endpoint, exchange, excluded, failures, grants, names, session, versions
from .administrator import Administrator, administer
from .content import Content, load_rows
from .definitions import Definition
from .endpoint import Connection, Endpoint, Login
from .excluded import Kept


@dataclass(frozen=True)
class Owner:
    """The tenant's own account: what is code in the database becomes its."""

    server: Endpoint
    name: str  # user@host, as CURRENT_USER() says it
    has_rights: bool  # on the database that the restore is for

    @property
    def account(self) -> str:
        """The account as statements name it."""
        return names.account(self.name)


def restore(job: Restore, contents: Contents) -> dict[str, Any]:
    """Restore one backup, however often; return the facts of stage load. Raises Failure."""
    tenant = Login(*reaching.credentials(paths.DATABASE, job.database.secret))
    admin = Login(*reaching.administrators_credentials(job.database))
    try:
        catalogue = contents.catalogue()
        server = endpoint.find(job.database, tenant)
        with administer(server, admin, job.uid) as administrator:
            return _restore(job, administrator, server, catalogue, contents)
    except Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, "restoring", retriable=True) from error


def _restore(
    job: Restore, admin: Administrator, server: Endpoint, catalogue: dict[str, Any], contents: Contents
) -> dict[str, Any]:
    refuse_partial(job, catalogue)
    excluded.refuse_history(catalogue["tables"], job.exclude_columns)
    _refuse_unsupported(catalogue, admin.connection)
    target, like = job.target_database, catalogue["database"]
    grants.refuse_weak(admin.connection, target, job.uid, exchanges=job.replaces)
    _settle(job, admin)
    committed = _is_committed(job, admin)
    contents.begin(committed=committed)
    if committed:
        replaced = admin.mark(_previous(job)) == noted("previous", job.uid)
        return _facts_again(admin, catalogue, _previous(job) if replaced else None)
    _refuse_taken(job, admin)
    if job.replaces:
        exchange.movable(admin, target)
    found = _definitions(contents)
    owner = _owner(server, target, has_code=any(not definitions.holds_rows(item) for item in found))
    with cleared(lambda: _clear(job, admin, owner), admin.drop_login, Error):
        built = _built(job)
        admin.create(built, like, _unfinished(job))
        login = admin.create_login(built)
        content = Content(server.as_login(login), built, catalogue, contents, job)
        loaded = load_rows(content, [item for item in found if definitions.holds_rows(item)])
        with _given(admin, built, owner.account, for_good=not job.replaces):
            told, kept = _finish(job, owner, found, content)
            if not job.replaces:
                with contents.committing(lambda: _is_committed(job, admin)):
                    # From here on it is the restored database: a re-run answers, and nobody drops it.
                    admin.note(target, like["comment"], noted("restored", job.uid))
        previous, lost = _put_in_place(job, admin, owner, like, contents) if job.replaces else (None, [])
    return facts.of_load(loaded, previous, kept.facts(), [*_loose(catalogue), *told, *lost])


def _is_committed(job: Restore, admin: Administrator) -> bool:
    marks = admin.mark(job.target_database), admin.mark(_previous(job))
    return marks[0] == noted("restored", job.uid) or marks[1] == noted("previous", job.uid)


def _built(job: Restore) -> str:
    target = job.target_database
    return names.side_database(target, job.uid) if job.replaces else target


def _previous(job: Restore) -> str:
    return names.previous_database(job.target_database, job.uid)


def _unfinished(job: Restore) -> str:
    return noted("restoring", job.uid)


def _settle(job: Restore, admin: Administrator) -> None:
    """Finish or take back what a killed attempt, of any restore, left: the tenant is locked out till then."""
    with admin.hold(job.database.name):
        exchange.settle(admin, job.database.name)


def _put_in_place(
    job: Restore, admin: Administrator, owner: Owner, like: dict[str, Any], contents: Contents
) -> tuple[str | None, list[str]]:
    """Replace the live database; return the previous one, and what could not be created again."""
    live = job.target_database
    if not owner.has_rights:
        admin.give(live, owner.account)  # it was lost with its rights

    def is_committed() -> bool:
        _settle(job, admin)
        return _is_committed(job, admin)

    with contents.committing(is_committed), admin.hold(live):
        exchange.settle(admin, live)
        return exchange.replace(admin, live, like)


def _refuse_taken(job: Restore, admin: Administrator) -> None:
    for name in (_built(job), _previous(job)) if job.replaces else (job.target_database,):
        if admin.mark(name) not in {None, _unfinished(job)}:
            advice = "" if job.replaces else "choose another name in spec.target.database, or "
            raise Failure(Reason.NAME_TAKEN, f'database "{name}" exists; {advice}drop it')


def _refuse_unsupported(catalogue: dict[str, Any], server: Connection) -> None:
    if catalogue["format"] > catalogues.FORMAT:
        message = f"the backup's catalogue has format {catalogue['format']}; use a newer runner image"
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
    source = catalogue["server"]["version"]
    if versions.major(server.version) < versions.major(source):
        message = (
            f"a backup of {server.dialect.engine} {source} cannot be restored to version {server.version}"
        )
        raise Failure(
            Reason.UNSUPPORTED_CONTENT, f"{message}; restore to a server of the same version or newer"
        )
    without = [table["name"] for table in catalogue["tables"] if not table["primaryKey"]]
    if without and server.scalar(server.dialect.wants_keys) == "1":
        message = f"the server lets no table be without a primary key, and the backup has {shown(without)}"
        advice = "set sql_generate_invisible_primary_key and sql_require_primary_key to OFF for the restore"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; {advice}")


def _definitions(contents: Contents) -> list[Definition]:
    with contents.opened() as stored:
        blob = b"".join(bytes(block) for block in stored.blocks(definitions.SEGMENT))
        stored.verdict()
    return definitions.from_blob(blob)


def _owner(server: Endpoint, target: str, *, has_code: bool) -> Owner:
    """Who the database is for. Raises PERMISSION_DENIED where its code would run as an administrator."""
    with server.connect("", session.for_reading) as connection:
        rights = grants.of_session(connection, target)
        name = str(connection.scalar("SELECT CURRENT_USER()"))
    if has_code and rights.beyond:
        message = (
            f"{rights.account} has {', '.join(rights.beyond[:3])} on the whole server, and what a tenant"
            " wrote must not run so; name an ordinary account (Secret of credentialsSecretRef, --owner)"
        )
        raise Failure(Reason.PERMISSION_DENIED, message)
    return Owner(server, name, bool(rights.here - {"USAGE", "GRANT OPTION"}))


@contextlib.contextmanager
def _given(admin: Administrator, target: str, account: str, *, for_good: bool) -> Iterator[None]:
    """Let the tenant's account into the new database; rights on one that failed are taken back."""
    admin.give(target, account)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Failure, Error):
            admin.take(target, account)
        raise
    if not for_good:
        admin.take(target, account)


def _clear(job: Restore, admin: Administrator, owner: Owner) -> None:
    """Drop what is marked as this restore's unfinished work, and its login."""
    _settle(job, admin)
    admin.drop_login()
    if admin.mark(_built(job)) == _unfinished(job):
        admin.drop(_built(job))
    if job.replaces:
        admin.take(_built(job), owner.account)


def _finish(job: Restore, owner: Owner, found: list[Definition], content: Content) -> tuple[list[str], Kept]:
    """Keep what the live database has, then create what is code, all as the tenant's own login."""
    code = [item for item in found if not definitions.holds_rows(item)]
    # Nothing runs in a database that is about to go elsewhere.
    dialect = owner.server.dialect
    created = [definitions.parked(item, dialect) for item in code] if job.replaces else code
    with owner.server.connect(_built(job), session.for_loading) as connection:
        kept = content.keep_live(connection)
        told = definitions.create_code(connection, created)
    others = definitions.others(code, owner.name).items()
    told += [f"{count} objects of {name} now belong to {owner.name}" for name, count in others]
    return told, kept


def _loose(catalogue: dict[str, Any]) -> list[str]:
    return [
        f"FOREIGN KEY {key['table']}.{key['name']}: rows that it points to were left out"
        for key in catalogue["looseForeignKeys"]
    ]


def _facts_again(admin: Administrator, catalogue: dict[str, Any], previous: str | None) -> dict[str, Any]:
    """The facts of a restore that ended in a pod that was lost: what can still be known."""
    admin.drop_login()
    tables = catalogue["tables"]
    restored = facts.Restored(len(tables), sum(table["rows"] for table in tables), 0)
    return facts.of_load(restored, previous, Kept().facts(), [])
