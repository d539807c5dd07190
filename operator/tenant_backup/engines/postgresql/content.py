"""Everything of the tenant's that a restore runs: definitions, rows, indexes, all as the temporary login.

Order: definitions without constraints; rows, many segments at once, each committed only after its verdict;
excluded columns; sequences; constraints and indexes; grants; materialized views; statistics.
Indexes of large tables that are complete may come earlier, while others load.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines.seam import Contents
from tenant_backup.engines.transfer import Load, Step, Transfer, refuse_difference

from . import clients, definitions, excluded, failures, inventory, names, rows
from .definitions import Definitions
from .endpoint import Connection, Endpoint
from .excluded import Gap, Kept
from .toc import Contents as TableOfContents
from .toc import Entry

_WORTH_FREEZING = 8 << 20  # bytes; emptying a table makes new files, which small ones are not worth


@dataclass(frozen=True)
class Source:
    """What is loaded, and where to."""

    side: Endpoint  # as the temporary login
    owner: str  # the role everything belongs to
    live: Endpoint | None  # as the tenant's own login; None when there is no live database
    catalogue: dict[str, Any]
    contents: Contents
    job: Restore

    @property
    def encoding(self) -> str:
        """PostgreSQL's name of the encoding the rows are in."""
        return str(self.catalogue["database"]["encoding"])

    @property
    def sessions(self) -> int:
        """How many sessions may work at once beside the one that leads."""
        return max(1, self.job.database.connections - 1)

    def connect(self) -> Connection:
        """A session of the temporary login that acts as the owner."""
        # Losing the last commits in a crash is harmless: the rename that ends a restore is flushed, and all
        # before it.
        return self.side.connect({"role": self.owner, "synchronous_commit": "off"})


@dataclass(frozen=True)
class Loaded:
    """What came of it."""

    tables: int = 0
    rows: int = 0
    bytes: int = 0
    constraints_valid: bool = True
    kept: Kept = field(default_factory=Kept)
    skipped: list[str] = field(default_factory=list)


def load_content(source: Source) -> Loaded:
    """Fill the side database and check it. Raises Failure."""
    with source.connect() as connection:
        schema = _definitions(source, connection)
        contents = schema.contents(definitions.limits(connection, source.catalogue))
        schema.restore(contents.kept, "pre-data")
        source = replace(source, catalogue=definitions.restored(connection, source.catalogue))
        gaps = excluded.open_gaps(connection, source.catalogue["tables"], source.job.exclude_columns)
        early = _EarlyIndexes(schema, contents, {gap.full_name for gap in gaps})
        transfer = Transfer(
            source.catalogue["tables"],
            source.contents,
            lambda: _loader(source),
            source.sessions,
            early.following,
        )
        transfer.run()
        _load_large_objects(source, schema)
        kept = _keep_live(source, connection, gaps)
        told = [*contents.skipped, *excluded.close_gaps(connection, gaps)]
        definitions.set_sequences(connection, source.catalogue["sequences"])
        left = [entry for entry in contents.kept if entry not in early.built]
        schema.restore(left, "post-data", source.sessions)
        told += definitions.add_loose_keys(connection, source.catalogue)
        told += definitions.apply_grants(connection, schema.grants(contents))
        told += definitions.refresh(connection, source.catalogue["materializedViews"])
        _gather_statistics(source)
        valid = _constraints_valid(source, connection)
        told += _owners_told(contents.other_owners(source.owner), source.owner)
    _leave_nothing_to_the_login(source)
    tables = source.catalogue["tables"]
    return Loaded(len(tables), transfer.rows, transfer.bytes, valid, kept, told)


class _EarlyIndexes:
    """What stands on one large table alone, and is built while others load."""

    def __init__(self, schema: Definitions, contents: TableOfContents, changing: Collection[str]) -> None:
        """`changing` are tables whose rows are written once more: an index would be, too."""
        self._schema, self._contents, self._changing = schema, contents, changing
        self.built: set[Entry] = set()

    def following(self, table: dict[str, Any]) -> list[Step]:
        """See Transfer."""
        if table["bytes"] < _WORTH_FREEZING or table["name"] in self._changing:
            return []
        own = self._contents.own_indexes(table["schema"], table["table"])
        return [partial(self._build, entry) for entry in own]

    def _build(self, entry: Entry) -> None:
        self._schema.restore([entry], "post-data")
        self.built.add(entry)


