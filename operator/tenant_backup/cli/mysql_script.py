"""One backup as SQL that plain mariadb or mysql runs: what their dumps had been, made from the archive alone.

Nothing of it reaches a server here; engines.mysql.script says what keeps a tenant's words from the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.reader import ArchiveReader
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.mysql import catalogue as catalogues
from tenant_backup.engines.mysql import definitions, excluded, script
from tenant_backup.engines.mysql.dialects import OF_ENGINE, Dialect


@dataclass(frozen=True)
class Script:
    """The SQL of one backup. With `owners`, what is code keeps its definers."""

    reader: ArchiveReader
    catalogue: Catalogue
    owners: bool = False

    def blocks(self) -> Iterator[bytes]:
        """Yield the script; each row was checked before. Raises Failure."""
        engine = self.catalogue.engine
        self._refuse_unsupported()
        found = definitions.from_blob(b"".join(self._segment(definitions.SEGMENT)))
        yield script.opening(self._about(), engine["database"], self._dialect)
        for item in filter(definitions.holds_rows, found):
            yield script.definition(item, self._dialect)
        for table in engine["tables"]:
            if table["withRows"]:
                yield from script.rows(excluded.with_fill(table, []), self._lines(table))
        for sequence in engine["sequences"]:
            yield script.sequence(sequence)
        for item in script.code_in_order(found):
            yield script.definition(item, self._dialect, owners=self.owners)

    @property
    def _dialect(self) -> Dialect:
        return OF_ENGINE[self.catalogue.engine["server"]["engine"]]

    def _refuse_unsupported(self) -> None:
        engine = self.catalogue.engine
        if engine["format"] > catalogues.FORMAT:
            message = f"the backup's catalogue has format {engine['format']}; use a newer tenant-backup"
            raise Failure(Reason.UNSUPPORTED_CONTENT, message)
        script.refuse_names(engine)

    def _about(self) -> list[str]:
        manifest = self.reader.manifest
        return [
            f"backup {manifest.backup_id} of {manifest.times.snapshot}, by tenant-backup {manifest.writer}",
            f"into an empty database: {self._dialect.client} NEW_DATABASE < THIS_FILE",
        ]

    def _lines(self, table: dict[str, Any]) -> Iterator[bytes]:
        for segment in table["segments"]:
            yield from self._segment(segment)

    def _segment(self, name: str) -> Iterator[bytes]:
        return self.reader.blocks(self.catalogue.segments[name])
