"""Restoring definitions and large objects with pg_restore, as the temporary login, never as administrator."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tenant_backup.contract.reasons import Failure, Reason

from . import clients, failures, session
from .catalogue import FORMAT
from .endpoint import Connection, Endpoint
from .names import quoted
from .toc import Contents, Entry, Limits, parse, sift

# pg_restore 17 sets a parameter that servers before 17 do not know; servers without a client of their own
# meet it. This line is the program's own, in English always; the server's may be in any language.
_TOLERATED = "Command was: SET transaction_timeout = 0;"
_TOLERANT_BELOW = 170000
# The role is missing, or not ours to speak for; or an older server does not know the right (42601).
_ABSENT = ("42704", "42501", "0LP01", "42601")
_EXTENSIONS = """
SELECT DISTINCT v.name::text FROM pg_available_extension_versions v
WHERE v.trusted OR NOT v.superuser
"""


@dataclass(frozen=True)
class Definitions:
    """An archive made by `pg_dump --schema-only`, and where it goes."""

    file: Path
    program: str  # pg_restore
    source: int  # server_version_num of where the archive was made
    server: int  # and of the target
    endpoint: Endpoint  # the side database, as the temporary login
    owner: str
    codec: str  # of names in the archive, which are in the database's encoding

    def contents(self, limits: Limits) -> Contents:
        """Read the table of contents and leave out what this login may not create. Raises Failure."""
        command = [self.program, "--list", "--verbose", str(self.file)]
        done = subprocess.run(command, capture_output=True, env=clients.environment(), check=False)
        if done.returncode:
            raise failures.of_text(
                done.stderr.decode(errors="replace"), Reason.LOAD_FAILED, "reading the definitions"
            )
        return sift(parse(done.stdout.decode(self.codec, "surrogateescape")), limits)

    def restore(self, entries: list[Entry], section: str, jobs: int = 1) -> None:
        """Restore these of one section (pre-data or post-data) without owners and grants. Raises Failure."""
        with self._list(entries) as path:
            flags = [f"--section={section}", f"--use-list={path}", f"--jobs={jobs}"]
            command = [*self._command(), *flags, str(self.file)]
            child = clients.start(command, subprocess.DEVNULL)
            self._finish(child, f"restoring {section}")

    def restore_large_objects(self, blocks: Iterable[bytes | memoryview]) -> None:
        """Restore an archive of large objects as it arrives. Raises Failure."""
        child = clients.start(self._command(), subprocess.DEVNULL, subprocess.PIPE)
        assert child.stdin
        try:
            for block in blocks:
                child.stdin.write(block)
            child.stdin.close()
        except BrokenPipeError:
            pass  # its exit code and words say why
        except BaseException:
            child.kill()
            raise
        self._finish(child, "restoring large objects")

    def grants(self, contents: Contents) -> Iterator[str]:
        """Yield the archive's GRANT and REVOKE statements one by one."""
        entries = [entry for entry in contents.kept if entry.is_a(("ACL", "DEFAULT ACL"))]
        if entries:
            with self._list(entries) as path:
                command = [self.program, "--no-owner", f"--use-list={path}", "--file=-", str(self.file)]
                done = subprocess.run(command, capture_output=True, env=clients.environment(), check=True)
            yield from statements(done.stdout.decode(self.codec, "surrogateescape"))

    def _command(self) -> list[str]:
        tolerant = self.server < _TOLERANT_BELOW <= clients.major_of(self.program) * 10000
        flags = ["--no-owner", "--no-privileges", "--no-tablespaces", f"--role={self.owner}", "-w"]
        stop = [] if tolerant else ["--exit-on-error"]
        conninfo = self.endpoint.conninfo(session.for_version(self.server))
        return [self.program, *flags, *stop, "-d", conninfo]

    def _list(self, entries: list[Entry]) -> _ListFile:
        text = "".join(entry.line for entry in entries).encode(self.codec, "surrogateescape")
        first = entries[0].id if entries else 0  # tells lists apart that are in use at once
        return _ListFile(self.file.with_suffix(f".{first}.list"), text)

    def _finish(self, child: subprocess.Popen[bytes], what: str) -> None:
        said = clients.complaints(child)
        if child.wait() == 0:
            return
        real = untolerated(said)
        if child.returncode < 0 or real or _TOLERATED not in said:
            raise self._failure(real or said, what)

    def _failure(self, said: str, what: str) -> Failure:
        """What the server refused; an older one has a reason of its own for that."""
        source, target = self.source // 10000, self.server // 10000
        if source <= target:
            return failures.of_text(said, Reason.LOAD_FAILED, what)
        older = f"{what} of a database of PostgreSQL {source} in version {target}"
        found = failures.of_text(said, Reason.UNSUPPORTED_CONTENT, older)
        if found.reason is not Reason.UNSUPPORTED_CONTENT:
            return found
        return Failure(found.reason, f"{found.message}; restore to a server of version {source} or newer")


@dataclass(frozen=True)
class _ListFile:
    """The file for --use-list, as long as pg_restore reads it."""

    path: Path
    text: bytes

    def __enter__(self) -> Path:
        self.path.write_bytes(self.text)
        return self.path

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