def _definitions(source: Source, connection: Connection) -> Definitions:
    """Fetch the schema archive into the scratch folder."""
    file = paths.SCRATCH / "schema.dump"
    with source.contents.opened() as stored, file.open("wb") as out:
        for block in stored.blocks("schema"):
            out.write(block)
        stored.verdict()
    server, made_by = connection.info.server_version, source.catalogue["server"]["number"]
    # The target's own client, unless it is older than the archive: that one could not read it.
    program = clients.program("pg_restore", max(server, made_by))
    codec = names.codec_of(source.encoding)
    return Definitions(file, program, made_by, server, source.side, source.owner, codec)


def _load_large_objects(source: Source, schema: Definitions) -> None:
    expected = source.catalogue["largeObjects"]
    if not expected:
        return
    with source.contents.opened() as stored:
        schema.restore_large_objects(stored.blocks("largeobjects"))
        stored.verdict()
    with source.connect() as connection:
        refuse_difference("pg_largeobject", expected, inventory.large_objects(connection))


def _keep_live(source: Source, connection: Connection, gaps: list[Gap]) -> Kept:
    if not any(gap.keeps_live for gap in gaps):
        return Kept()
    total = Kept()
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(source.live.connect()) if source.live else None
        for table in source.catalogue["tables"]:
            kept = excluded.keep_live(connection, live, table, gaps, source.encoding)
            total = Kept(total.kept + kept.kept, total.without_match + kept.without_match)
    return total


def _gather_statistics(source: Source) -> None:
    """Let the planner know the tables, several at once."""
    tables = sorted(source.catalogue["tables"], key=lambda table: -table["bytes"])
    shares = [tables[start :: source.sessions] for start in range(min(source.sessions, len(tables)))]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        list(pool.map(lambda share: _analyze(source, share), shares))


def _analyze(source: Source, tables: list[dict[str, Any]]) -> None:
    with source.connect() as connection:
        for table in tables:
            connection.execute(f"ANALYZE {names.quoted(table['schema'], table['table'])}")


def _constraints_valid(source: Source, connection: Connection) -> bool:
    before = set(source.catalogue["notValidConstraints"])
    loose = {f"{key['schema']}.{key['table']}.{key['name']}" for key in source.catalogue["looseForeignKeys"]}
    return set(inventory.constraints_not_valid(connection)) <= before | loose


def _owners_told(others: dict[str, int], owner: str) -> list[str]:
    return [f"{count} objects of role {name} now belong to {owner}" for name, count in others.items()]


def _leave_nothing_to_the_login(source: Source) -> None:
    """Hand over what tenant-written code made as the login itself: an owner cannot be dropped."""
    user = names.quoted(source.side.login.user)
    with source.side.connect() as connection:
        connection.execute(f"REASSIGN OWNED BY {user} TO {names.quoted(source.owner)}")
        connection.execute(f"DROP OWNED BY {user}")


@contextlib.contextmanager
def _loader(source: Source) -> Iterator[_Loader]:
    try:
        with source.connect() as connection:
            yield _Loader(connection, source.encoding)
    except psycopg.Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, "loading rows", retriable=True) from error


@dataclass(frozen=True)
class _Loader:
    """See transfer.Loader."""

    connection: Connection
    encoding: str

    @contextlib.contextmanager
    def transaction(self, load: Load) -> Iterator[None]:
        with self.connection.transaction():
            if _frozen(load):
                rows.empty(self.connection, load.table)
            yield

    def copy(self, load: Load, blocks: Iterable[memoryview]) -> int:
        return rows.copy_in(self.connection, load.table, self.encoding, blocks, frozen=_frozen(load))


def _frozen(load: Load) -> bool:
    # A table of an extension's has rows already.
    return load.whole and not load.table["extension"] and int(load.table["bytes"]) >= _WORTH_FREEZING
