"""One backup as SQL that plain psql runs: what pg_dump would have written, made from the archive alone.

Definitions come from pg_restore, which turns the archived schema into text and meets no server. Names and
values are put into SQL only quoted, and never into a comment: psql would run what stands behind a newline.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.reader import ArchiveReader
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.postgresql import clients, definitions, failures, toc
from tenant_backup.engines.postgresql.names import codec_of, literal, quoted

from . import gaps

_PIECE = 1 << 20  # bytes read from pg_restore at once
_DISOWNED = ("--no-owner", "--no-privileges")


@dataclass(frozen=True)
class Script:
    """The SQL of one backup. With `owners`, objects get their owners and grants, whose roles must exist."""

    reader: ArchiveReader
    catalogue: Catalogue
    folder: Path  # for the schema's archive while it is read
    owners: bool = False

    def blocks(self) -> Iterator[bytes]:
        """Yield the script; each row was checked before. Raises Failure."""
        engine = self.catalogue.engine
        definitions.refuse_newer(engine)
        yield self._head()
        schema, listing = self._schema()
        yield from self._definitions(schema, listing, "pre-data")
        yield self._own(gaps.opening(engine["tables"]))
        for table in engine["tables"]:
            yield from self._rows(table)
        yield from self._large_objects()
        yield self._own(gaps.closing(engine["tables"]))
        yield self._own(map(_sequence, engine["sequences"]))
        yield from self._definitions(schema, listing, "post-data")
        yield self._own(map(_loose_key, engine["looseForeignKeys"]))
        yield self._own(f"REFRESH MATERIALIZED VIEW {quoted(*view)};" for view in engine["materializedViews"])

    def _head(self) -> bytes:
        manifest = self.reader.manifest
        made = f"backup {manifest.backup_id} of {manifest.times.snapshot}, by tenant-backup {manifest.writer}"
        return self._own(
            [
                f"-- {made}",
                "-- into an empty database: psql -X -v ON_ERROR_STOP=1 -d NEW_DATABASE -f THIS_FILE",
                "SET client_min_messages = warning;",
            ]
        )

    def _schema(self) -> tuple[Path, Path]:
        """Fetch the schema's archive; return it and the list of what to take from it."""
        schema = self.folder / "schema.dump"
        with schema.open("wb") as file:
            for block in self._segment("schema"):
                file.write(block)
        listing = self.folder / "schema.list"
        done = subprocess.run(
            [self._pg_restore(), "--list", "--verbose", schema],
            capture_output=True,
            env=clients.environment(),
            check=False,
        )
        if done.returncode:
            raise _failed(done.stderr)
        loose = [
            (key["schema"], key["table"], key["name"]) for key in self.catalogue.engine["looseForeignKeys"]
        ]
        codec = codec_of(self._encoding)
        entries = toc.without_loose_keys(toc.parse(done.stdout.decode(codec, "surrogateescape")), loose)
        listing.write_bytes("".join(entry.line for entry in entries).encode(codec, "surrogateescape"))
        return schema, listing

    def _definitions(self, schema: Path, listing: Path, section: str) -> Iterator[bytes]:
        return self._restored([f"--section={section}", f"--use-list={listing}", str(schema)])

    def _large_objects(self) -> Iterator[bytes]:
        if not self.catalogue.engine["largeObjects"]:
            return
        archive = self.folder / "largeobjects.dump"
        with archive.open("wb") as file:
            for block in self._segment("largeobjects"):
                file.write(block)
        yield from self._restored([str(archive)])
        archive.unlink()

    def _rows(self, table: dict[str, Any]) -> Iterator[bytes]:
        if not table["withRows"]:
            return
        columns = ", ".join(map(quoted, table["columns"]))
        listed = f" ({columns})" if columns else ""
        name, encoding = quoted(table["schema"], table["table"]), self._encoding
        yield self._own([f"COPY {name}{listed} FROM stdin (ENCODING {literal(encoding)});"])
        for segment in table["segments"]:
            yield from self._segment(segment)
        yield b"\\.\n\n"

    def _segment(self, name: str) -> Iterator[bytes]:
        return self.reader.blocks(self.catalogue.segments[name])

    def _restored(self, arguments: Sequence[str]) -> Iterator[bytes]:
        """Yield what pg_restore writes; only its exit code says that it is complete."""
        disowned = () if self.owners else _DISOWNED
        child = clients.start([self._pg_restore(), "--file=-", *disowned, *arguments], subprocess.PIPE)
        assert child.stdout
        try:
            yield from _pieces(child.stdout)
            said = clients.complaints(child)
            if child.wait():
                raise _failed(said.encode())
        finally:
            child.kill()
            child.wait()

    @property
    def _encoding(self) -> str:
        """PostgreSQL's name of the encoding the rows are in."""
        return str(self.catalogue.engine["database"]["encoding"])

    def _own(self, statements: Iterable[str]) -> bytes:
        """Statements of ours; pg_restore sets another client encoding before its own."""
        # Names of a database without an encoding are bytes: Latin-1 carries each one through unchanged.
        codec, encoding = ("latin-1", "SQL_ASCII") if self._encoding == "SQL_ASCII" else ("utf-8", "UTF8")
        lines = list(statements)
        return "\n".join([f"SET client_encoding = '{encoding}';", *lines, ""]).encode(codec) if lines else b""

    def _pg_restore(self) -> str:
        return clients.program("pg_restore", self.catalogue.engine["server"]["number"])


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(_PIECE), b"")


def _sequence(sequence: dict[str, Any]) -> str:
    name = literal(quoted(sequence["schema"], sequence["name"]))
    return f"SELECT pg_catalog.setval({name}, {sequence['last']}, {str(sequence['called']).lower()});"


def _loose_key(key: dict[str, Any]) -> str:
    """A foreign key to rows that are not in the backup."""
    constraint = (
        f"ADD CONSTRAINT {quoted(key['name'])} {key['definition'].removesuffix(' NOT VALID')} NOT VALID"
    )
    return f"ALTER TABLE {quoted(key['schema'], key['table'])} {constraint};"


def _failed(said: bytes) -> Failure:
    return failures.of_text(
        said.decode(errors="replace"), Reason.INTERNAL_ERROR, "pg_restore, turning the definitions into SQL"
    )
