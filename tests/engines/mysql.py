"""A real MySQL, for tests: out of its test image, on this machine's loopback, in a folder of its own."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from hack.lab.roots import USER, inside, root
from tests.engines.mariadb import MariaDB

_EXPLICIT = re.compile(r" CHARACTER SET \w+ COLLATE")
_SEQUENCE = re.compile(r"\bseq_(\d+)_to_(\d+)\b")


@dataclass
class MySQL(MariaDB):
    """One MySQL server. What tests ask of a MariaDB it answers likewise."""

    engine = "MySQL"
    programs = ("mysql", "mysqldump")
    dump_options = ()
    image: Path = field(default_factory=functools.partial(root, "test-mysql:9"))

    def prepare(self) -> None:
        """Make the data directory."""
        os.chown(self.folder, USER, USER)
        made = ["mysqld", "--no-defaults", "--initialize-insecure", *self.places]
        subprocess.run(
            [*self.inside, *made, "--innodb-redo-log-capacity=8M"], check=True, capture_output=True
        )

    @property
    def daemon(self) -> list[str]:
        """The server's program and its options."""
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]
        quick += ["--innodb-doublewrite=OFF", "--skip-log-bin"]
        return [*self.inside, "mysqld", "--no-defaults", "--mysqlx=OFF", "--secure-file-priv=NULL", *quick]

    @property
    def inside(self) -> list[str]:
        """What stands before a program of the image."""
        return inside(self.image, self.folder)

    def dump(self, database: str, *flags: str) -> list[str]:
        """What mysqldump writes; whether a collation was named with its character set is not kept by it either."""
        return [_EXPLICIT.sub(" COLLATE", line) for line in super().dump(database, *flags)]

    def checksum(self, table: str, database: str) -> str:
        """Of JSON, and of the hidden column of a functional index, CHECKSUM TABLE sees what is beside it in memory."""
        name = table[1:-1].replace("``", "`")
        where = f"WHERE table_schema = '{database}' AND table_name = '{name}'"
        query = (
            f"SELECT column_name, data_type FROM information_schema.COLUMNS {where} ORDER BY ordinal_position"
        )
        columns = self.sql(query)
        functional = self.sql(
            f"SELECT 1 FROM information_schema.STATISTICS {where} AND expression IS NOT NULL"
        )
        if not functional and "json" not in {kind for _, kind in columns}:
            return super().checksum(table, database)
        listed = ", ".join(f"coalesce(hex(concat(`{column}`)), '-')" for column, _ in columns)
        return str(self.sql(f"SELECT count(*), sum(crc32(concat_ws('|', {listed}))) FROM {table}", database))

    def flavoured(self, script: str) -> str:
        """Put the numbers that MariaDB has as tables."""
        return with_numbers(script)


def with_numbers(script: str) -> str:
    """Replace the tables seq_1_to_9 of MariaDB by what MySQL has instead, and a function that it lost."""
    script = script.replace("md5(seq)", "sha2(seq, 256)")
    return _SEQUENCE.sub(lambda found: _numbers(int(found[1]), int(found[2])), script)


def _numbers(first: int, last: int) -> str:
    listed = f"concat('[0', repeat(',0', {last - first}), ']')"
    columns = "COLUMNS (place FOR ORDINALITY)"
    return f"(SELECT place + {first - 1} AS seq FROM JSON_TABLE({listed}, '$[*]' {columns}) j) s"
