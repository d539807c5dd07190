"""A restore into a new database: MariaDB has no way to rename one, so it is built under its own name.

Until it is complete and checked its comment says `restoring`, only the temporary login has rights on it, and
a failed or killed attempt's is dropped. Rows are loaded as the temporary login; views, routines, triggers
and events are created by the tenant's own login, whose they become: nothing of theirs runs meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from MySQLdb import Error

from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import facts, reaching
from tenant_backup.engines.clearing import cleared
from tenant_backup.engines.handles import handle
from tenant_backup.engines.seam import Contents

from . import catalogue as catalogues
from . import definitions, endpoint, failures, grants, names, session, versions
from .administrator import Administrator, administer
from .content import Content, load_rows
from .definitions import Definition
from .endpoint import Endpoint, Login
from .excluded import Kept


@dataclass(frozen=True)
class Owner:
    """The tenant's own account: what is code in the database becomes its."""

    server: Endpoint
    name: str  # user@host, as CURRENT_USER() says it


def restore(job: Restore, contents: Contents) -> dict[str, Any]:
    """Restore one backup, however often; return the facts of stage load. Raises Failure."""
    tenant = Login(*reaching.credentials(paths.DATABASE, job.database.secret))
    admin = Login(*reaching.administrators_credentials(job.database))
    if job.strategy == "Replace":
        message = (
            "strategy Replace is not there for MariaDB yet; use NewDatabase and point the application to it"
        )
        raise Failure(Reason.INVALID_SPEC, message)
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
    _refuse_unsupported(catalogue, admin.connection.version)
    target = job.target_database
    mark = admin.mark(target)
    if mark == noted("restored", job):
        admin.drop_login()
        return _facts_again(catalogue)
    if mark is not None and mark != noted("restoring", job):
        message = f'database "{target}" exists; choose another name in spec.target.database, or drop it'
        raise Failure(Reason.NAME_TAKEN, message)
    found = _definitions(contents)
    owner = _owner(server, target, has_code=any(not definitions.holds_rows(item) for item in found))
    with cleared(lambda: _clear(job, admin), admin.drop_login, Error):
        admin.create(target, catalogue["database"], noted("restoring", job))
        login = admin.create_login(target)
        content = Content(server.as_login(login), target, catalogue, contents, job)
        loaded = load_rows(content, [item for item in found if definitions.holds_rows(item)])
        with _given(admin, target, names.account(owner.name)):
            told, kept = _finish(job, owner, found, content)
            # From here on it is the restored database: a re-run answers, and nobody drops it any more.
            admin.note(target, catalogue["database"]["comment"], noted("restored", job))
    return facts.of_load(loaded, None, kept.facts(), [*_loose(catalogue), *told])


def _refuse_unsupported(catalogue: dict[str, Any], server: str) -> None:
    if catalogue["format"] > catalogues.FORMAT:
        message = f"the backup's catalogue has format {catalogue['format']}; use a newer runner image"
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
    source = catalogue["server"]["version"]
    if versions.major(server) < versions.major(source):
        message = f"a backup of MariaDB {source} cannot be restored to version {server}"
        raise Failure(
            Reason.UNSUPPORTED_CONTENT, f"{message}; restore to a server of the same version or newer"
        )


def noted(word: Literal["restoring", "restored"], job: Restore) -> str:
    """Return what stands in the comment of a database that this restore began or finished."""
    return f"{word} {handle(job.uid)}"


def _definitions(contents: Contents) -> list[Definition]:
    with contents.opened() as stored:
        blob = b"".join(bytes(block) for block in stored.blocks(definitions.SEGMENT))
        stored.verdict()
    return definitions.from_blob(blob)


def _owner(server: Endpoint, target: str, *, has_code: bool) -> Owner:
    """Who the database is for. Raises PERMISSION_DENIED where its code would run as an administrator."""
    with server.connect("", session.for_reading()) as connection:
        rights = grants.of_session(connection, target)
        name = str(connection.scalar("SELECT CURRENT_USER()"))
    if has_code and rights.beyond:
        message = (
            f"{rights.account} has {', '.join(rights.beyond[:3])} on the whole server, and what a tenant"
            " wrote must not run so; name an ordinary account (Secret of credentialsSecretRef, --owner)"
        )
        raise Failure(Reason.PERMISSION_DENIED, message)
    return Owner(server, name)


@contextlib.contextmanager
def _given(admin: Administrator, target: str, account: str) -> Iterator[None]:
    """Let the tenant's account into the new database; rights on one that failed are taken back."""
    admin.give(target, account)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Failure, Error):
            admin.take(target, account)
        raise


def _clear(job: Restore, admin: Administrator) -> None:
    """Drop what is marked as this restore's unfinished work, and its login."""
    admin.drop_login()
    if admin.mark(job.target_database) == noted("restoring", job):
        admin.drop(job.target_database)


def _finish(job: Restore, owner: Owner, found: list[Definition], content: Content) -> tuple[list[str], Kept]:
    """Keep what the live database has, then create what is code, all as the tenant's own login."""
    code = [item for item in found if not definitions.holds_rows(item)]
    with owner.server.connect(job.target_database, session.for_loading()) as connection:
        kept = content.keep_live(connection)
        told = definitions.create_code(connection, code)
    others = definitions.others(code, owner.name).items()
    told += [f"{count} objects of {name} now belong to {owner.name}" for name, count in others]
    return told, kept


def _loose(catalogue: dict[str, Any]) -> list[str]:
    return [
        f"FOREIGN KEY {key['table']}.{key['name']}: rows that it points to were left out"
        for key in catalogue["looseForeignKeys"]
    ]


def _facts_again(catalogue: dict[str, Any]) -> dict[str, Any]:
    """The facts of a restore that ended in a pod that was lost: what can still be known."""
    tables = catalogue["tables"]
    restored = facts.Restored(len(tables), sum(table["rows"] for table in tables), 0)
    return facts.of_load(restored, None, Kept().facts(), [])