def untolerated(said: str) -> str:
    """Return what pg_restore said without the one error that means nothing, empty when that was all."""
    errors = re.split(r"(?m)^(?=pg_restore: )", said)
    return "".join(error for error in errors if "error:" in error and _TOLERATED not in error)


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script that are about privileges, one by one."""
    wanted = re.compile(r"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|SET SESSION|RESET SESSION)\b")
    statement = ""
    for line in script.split("\n"):
        if not statement and not wanted.match(line):
            continue  # comments, settings, psql's own commands
        statement += line + "\n"
        if line.endswith(";") and statement.count('"') % 2 == 0:
            yield statement
            statement = ""


def apply_grants(connection: Connection, grants: Iterable[str]) -> list[str]:
    """Run grants as the owner; return those whose role does not exist here or is not ours to speak for."""
    skipped = []
    for grant in grants:
        try:
            connection.execute(grant)
        except psycopg.Error as error:
            if error.sqlstate not in _ABSENT:
                raise failures.of_error(error, Reason.LOAD_FAILED, "restoring grants") from error
            skipped.append(" ".join(grant.split()))
    return [text for text in skipped if "SESSION AUTHORIZATION" not in text]


def limits(connection: Connection, catalogue: dict[str, Any]) -> Limits:
    """What the temporary login may create in the side database, and which entries are handled apart."""
    return Limits(
        extensions={row[0] for row in connection.execute(_EXTENSIONS).fetchall()},
        publications=catalogue["publicationsOfEverything"],
        policies=_policies_of_nobody(connection, catalogue["policies"]),
        functions=frozenset(catalogue["untrustedFunctions"]),
        tables_with_rows=[
            (table["schema"], table["table"]) for table in catalogue["tables"] if table["rows"]
        ],
        loose_keys=[(key["schema"], key["table"], key["name"]) for key in catalogue["looseForeignKeys"]],
    )


def restored(connection: Connection, catalogue: dict[str, Any]) -> dict[str, Any]:
    """Return the catalogue without tables and sequences that were left out with what they depend on.

    Raises PERMISSION_DENIED when rows would be lost.
    """
    tables = [(table, quoted(table["schema"], table["table"])) for table in catalogue["tables"]]
    sequences = [(item, quoted(item["schema"], item["name"])) for item in catalogue["sequences"]]
    absent = _absent(connection, [name for _, name in (*tables, *sequences)])
    for table, name in tables:
        if name in absent and table["rows"]:
            message = f"rows of {table['name']} are in the backup, but its definition needs an administrator"
            raise Failure(Reason.PERMISSION_DENIED, f"{message}: see extension {table['extension']}")
    return {
        **catalogue,
        "tables": [table for table, name in tables if name not in absent],
        "sequences": [sequence for sequence, name in sequences if name not in absent],
    }


def _absent(connection: Connection, names: list[str]) -> set[str]:
    query = "SELECT name FROM unnest(%s::text[]) AS name WHERE pg_catalog.to_regclass(name) IS NULL"
    return {row[0] for row in connection.execute(query, (names,)).fetchall()}


def _policies_of_nobody(connection: Connection, policies: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """The policies that cannot be declared because a role is missing, unless that lets others see more.

    Those that it would, restrict a role that exists: the server refuses them, and the restore ends.
    """
    named = {role for policy in policies for role in policy["roles"]}
    query = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(%s)"
    present = {row[0] for row in connection.execute(query, (list(named),)).fetchall()}
    return [
        (policy["schema"], policy["table"], policy["name"])
        for policy in policies
        if not present.issuperset(policy["roles"])
        and (policy["permissive"] or present.isdisjoint(policy["roles"]))
    ]


def add_loose_keys(connection: Connection, catalogue: dict[str, Any]) -> list[str]:
    """Declare foreign keys whose rows are not all in the backup as NOT VALID; return what to tell."""
    told = []
    for key in catalogue["looseForeignKeys"]:
        table = quoted(key["schema"], key["table"])
        constraint = f"ADD CONSTRAINT {quoted(key['name'])} {key['definition'].removesuffix(' NOT VALID')}"
        try:
            connection.execute(f"ALTER TABLE {table} {constraint} NOT VALID")
            told.append(
                f"FK CONSTRAINT {key['schema']}.{key['table']}.{key['name']} is NOT VALID: rows left out"
            )
        except psycopg.Error as error:
            line = failures.error_line(str(error))
            told.append(f"FK CONSTRAINT {key['schema']}.{key['table']}.{key['name']}: {line}")
    return told


def refresh(connection: Connection, views: list[list[str]]) -> list[str]:
    """Fill materialized views in the given order; return those that could not be (their rows are derived)."""
    told = []
    for schema, name in views:
        try:
            connection.execute(f"REFRESH MATERIALIZED VIEW {quoted(schema, name)}")
        except psycopg.Error as error:
            told.append(f"MATERIALIZED VIEW {schema}.{name} is empty: {failures.error_line(str(error))}")
    return told


def set_sequences(connection: Connection, sequences: list[dict[str, Any]]) -> None:
    """Put every sequence where it was. Raises Failure."""
    query = "SELECT pg_catalog.setval(%s::regclass, %s, %s)"
    for sequence in sequences:
        name = quoted(sequence["schema"], sequence["name"])
        connection.execute(query, (name, sequence["last"], sequence["called"]))


def refuse_newer(catalogue: dict[str, Any]) -> None:
    """Raise UNSUPPORTED_CONTENT when the catalogue was made by a newer version of ours."""
    if catalogue["format"] > FORMAT:
        message = f"the backup's catalogue has format {catalogue['format']}; use a newer runner image"
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
